"""What a fine-tune moved, and how purely concepts stand for what is there, on scenes whose truth is known. `measure_concepts` prints both."""

import dataclasses
import random
from collections.abc import Sequence
from statistics import median
from typing import Literal

import torch

import interp

from .concept_tasks import drawn, pictures
from .scenes import Scene
from .train_adapter import NEW, OLD
from .words import COLORS, NOUN_WORDS, QUESTIONS

NOUNS = 20  # of which the renamed one is one: as many concepts
LAYERS = (3, 5, 6, 7)


def some_nouns() -> tuple[str, ...]:
    """The renamed noun, and others."""
    others = random.Random("concepts, nouns").sample([noun for noun in NOUN_WORDS if noun != OLD], NOUNS - 1)
    return (OLD, *others)


def with_nouns(seed: str, count: int, nouns: Sequence[str]) -> list[Scene]:
    """Scenes whose leftmost thing is one of these nouns, each as often as the others."""
    return [
        dataclasses.replace(scene, things=(dataclasses.replace(scene.things[0], noun=nouns[i % len(nouns)]), *scene.things[1:]))
        for i, scene in enumerate(drawn(seed, count))
    ]


def concept_of(concepts: interp.Concepts, labels: Sequence[str], label: str) -> int:
    """The concept that most of the samples with this label are strongest in."""
    mine = torch.tensor([each == label for each in labels])
    return int(concepts.assigned[mine].bincount(minlength=len(concepts)).argmax())


SHIFT = f"""| question | layer | {OLD}: moved | its rank | others: median, most | consistency | recovery | correlation over all |
|---|---|---|---|---|---|---|---|"""


def shift_table(base: interp.Vlm, tuned: interp.Vlm, count: int) -> list[str]:
    """How far the concept of the renamed noun moved, among those of others."""
    nouns = some_nouns()
    scenes = with_nouns("concepts, shift", count, nouns)
    rows = []
    for kind in ("left", "describe"):
        shown = [(picture, QUESTIONS[kind][0]) for picture in pictures(scenes)]
        before = interp.collect(base, shown, list(LAYERS), list(nouns))
        after = interp.collect(tuned, shown, list(LAYERS), [*nouns, NEW])
        rows += [shift_row(kind, layer, before, after, nouns, scenes) for layer in LAYERS]
    return [SHIFT, *rows]


def shift_row(
    kind: str, layer: int, before: interp.ConceptStates, after: interp.ConceptStates, nouns: Sequence[str], scenes: Sequence[Scene]
) -> str:
    """One layer."""
    concepts, new = (interp.learn_concepts(states, len(nouns), "k-means", layer=layer, seeds=1, maps=False) for states in (before, after))
    shift = interp.concept_shift(before, after, concepts, after=new)
    renamed = concept_of(concepts, [scenes[int(name)].nouns[0] for name in concepts.ids], OLD)
    own, others = shift.each[renamed], [one.relative for one in shift.each if one.concept != renamed and one.size]
    rank = 1 + [one.concept for one in shift.moved].index(renamed)
    return (
        f"| {QUESTIONS[kind][0]} | {layer} | {own.relative:.2f} | {rank} of {len(concepts)} | {median(others):.2f}, {max(others):.2f} | "
        f"{_number(own.consistency)} | {_number(own.recovery)} | {_number(shift.correlation)} |"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


PURITY = """| method | layer | nouns | shuffled | colours | shuffled |
|---|---|---|---|---|---|"""
METHODS: tuple[Literal["semi-nmf", "k-means", "pca"], ...] = ("semi-nmf", "k-means", "pca")


def purity_table(vlm: interp.Vlm, count: int) -> list[str]:
    """Concepts of the states that emit nouns and colours, learned on some scenes and compared with the truth of others."""
    nouns = some_nouns()
    prompt = QUESTIONS["describe"][0]
    sets = [with_nouns(f"concepts, purity {half}", count, nouns) for half in ("learn", "test")]
    truth = {str(i): scene for i, scene in enumerate(sets[1])}
    rows = []
    shown = [pictures(scenes) for scenes in sets]
    of_nouns, of_colors = (
        [interp.collect(vlm, half, list(LAYERS), list(words), prompt=prompt) for half in shown] for words in (nouns, COLORS)
    )
    for method in METHODS:
        for layer in LAYERS:
            cells = []
            for (learn, test), n, labels in (
                (of_nouns, len(nouns), {name: scene.nouns[0] for name, scene in truth.items()}),
                (of_colors, len(COLORS), {name: scene.color for name, scene in truth.items()}),
            ):
                found = interp.learn_concepts(learn, n, method, layer=layer, seeds=1, maps=False)
                pure = interp.purity(found, labels, test)
                cells += [f"{100 * pure.mean:.0f}", f"{100 * pure.shuffled:.0f}"]
            rows.append(f"| {method} | {layer} | {' | '.join(cells)} |")
    return [PURITY, *rows]
