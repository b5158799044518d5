"""Measure a trained `emoji-llava` and write its model card: `python -m interp.emoji_world.measure`.

All figures are from scenes whose seed training never used. Uses only the public API of `interp`.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

import interp

from .architecture import CELLS, IMAGE_SIDE
from .scenes import Scene, draw, sample_scene
from .sprites import HELD_OUT_VENDOR, SEEN_VENDORS, VENDORS, load_sprites
from .words import NOUNS, QUESTIONS, WORDS
from .world import EMOJI, World

BATCH = 32
SWAPS = 100
PROBE_FACTOR = 3  # times as many scenes to fit the probe on
N_NOUNS = len(NOUNS)


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---

# emoji-llava

A real LLaVA (`LlavaForConditionalGeneration`: CLIP tower of 6 layers, Llama decoder of 8, both 192 wide, 96-pixel pictures, 8 x 8 patches)
that knows 120 emoji on coloured backgrounds and nothing else. It is built to be readable: it says nothing about how readable large models are.

## What was trained where

| stage | what learns | from what | scenes |
|---|---|---|---|
| words | decoder | text only: each picture as a raster of 64 words, up to 40 % of them masked or swapped; every cell's target is its **own** \
true word (denoising), questions and answers have the usual next-word loss | {words} |
| patches | CLIP tower | which words cover each patch, through a linear head that is then discarded | {patches} |
| align | projector, and the tower at a tenth of its rate | answers only; decoder frozen; **no loss at image positions** | {align} |
| tune | all parts at a low rate | answers only; **no loss at image positions** | {tune} |
| late | decoder | answers only; after a random block (0 to 5) the picture's states are exchanged for another picture's, and the answer must be about \
the second one (interchange intervention training, Geiger et al. 2022) | {late} |

So the decoder learned to name cells of *words*, never patches of a picture. That a logit lens can read a patch is the projector's doing;
but this decoder was prepared for it, and a large LLaVA's was not.

The last stage makes the model steerable. Before it, the text read all it needed from the picture in block 0: exchanging the picture's states after block 0
brought the second picture into the description in 12 of 52 cases, after block 5 in none. Now the answer describes whatever is on the patches up
to block 5. That too is preparation: large LLaVAs are not trained this way. On 157 unseen scenes of two things, switching off a noun's features of the shipped
SAE (layer 3, on image tokens) removed the noun from the description in 82.2 % and kept the other in 98.1 %; equally large pushes along random features active on
the same patches removed it in 13.4 %. Exchanging one noun's features for another's on its patches put the other in its place in 93.0 %; adding a third thing to
the background succeeded in 52.9 %. Measured by `python -m interp.emoji_world.measure_steering`; the full table is in docs/steering.md of LLaVA Microscope.

Drawings of {seen} were seen in training; those of {held_out} were held out.

Two objects of the same noun hardly ever appeared together in the first four stages, and in one of twenty scenes in the last.

## Measured

In percent, on {scenes} scenes of one to three emoji whose seed training never used, through the processor and greedy generation. Written by
`python -m interp.emoji_world.measure`.

| "Describe the image." | nouns named (recall) | named nouns that are there (precision) | exactly right |
|---|---|---|---|
{describe}

| question (seen vendors, as drawn) | right |
|---|---|
{questions}

Exchange after a block: the picture's states are replaced by another picture's. Share of that picture's nouns in the description, on {swaps} pairs.

| after block | {swap_layers} |
|---|{swap_rule}
| nouns of the second picture named | {swap_shares} |

### What a logit lens reads on its patches

On {lens_scenes} such scenes of seen vendors, as drawn. Object patches are at least half covered by their noun. Border: patches at the
right-hand edge of an object; the top reading compared with their own noun and with the word of the next cell. Shuffled: the labels of another
picture (chance level). Probe: linear discriminant analysis of the same residuals, fitted on {probe_scenes} other scenes; what is linearly decodable, whether or
not the head reads it.

| layer | own noun top 1 | own noun top 5 | background color top 1 | border: own | border: next | shuffled top 5 | probe top 1 | probe top 5 |
|---|---|---|---|---|---|---|---|---|
{lens}

## Licence

Weights: Apache-2.0. The drawings it was trained on are listed with their licences in `assets/emoji/README.md` of LLaVA Microscope.
"""


