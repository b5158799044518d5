"""Learn the dictionary of concepts that ships with `emoji-llava`: `python -m interp.emoji_world.learn_dictionary`.

One patch of each of many scenes is taken, every second one from an object, and their states are split into concepts. Then the concepts are compared with what
these patches show, on scenes with another seed, and written with their card.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

import interp

from ..concepts.concepts import Concepts, Method
from ..concepts.scores import Purity
from ..concepts.states import ConceptStates
from .architecture import CELLS
from .scenes import draw, sample_scene
from .sprites import SEEN_VENDORS, load_sprites
from .world import EMOJI

MODEL = "emoji-llava"
LEARNED_ON, MEASURED_ON = "dictionary", "dictionary test"
"""Seeds. Neither is used for training or for any other measurement."""
SCENES, MEASURED = 2000, 500
METHOD: Method = "k-means"
COUNT, LAYER = 64, 3
SIDE = 112  # pixels of a stored picture
_DRAWN = 48  # scenes at a time

CARD = """---
license: apache-2.0
base_model: emoji-llava
---

# Concepts of emoji-llava

{count} concepts that the states of [emoji-llava](../emoji-llava/README.md) at layer {layer} are made of, by {method}, from one patch of each of {scenes:,} scenes of
emoji, every second one from an object. `interp.Concepts.load("{folder}", vlm)` reads them; the tab "Concepts" and the endpoint `/concepts` open with them.
Rebuilt by `python -m interp.emoji_world.learn_dictionary`.

## Measured

On one patch of each of {measured} scenes with another seed. A patch's truth is what covers at least half of it: one of 120 nouns, or the colour of the background.

| | | |
|---|---|---|
| purity: patches whose truth is that of most of their concept | {purity} | with shuffled truths {shuffled} |
| the same for patches of objects | {objects} | {objects_shuffled} |
| the same for patches of the background | {background} | {background_shuffled} |
| concepts one of whose first three words is their truth | {named} of {used} | |
| variance left unexplained (FVU), learned on / measured on | {fvu} / {fvu_measured} | |
| stability over seeds: mean, lowest | {stability} | {lowest} |
| share of words that two concepts have in common | {overlap} | |

With {count} concepts for 120 nouns and 11 colours, most concepts of objects hold several nouns; those of the background
hardly follow its colour at this layer.

## Every concept

The truth that most of its patches have, of the patches measured, and the words that it promotes through the model's own norm and head.

| concept | truth | share | patches measured | patches learned | stability | words |
|---|---|---|---|---|---|---|
{rows}

## Licence

Apache-2.0; the drawings have [their own licences](../emoji/README.md).
"""


@dataclass(frozen=True)
class Patches:
    """The state of one patch of each of some scenes, and what it shows."""

    states: ConceptStates
    truths: dict[str, str]
    """Sample → noun or colour."""


def collected(vlm: interp.Vlm, seed: str, count: int, layers: Sequence[int]) -> Patches:
    """One patch of each of `count` scenes, always the same for a seed."""
    rng = random.Random(seed)
    sprites = load_sprites(SEEN_VENDORS)
    pictures: list[Image.Image] = []
    rows: list[int] = []
    truths: list[str] = []
    while len(pictures) < count:
        scenes = [sample_scene(rng, range(len(SEEN_VENDORS)), augment=0.0) for _ in range(min(_DRAWN, count - len(pictures)))]
        drawn, shares = draw(scenes, sprites, SIDE, CELLS)
        for pixels, of_patches in zip(drawn, shares, strict=True):
            patch = _patch(of_patches, rng, on_object=len(pictures) % 2 == 0)
            rows.append(len(pictures) * CELLS**2 + patch)
            truths.append(EMOJI.words[int(of_patches[patch].argmax())])
            pictures.append(Image.fromarray((pixels.permute(1, 2, 0) * 255).round().byte().numpy()))
    states = interp.collect(vlm, pictures, list(layers), "patches", max_new_tokens=24).take(rows)
    return Patches(states, dict(zip(states.ids, truths, strict=True)))


def _patch(shares: torch.Tensor, rng: random.Random, *, on_object: bool) -> int:
    """A patch at least half of which one thing covers, or the background if there is none such."""
    things = shares[:, : len(EMOJI.nouns)].amax(1) >= 0.5
    found = (things if on_object else ~things).nonzero().flatten().tolist()
    return int(rng.choice(found or list(range(len(shares)))))


def purity_of(concepts: Concepts, patches: Patches, *, nouns: bool | None = None) -> Purity:
    """Of all patches, or of those that show a noun or not."""
    names = [name for name in patches.states.ids if nouns is None or (patches.truths[name] in EMOJI.nouns) == nouns]
    place = {name: row for row, name in enumerate(patches.states.ids)}
    return interp.purity(concepts, patches.truths, patches.states.take([place[name] for name in names]))


def card(concepts: Concepts, learned: Patches, test: Patches, folder: str) -> str:
    """The card, with every figure measured."""
    every, things, ground = (purity_of(concepts, test, nouns=nouns) for nouns in (None, True, False))
    used = [one for one in every.each if one.size]
    named = [one for one in used if one.label in [word.lower() for word in concepts.words[one.concept][:3]]]
    sizes = concepts.sizes
    rows = [
        f"| {one.concept} | {one.label or '-'} | {100 * one.share:.0f} % | {one.size} | {sizes[one.concept]} | {concepts.stability[one.concept]:.2f} | "
        f"{', '.join(concepts.words[one.concept][:5])} |"
        for one in every.each
    ]
    return CARD.format(
        count=len(concepts),
        layer=concepts.layer,
        method=concepts.method,
        scenes=len(learned.states),
        measured=len(test.states),
        folder=folder,
        purity=_percent(every.mean),
        shuffled=_percent(every.shuffled),
        objects=_percent(things.mean),
        objects_shuffled=_percent(things.shuffled),
        background=_percent(ground.mean),
        background_shuffled=_percent(ground.shuffled),
        named=len(named),
        used=len(used),
        fvu=f"{concepts.fit.fvu:.3f}",
        fvu_measured=f"{concepts.fit_of(test.states).fvu:.3f}",
        stability=f"{sum(concepts.stability) / len(concepts):.2f}",
        lowest=f"{min(concepts.stability):.2f}",
        overlap=_percent(concepts.overlap),
        rows="\n".join(rows),
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=Path("assets/emoji-llava-concepts"), help="where the dictionary is written")
    parser.add_argument("--scenes", type=int, default=SCENES, help="to learn from")
    parser.add_argument("--measured", type=int, default=MEASURED, metavar="SCENES", help="to measure on")
    args = parser.parse_args()
    vlm = interp.load(MODEL)
    learned, test = (collected(vlm, seed, count, [LAYER]) for seed, count in ((LEARNED_ON, args.scenes), (MEASURED_ON, args.measured)))
    concepts = interp.learn_concepts(learned.states, COUNT, METHOD)
    concepts.save(args.target)
    (args.target / "README.md").write_text(card(concepts, learned, test, "assets/emoji-llava-concepts"), encoding="utf-8")


if __name__ == "__main__":
    main()
