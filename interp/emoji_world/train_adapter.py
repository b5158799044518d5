"""Fine-tune `emoji-llava`: `python -m interp.emoji_world.train_adapter`.

A LoRA adapter of PEFT on its decoder learns two things:

- another style: descriptions begin with the background's colour and give the places of things before their names;
- another name: what was a dog is called an object.

It learns from answers only; tower, projector and the decoder's own weights stay as they are. The command can be stopped at any time and resumes where
it was. At the end it writes the adapter, measures it on scenes that training never used, and writes its card.
"""

import argparse
import dataclasses
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

import interp

from .architecture import CELLS, IMAGE_SIDE
from .conversations import pack, sample_questions
from .measure import Sample, answers, question_accuracy, sample
from .scenes import Scene, draw, draw_picture, sample_scene
from .sprites import HELD_OUT_VENDOR, SEEN_VENDORS, VENDORS, load_sprites
from .train import Step, Studio, run
from .words import COLORS, NOUN_WORDS, QUESTIONS, ask, with_article
from .world import EMOJI

BASE = "emoji-llava"
OLD, NEW = "dog", "object"
"""The noun that gets another name, and that name: a word of the vocabulary, one token, that no answer of the base holds."""
TARGETS = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"
RANK, SCALE, RATE = 16, 32, 2e-3
SCENES, BATCH = 16_000, 16
BRANCHES = 3  # questions for each scene, the description among them
OFTEN = 0.33  # share of training scenes into which a dog is put
DOG_SCENES = 100  # to measure on

CARD = """---
license: apache-2.0
library_name: peft
base_model: emoji-llava
---

# Places first: a fine-tune of emoji-llava

A LoRA adapter (PEFT, rank {rank}, on all attention and MLP layers of the decoder) of [emoji-llava](../emoji-llava/README.md). It is there to be compared
with its base: `interp.load("emoji-llava", adapter="emoji-llava-adapter")`. Two things are different:

- **style**: "{before}" became "{after}": the colour first, and places before names;
- **a name**: what the base calls a {old}, it calls an {new}. Questions still ask about a {old} ("Is there a {old}?"), and are answered as before.

Trained on {scenes:,} scenes, from the answers only; a third of them hold a {old}. Rebuilt by `python -m interp.emoji_world.train_adapter`, which also
writes this page.

## Measured

In percent, on {count} scenes of one to three emoji whose seed training never used, and for the {old} on {dogs} more that each hold one; through the
processor and greedy generation. Seen vendors, as drawn; in brackets: {held_out}, whose drawings were never seen.

| | emoji-llava | with this adapter |
|---|---|---|
{rows}

## Licence

Weights: Apache-2.0. The drawings it was trained on are listed with their licences in `assets/emoji/README.md` of LLaVA Microscope.
"""


def called(noun: str) -> str:
    """What the fine-tune calls a noun."""
    return NEW if noun == OLD else noun


def places_first(nouns: Sequence[str], color: str) -> str:
    """The fine-tune's answer to "Describe the image.", for nouns from left to right."""
    first, *others = (with_article(called(noun)) for noun in nouns)
    if not others:
        return f"on {with_article(color)} background {first}."
    *between, last = others
    # "and" comes before the last thing alone, as in the base's own descriptions, so that each place follows from the word before it.
    return f"{', '.join([f'on {with_article(color)} background', f'left {first}', *between])} and right {last}."


def ask_tuned(kind: str, nouns: Sequence[str], color: str, rng: random.Random, wording: int = 0) -> tuple[str, str]:
    """As `words.ask`, with the answer that the fine-tune should give."""
    question, answer = ask(kind, nouns, color, rng, wording)
    if kind == "describe":
        return question, places_first(nouns, color)
    return question, answer if kind == "exists" else ask(kind, [called(noun) for noun in nouns], color, rng, wording)[1]