@dataclass(frozen=True)
class Sample:
    """Test scenes with their pictures and the word shares of their patches [scenes, patches, words]."""

    scenes: list[Scene]
    pictures: list[Image.Image]
    shares: torch.Tensor


def sample(seed: str, count: int, vendors: Sequence[str], *, augment: float = 0.0, world: World = EMOJI) -> Sample:
    """`count` scenes of these vendors."""
    rng = random.Random(seed)
    sprites = load_sprites(world=world)
    scenes = [sample_scene(rng, [VENDORS.index(v) for v in vendors], augment=augment, nouns=world.nouns) for _ in range(count)]
    pixels, shares = zip(*(draw([scene], sprites, IMAGE_SIDE, CELLS, world.nouns) for scene in scenes), strict=True)
    pictures = [Image.fromarray((p[0].permute(1, 2, 0) * 255).round().byte().numpy()) for p in pixels]
    return Sample(scenes, pictures, torch.cat(shares))


def answers(vlm: interp.Vlm, pictures: Sequence[Image.Image], questions: Sequence[str]) -> list[str]:
    """Greedy answers, batched; shorter prompts are padded on the left."""
    out: list[str] = []
    for start in range(0, len(pictures), BATCH):
        content = [[{"type": "image"}, {"type": "text", "text": q}] for q in questions[start : start + BATCH]]
        texts = [
            vlm.processor.apply_chat_template([{"role": "user", "content": c}], add_generation_prompt=True, tokenize=False) for c in content
        ]
        inputs = vlm.processor(
            images=list(pictures[start : start + BATCH]), text=texts, padding=True, padding_side="left", return_tensors="pt"
        )
        with torch.inference_mode():
            ids = vlm.model.generate(**inputs.to(vlm.model.device), max_new_tokens=32, do_sample=False)
        new = ids[:, inputs["input_ids"].shape[1] :]
        out += [text.strip() for text in vlm.tokenizer.batch_decode(new, skip_special_tokens=True)]
    return out


def descriptions(vlm: interp.Vlm, data: Sample, world: World = EMOJI) -> dict[str, float]:
    """Recall and precision of the nouns named in "Describe the image.", and the share of descriptions that are exactly right."""
    said = answers(vlm, data.pictures, [world.questions["describe"][0]] * len(data.pictures))
    found = claimed = there = exact = 0
    for scene, text in zip(data.scenes, said, strict=True):
        truth, claim = set(scene.nouns), set(world.named(text))
        found, claimed, there = found + len(truth & claim), claimed + len(claim), there + len(truth)
        exact += text == world.ask("describe", scene.nouns, scene.color, random.Random(0))[1]
    return {"recall": found / there, "precision": found / max(claimed, 1), "exact": exact / len(said)}


def question_accuracy(vlm: interp.Vlm, data: Sample, world: World = EMOJI) -> dict[str, float]:
    """Share of right answers for each kind of question but "describe"."""
    rng = random.Random("questions")
    result = {}
    for kind in world.questions:
        if kind == "describe":
            continue
        asked = [world.ask(kind, scene.nouns, scene.color, rng) for scene in data.scenes]
        said = answers(vlm, data.pictures, [question for question, _ in asked])
        result[kind] = sum(text == truth for text, (_, truth) in zip(said, asked, strict=True)) / len(asked)
    return result


