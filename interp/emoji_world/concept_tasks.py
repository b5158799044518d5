"""The tasks that steering by concepts is measured on, and the vectors that should do them.

The three tasks of xl-vlms in small: another type of answer (asked for a colour, the model gives a number), another answer of the same type (red instead
of blue), another style of description. Every task has scenes in pairs, which ask for the answer that is there and for the one that is wanted.
"""

import dataclasses
import itertools
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

import interp

from .architecture import IMAGE_SIDE
from .scenes import Scene, draw_picture, sample_scene
from .sprites import SEEN_VENDORS, load_sprites
from .steered import Push
from .train_adapter import places_first
from .words import COLORS, NOUN_WORDS, NUMBERS, QUESTIONS, describe, with_article

LAYERS = range(8)
CONCEPTS = 16  # of a dictionary: about as many as there are answers
EPOCHS = 40  # to learn a vector
STYLES = 8  # concepts of a dictionary of descriptions
PLACES = ("left", "right")

Example = tuple[Scene, str]
"""A scene and a question about it."""


def about(kind: str, scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A question of this kind about a scene, and its true answer. Kinds: those of `QUESTIONS`; "present" and "absent" ask for a thing by name."""
    if kind in {"present", "absent"}:
        noun = rng.choice(scene.nouns if kind == "present" else sorted(set(NOUN_WORDS) - set(scene.nouns)))
        return QUESTIONS["exists"][0].format(a_noun=with_article(noun)), "yes." if kind == "present" else "no."
    truth = {
        "left": f"{with_article(scene.nouns[0])}.",
        "right": f"{with_article(scene.nouns[-1])}.",
        "count": f"{NUMBERS[len(scene.nouns)]}.",
        "color": f"{scene.color}.",
        "describe": describe(scene.nouns, scene.color),
    }
    return QUESTIONS[kind][0], truth[kind]


KINDS = ("present", "absent", "count", "color", "left", "right")
"""What steered models are asked, beside the task's own question, to see what else has changed."""
TYPES = {"yes/no": ("present", "absent"), "number": ("count",), "color": ("color",)}
"""Type of answer → the kinds of question that ask for it."""
_TYPE = {**dict.fromkeys(("yes", "no"), "yes/no"), **dict.fromkeys(NUMBERS, "number"), **dict.fromkeys(COLORS, "color")}
_WORD = re.compile(rf"\b(?:({'|'.join((*COLORS, *PLACES))})|{'|'.join(NOUN_WORDS)})\b")


def type_of(answer: str) -> str:
    """The type of an answer of one word; "" for any other."""
    return _TYPE.get(answer.removesuffix("."), "")


def places_before_names(text: str) -> bool:
    """Whether a description names a colour or a place before its first thing."""
    first = _WORD.search(text)
    return first is not None and first[1] is not None


def recall(scenes: Sequence[Scene], said: Sequence[str]) -> float:
    """Share of the scenes' nouns that the descriptions name."""
    found = [noun in re.findall(r"\w+", text) for scene, text in zip(scenes, said, strict=True) for noun in set(scene.nouns)]
    return sum(found) / len(found)


def drawn(seed: str, count: int, things: int | None = None) -> list[Scene]:
    """Scenes of one to three things, as drawn by the vendors that were seen in training; `things`: of exactly so many."""
    rng = random.Random(seed)
    endless = (sample_scene(rng, range(len(SEEN_VENDORS)), augment=0.0) for _ in itertools.count())
    return list(itertools.islice((scene for scene in endless if things is None or len(scene.things) == things), count))


def recolored(scene: Scene, color: str) -> Scene:
    """The same scene on another background."""
    red, green, blue = (value / 255 for value in COLORS[color])
    return dataclasses.replace(scene, color=color, rgb=(red, green, blue))


def pictures(scenes: Sequence[Scene]) -> list[Image.Image]:
    """Of the size that the model sees."""
    sprites = load_sprites(SEEN_VENDORS)
    return [draw_picture(scene, sprites, IMAGE_SIDE) for scene in scenes]


def questions(kinds: Sequence[str], scenes: Sequence[Scene]) -> list[tuple[str, str]]:
    """One question for each scene and its true answer, of these kinds in turn."""
    rng = random.Random("questions about concepts")
    return [about(kinds[i % len(kinds)], scene, rng) for i, scene in enumerate(scenes)]


@dataclass(frozen=True)
class Task:
    """One answer that should become another."""

    group: str
    source: str
    target: str
    pairs: Callable[[str, int], tuple[list[Scene], list[Scene]]]
    """(seed, how many) → scenes on which the source is true, and the same scenes so that the target is."""
    asks: tuple[Sequence[str], Sequence[str]]
    """Kinds of question, in turn, about the first and about the second."""
    reached: Callable[[str], bool]
    """Whether an answer is what is wanted."""
    stayed: Callable[[str], bool]
    """Whether it is still what it was."""
    same_kind: tuple[Sequence[str], Callable[[str], bool]] | None = None
    """Kinds of question that ask for answers of the same sort, and which of their true answers should not change."""

    @property
    def name(self) -> str:
        """From what to what."""
        return f"{self.source} → {self.target}"

    @property
    def others(self) -> list[str]:
        """Kinds of question that should be answered as before."""
        return [kind for kind in KINDS if kind not in {*self.asks[0], *(self.same_kind[0] if self.same_kind else ())}]


def same(seed: str, count: int) -> tuple[list[Scene], list[Scene]]:
    """The same scenes twice: the question makes the difference."""
    scenes = drawn(seed, count)
    return scenes, scenes


def without_one(seed: str, count: int) -> tuple[list[Scene], list[Scene]]:
    """Two things, of which one is taken away."""
    scenes, rng = drawn(seed, count, 2), random.Random(seed)
    return [dataclasses.replace(scene, things=(rng.choice(scene.things),)) for scene in scenes], scenes


def backgrounds(source: str, target: str) -> Callable[[str, int], tuple[list[Scene], list[Scene]]]:
    """The same things on two backgrounds."""

    def pairs(seed: str, count: int) -> tuple[list[Scene], list[Scene]]:
        scenes = drawn(seed, count)
        return [recolored(scene, source) for scene in scenes], [recolored(scene, target) for scene in scenes]

    return pairs


def _is(answer: str) -> Callable[[str], bool]:
    return lambda text: text.removesuffix(".") == answer


def _is_of(kind: str) -> Callable[[str], bool]:
    return lambda text: type_of(text) == kind


def _answer_type(source: str, target: str) -> Task:
    return Task("answer type", source, target, same, (TYPES[source], TYPES[target]), _is_of(target), _is_of(source))


TASKS = (
    Task("target answer", "yes", "no", same, (["present"], ["absent"]), _is("no"), _is("yes"), (["absent"], _is("no"))),
    Task(
        "target answer",
        "one",
        "two",
        without_one,
        (["count"], ["count"]),
        _is("two"),
        _is("one"),
        (["count"], lambda text: not _is("one")(text)),
    ),
    Task(
        "target answer",
        "blue",
        "red",
        backgrounds("blue", "red"),
        (["color"], ["color"]),
        _is("red"),
        _is("blue"),
        (["color"], lambda text: not _is("blue")(text)),
    ),
    *(_answer_type(source, target) for source in TYPES for target in TYPES if source != target),
)
STYLE = Task(
    "style",
    "names first",
    "places first",
    same,
    (["describe"], ["describe"]),
    places_before_names,
    lambda text: not places_before_names(text),
)


@dataclass(frozen=True)
class Vectors:
    """The vectors for one task: kind ("coarse", "fine", "learned") → layer → push."""

    task: Task
    pushes: Mapping[str, Mapping[int, Push]]


def constant(vector: torch.Tensor) -> Push:
    """The same push for every prompt."""
    return lambda _asked: vector


def predicted(learned: interp.LearnedVector) -> Push:
    """A push for each prompt, from its own last state."""
    return lambda asked: learned.predict(asked.states[learned.reads])


def states_of(vlm: interp.Vlm, scenes: Sequence[Scene], asked: Sequence[str], where: str = "last") -> interp.ConceptStates:
    """Of every layer: the states at the end of the prompt, of one question for each scene."""
    return interp.collect(vlm, list(zip(pictures(scenes), asked, strict=True)), list(LAYERS), where, max_new_tokens=1)


Collected = dict[tuple[tuple[Scene, ...], tuple[str, ...]], interp.ConceptStates]
"""Scenes and the kinds of question asked about them → states."""


def fit(vlm: interp.Vlm, task: Task, seed: str, count: int, dictionary: "Dictionary", known: Collected) -> Vectors:
    """Make the three vectors for a task, from pairs of scenes. `known`: states that several tasks need; missing ones are added."""
    sides = []
    for scenes, kinds in zip(task.pairs(seed, count), task.asks, strict=True):
        key = tuple(scenes), tuple(kinds)
        if key not in known:
            known[key] = states_of(vlm, scenes, [question for question, _ in questions(kinds, scenes)])
        sides.append(known[key])
    base, target = sides
    return Vectors(task, three(base, base, target, dictionary, task))


def three(
    context: interp.ConceptStates, base: interp.ConceptStates, target: interp.ConceptStates, dictionary: "Dictionary", task: Task
) -> dict[str, dict[int, Push]]:
    """The coarse, the fine and the learned vector for every layer."""
    fine = {layer: dictionary.vector(layer, task) for layer in LAYERS}
    return {
        "coarse": {layer: constant(interp.steering_vector(base, target, layer=layer).vector) for layer in LAYERS},
        "fine": {layer: constant(vector) for layer, vector in fine.items() if vector is not None},
        "learned": {
            layer: predicted(interp.learn_vector(context, base, target, reads=layer, layer=layer, epochs=EPOCHS)) for layer in LAYERS
        },
    }


@dataclass(frozen=True)
class Dictionary:
    """Concepts of every layer, and what the model said to each of the samples they were learned on."""

    concepts: Mapping[int, interp.Concepts]
    said: Sequence[str]

    def vector(self, layer: int, task: Task) -> torch.Tensor | None:
        """From the concept that stands for the task's source to the one that stands for its target; None if there is none for one of them."""
        found = self.concepts[layer]
        i, j = (self._standing_for(found, holds) for holds in (task.stayed, task.reached))
        return None if i is None or j is None else found.vector(i, j).vector

    def _standing_for(self, found: interp.Concepts, holds: Callable[[str], bool]) -> int | None:
        """The concept with most samples that hold, less those that do not; None if no concept has more of the first."""
        mine = torch.tensor([1.0 if holds(text) else -1.0 for text in self.said])
        surplus = torch.zeros(len(found)).index_add_(0, found.assigned, mine)
        return int(surplus.argmax()) if surplus.max() > 0 else None


def learned_dictionary(states: interp.ConceptStates, n: int) -> Dictionary:
    """The centres of k-means at every layer."""
    found = {layer: interp.learn_concepts(states, n, "k-means", layer=layer, seeds=1, maps=False) for layer in LAYERS}
    return Dictionary(found, [states.samples[i].answer for i in states.sample_of.tolist()])


def answer_dictionary(vlm: interp.Vlm, seed: str, count: int) -> Dictionary:
    """Of the states that end questions of every type."""
    scenes = [scene for scene in drawn(seed, count) for _ in TYPES]
    asked = [about(kind, scene, random.Random(i))[0] for i, scene in enumerate(drawn(seed, count)) for kind in _one_of_each(i)]
    return learned_dictionary(states_of(vlm, scenes, asked), CONCEPTS)


def _one_of_each(turn: int) -> list[str]:
    return [kinds[turn % len(kinds)] for kinds in TYPES.values()]


def fit_style(vlm: interp.Vlm, seed: str, count: int) -> Vectors:
    """The vectors for the other style, from descriptions of the same scenes in both styles, forced on the model."""
    scenes = drawn(seed, count)
    shown, question = pictures(scenes), QUESTIONS["describe"][0]
    context = states_of(vlm, scenes, [question] * count)
    both = [
        [(picture, question, tell(scene.nouns, scene.color)) for picture, scene in zip(shown, scenes, strict=True)]
        for tell in (describe, places_first)
    ]
    base, target = (interp.collect(vlm, side, list(LAYERS), "answer") for side in both)
    dictionary = learned_dictionary(interp.collect(vlm, [*both[0], *both[1]], list(LAYERS), "answer"), STYLES)
    return Vectors(STYLE, three(context, base, target, dictionary, STYLE))