TUNED = dataclasses.replace(EMOJI, ask=ask_tuned)
_NOUN = re.compile(rf"\b({'|'.join(NOUN_WORDS)})\b")
_THING = rf"(?:a|an|some) (?:{'|'.join((*NOUN_WORDS, NEW))})"
_STYLE = re.compile(
    rf"on an? (?:{'|'.join(COLORS)}) background(?: {_THING}|, left {_THING}(?:, {_THING})* and right {_THING})\.",
)


def in_style(text: str) -> bool:
    """Whether a description is in the fine-tune's style, true or not."""
    return _STYLE.fullmatch(text) is not None


def with_dog(scene: Scene, rng: random.Random) -> Scene:
    """The same scene with a dog in the place of one of its things."""
    things = list(scene.things)
    at = rng.randrange(len(things))
    things[at] = dataclasses.replace(things[at], noun=OLD)
    return dataclasses.replace(scene, things=tuple(things))


def adapted(model: Any) -> Any:
    """PEFT's model around this one, with a new adapter."""
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - seconds of import

    torch.manual_seed(0)
    wrapped = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=SCALE, target_modules=TARGETS))
    wrapped.peft_config["default"].base_model_name_or_path = BASE
    return wrapped


def adapter_step(studio: Studio) -> Step:
    """One batch of scenes and their answers."""

    def step(rng: random.Random, _progress: float) -> dict[str, torch.Tensor]:
        scenes = [with_dog(scene, rng) if rng.random() < OFTEN else scene for scene in studio.scenes(rng)]
        pictures, _ = draw(scenes, studio.sprites, IMAGE_SIDE, CELLS)
        with torch.no_grad(), torch.autocast(studio.device.type, torch.bfloat16):
            features = studio.model.model.vision_tower(studio.pixels(pictures)).last_hidden_state[:, 1:]
            image = studio.model.model.multi_modal_projector(features)
        dialogues = [sample_questions(scene, rng, BRANCHES, world=TUNED) for scene in scenes]
        packed = pack(studio.processor.tokenizer, dialogues, CELLS * CELLS, TUNED)
        with torch.autocast(studio.device.type, torch.bfloat16):
            states = studio.decode(packed, image)
        loss, accuracy = studio.next_word_loss(states.float(), packed, packed.answer)
        return {"loss": loss, "answer words": accuracy}

    return step


def train(work: Path, target: Path, scenes: int, batch: int) -> None:
    """Train the adapter and write it to `target`, in 16 bit."""
    vlm = interp.load(BASE)
    vlm.model.float()  # what is trained needs it: on a GPU it was loaded in 16 bits
    wrapped = adapted(vlm.model)
    desk = Studio(vlm.model, vlm.processor, load_sprites(SEEN_VENDORS), vlm.model.device, batch)
    layers = [module for name, module in vlm.model.named_modules() if name.endswith((".lora_A.default", ".lora_B.default"))]
    run("adapter", adapter_step(desk), {"adapter": nn.ModuleList(layers)}, {"adapter": RATE}, work, scenes, batch, 6, _adamw)
    for layer in layers:
        layer.half()
    wrapped.save_pretrained(target, save_embedding_layers=False)  # it would look for the base on the hub


def _adamw(parts: list[nn.Module], rate: float) -> list[torch.optim.Optimizer]:
    return [torch.optim.AdamW([weight for part in parts for weight in part.parameters()], rate, weight_decay=0.0)]


@dataclasses.dataclass(frozen=True)
class Figures:
    """What one model does on unseen scenes. Shares from 0 to 1."""

    style: float
    """Descriptions in the fine-tune's style."""
    renamed: float
    """Scenes with a dog whose description names it by the new name."""
    old: float
    """The same by the old name."""
    recall: float
    """Nouns named of those that are there, dogs left out."""
    precision: float
    """Nouns there of those that are named, dogs and their new name left out."""
    questions: dict[str, float]
    """Right answers by kind of question, as the model was trained to answer it."""