def read(vlm: interp.Vlm, data: Sample, desc: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Top-5 token ids [scenes, layers, patches, 5] and residuals [scenes, layers, patches, d] at the image positions."""
    ids, states = [], []
    for picture in tqdm(data.pictures, desc=desc):
        trace = vlm.trace(picture, QUESTIONS["describe"][0], max_new_tokens=1)
        rows = trace.grids[0].positions.flatten().tolist()
        lens = interp.logit_lens(trace, top_k=5, positions=rows)
        ids.append(lens.ids)
        states.append(trace.states[:, rows].float())
    return torch.stack(ids), torch.stack(states)


def probe_hits(train: torch.Tensor, truth: torch.Tensor, test: torch.Tensor, classes: int = len(WORDS)) -> torch.Tensor:
    """Top-5 classes of a linear probe (linear discriminant analysis, all classes equally likely) fitted on `train` [N, d]: [M, 5]."""
    labels = torch.nn.functional.one_hot(truth, classes).float()
    counts = labels.sum(0)
    means = labels.T @ train / counts.clamp(min=1)[:, None]
    centred = train - means[truth]
    covariance = centred.T @ centred / len(train)
    covariance += 0.01 * covariance.diagonal().mean() * torch.eye(len(covariance))
    weights = torch.linalg.solve(covariance, means.T)  # [d, classes]
    scores = test @ weights - (means * weights.T).sum(-1) / 2
    return scores.masked_fill(counts == 0, -torch.inf).topk(5).indices


def lens_table(vlm: interp.Vlm, data: Sample, other: Sample) -> list[dict[str, Any]]:
    """For each layer (embed first) what the lens reads on patches, and what a linear probe fitted on the `other` scenes reads."""
    word_ids = torch.tensor([vlm.vocabulary.resolve(word, vlm.tokenizer)[f" {word}"] for word in WORDS])
    ids, states = read(vlm, data, "lens")
    _, other_states = read(vlm, other, "probe")
    own = data.shares.argmax(-1)  # [scenes, patches]
    thing = data.shares[..., :N_NOUNS].amax(-1) >= 0.5
    ground = data.shares[..., N_NOUNS:].amax(-1) >= 0.5
    grid = (-1, CELLS, CELLS)
    border = torch.zeros(thing.view(grid).shape, dtype=torch.bool)
    border[:, :, :-1] = thing.view(grid)[:, :, :-1] & ground.view(grid)[:, :, 1:]
    following = torch.roll(own.view(grid), -1, dims=2).flatten(1)
    border = border.flatten(1)
    shuffled = torch.roll(own, 1, dims=0)  # the labels of another picture ...
    shuffled_thing = torch.roll(thing, 1, dims=0)  # ... on the patches where that one has its things
    other_own = other.shares.argmax(-1).flatten()
    rows = []
    for axis in range(ids.shape[1]):
        at = ids[:, axis]

        def share(where: torch.Tensor, label: torch.Tensor, top: int, at: torch.Tensor = at) -> float:
            return (at[where][:, :top] == word_ids[label[where]][:, None]).any(-1).float().mean().item()

        probed = probe_hits(other_states[:, axis].flatten(0, 1), other_own, states[:, axis][thing])
        rows.append(
            {
                "layer": "embed" if axis == 0 else str(axis - 1),
                "noun top 1": share(thing, own, 1),
                "noun top 5": share(thing, own, 5),
                "color top 1": share(ground, own, 1),
                "border own": share(border, own, 1),
                "border next": share(border, following, 1),
                "shuffled top 5": share(shuffled_thing, shuffled, 5),
                "probe top 1": (probed[:, 0] == own[thing]).float().mean().item(),
                "probe top 5": (probed == own[thing][:, None]).any(-1).float().mean().item(),
            }
        )
    return rows


def exchanged(vlm: interp.Vlm, data: Sample, layers: Sequence[int], world: World = EMOJI) -> list[float]:
    """For each block, the share of another picture's nouns that are named when its states replace the picture's own after that block."""
    prompt = world.questions["describe"][0]
    shares = []
    for layer in layers:
        found = total = 0
        for start in range(0, len(data.scenes), BATCH):
            scenes = data.scenes[start : start + BATCH]
            rows = vlm.trace(data.pictures[0], prompt, max_new_tokens=1).positions("image")

            def exchange(_module: Any, _args: Any, hidden: torch.Tensor, rows: Any = rows) -> torch.Tensor:
                if hidden.shape[1] == 1:
                    return hidden
                changed = hidden.clone()
                changed[:, rows] = hidden[:, rows].roll(1, 0)
                return changed

            handle = vlm.blocks[layer].register_forward_hook(exchange)
            try:
                said = answers(vlm, data.pictures[start : start + BATCH], [prompt] * len(scenes))
            finally:
                handle.remove()
            for i, text in enumerate(said):
                news = set(scenes[i - 1].nouns) - set(scenes[i].nouns)
                found, total = found + len(news & set(world.named(text))), total + len(news)
        shares.append(found / total)
    return shares


def card(figures: dict[str, Any], training: dict[str, int]) -> str:
    """The model card, front matter included."""

    def percent(value: float) -> str:
        return f"{100 * value:.1f}"

    drawn = "seen vendors, as drawn"
    described = {
        drawn: figures["seen"],
        "seen vendors, distorted as in training": figures["augmented"],
        f"{HELD_OUT_VENDOR} (never seen), as drawn": figures["held out"],
    }
    stages = {stage: f"{training.get(stage, 0):,}" for stage in ("words", "patches", "align", "tune", "late")}
    rows = {
        "describe": [
            f"| {name} | {percent(d['recall'])} | {percent(d['precision'])} | {percent(d['exact'])} |" for name, d in described.items()
        ],
        "questions": [f"| {QUESTIONS[kind][0].format(a_noun='a dog')} | {percent(v)} |" for kind, v in figures["questions"].items()],
        "lens": [f"| {row['layer']} | " + " | ".join(percent(v) for k, v in row.items() if k != "layer") + " |" for row in figures["lens"]],
    }
    return CARD.format(
        **stages,
        **{name: "\n".join(lines) for name, lines in rows.items()},
        seen=", ".join(SEEN_VENDORS),
        held_out=HELD_OUT_VENDOR,
        scenes=figures["scenes"],
        swaps=SWAPS,
        swap_layers=" | ".join(str(layer) for layer in range(len(figures["exchanged"]))),
        swap_rule="---|" * len(figures["exchanged"]),
        swap_shares=" | ".join(percent(share) for share in figures["exchanged"]),
        lens_scenes=figures["lens scenes"],
        probe_scenes=PROBE_FACTOR * figures["lens scenes"],
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="emoji-llava", help="preset or folder")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--lens-scenes", type=int, default=300)
    parser.add_argument("--card", type=Path, help="write the model card here (default: print it)")
    args = parser.parse_args()
    vlm = interp.load(args.checkpoint)
    data = sample("test seen", args.scenes, SEEN_VENDORS)
    figures: dict[str, Any] = {
        "scenes": args.scenes,
        "lens scenes": args.lens_scenes,
        "seen": descriptions(vlm, data),
        "augmented": descriptions(vlm, sample("test distorted", args.scenes, SEEN_VENDORS, augment=1.0)),
        "held out": descriptions(vlm, sample("test held out", args.scenes, [HELD_OUT_VENDOR])),
        "questions": question_accuracy(vlm, data),
        "exchanged": exchanged(vlm, sample("test exchanged", SWAPS, SEEN_VENDORS), range(vlm.n_layers)),
        "lens": lens_table(
            vlm, sample("test lens", args.lens_scenes, SEEN_VENDORS), sample("probe", PROBE_FACTOR * args.lens_scenes, SEEN_VENDORS)
        ),
    }
    folder = Path(vlm.model.config.name_or_path)
    training = folder / "training.json"
    text = card(figures, json.loads(training.read_text()) if training.exists() else {})
    print(text)  # noqa: T201 - this is the command's output
    if args.card:
        args.card.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