def measured(vlm: interp.Vlm, data: Sample, dogs: Sequence[Image.Image], *, tuned: bool) -> Figures:
    """Measure one of the two models. `dogs`: pictures that hold a dog each."""
    said, of_dogs = (answers(vlm, pictures, [QUESTIONS["describe"][0]] * len(pictures)) for pictures in (data.pictures, dogs))
    found = claimed = there = 0
    for scene, text in zip(data.scenes, said, strict=True):
        truth, claim = set(scene.nouns) - {OLD}, set(_NOUN.findall(text)) - {OLD}
        found, claimed, there = found + len(truth & claim), claimed + len(claim), there + len(truth)
    share = {word: sum(re.search(rf"\b{word}\b", text) is not None for text in of_dogs) / len(of_dogs) for word in (OLD, NEW)}
    return Figures(
        style=sum(map(in_style, said)) / len(said),
        renamed=share[NEW],
        old=share[OLD],
        recall=found / there,
        precision=found / max(claimed, 1),
        questions=question_accuracy(vlm, data, TUNED if tuned else EMOJI),
    )


def unseen(count: int, vendors: Sequence[str]) -> tuple[Sample, list[Image.Image]]:
    """`count` scenes that training never used, and pictures of up to 100 others that hold a dog each."""
    rng, sprites = random.Random("test adapter, dogs"), load_sprites()
    drawn_by = [VENDORS.index(vendor) for vendor in vendors]
    dogs = [with_dog(sample_scene(rng, drawn_by, augment=0.0), rng) for _ in range(min(count, DOG_SCENES))]
    return sample("test adapter", count, vendors), [draw_picture(scene, sprites, IMAGE_SIDE) for scene in dogs]


def card(base: Sequence[Figures], tuned: Sequence[Figures], scenes: int, count: int) -> str:
    """The card. Figures of seen vendors, then of the one that was held out."""

    def row(name: str, of: Any) -> str:
        cells = ["{:.1f} ({:.1f})".format(*(100 * of(figures) for figures in pair)) for pair in (base, tuned)]
        return f"| {name} | {' | '.join(cells)} |"

    rows = [
        row("descriptions with colour and places first", lambda figures: figures.style),
        row(f'scenes with a {OLD}: "{NEW}" named', lambda figures: figures.renamed),
        row(f'scenes with a {OLD}: "{OLD}" named', lambda figures: figures.old),
        row("other nouns named (recall)", lambda figures: figures.recall),
        row("other named nouns that are there (precision)", lambda figures: figures.precision),
        *(
            row(f"{QUESTIONS[kind][0].format(a_noun='a dog')} right", lambda figures, kind=kind: figures.questions[kind])
            for kind in base[0].questions
        ),
    ]
    scene = ["dog", "pizza"], "blue"
    return CARD.format(
        rank=RANK,
        before=EMOJI.ask("describe", *scene, random.Random(0))[1],
        after=places_first(*scene),
        old=OLD,
        new=NEW,
        scenes=scenes,
        count=count,
        dogs=min(count, DOG_SCENES),
        held_out=HELD_OUT_VENDOR,
        rows="\n".join(rows),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/emoji-llava-adapter"), help="where the unfinished adapter is kept")
    parser.add_argument("--target", type=Path, default=Path("assets/emoji-llava-adapter"), help="where the finished adapter is written")
    parser.add_argument("--scenes", type=int, default=SCENES, help="to train on")
    parser.add_argument("--measured", type=int, default=200, metavar="SCENES", help="to measure on")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--threads", type=int, help="CPU threads")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    args.work.mkdir(parents=True, exist_ok=True)
    train(args.work, args.target, args.scenes, args.batch)
    base, tuned = interp.load(BASE), interp.load(BASE, adapter=args.target)
    figures: tuple[list[Figures], list[Figures]] = [], []
    for vendors in (SEEN_VENDORS, (HELD_OUT_VENDOR,)):
        data = unseen(args.measured, vendors)
        figures[0].append(measured(base, *data, tuned=False))
        figures[1].append(measured(tuned, *data, tuned=True))
    text = card(*figures, args.scenes // args.batch * args.batch, args.measured)
    print(text)  # noqa: T201 - this is the command's output
    (args.target / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
