"""The payload of the concepts view: a dictionary, where its concepts are in one run, what fine-tuning moved, and steered answers."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...concepts.concepts import Concepts, Example
from ...concepts.here import ConceptsHere
from ...concepts.shift import ConceptShift, ShiftedConcept
from ...steering.results import SteeringResult
from .scene import Picture, Scene, encode, scene
from .steer import AnswerText, DiffPiece, answer_text, text_diff

SCHEMA = "llava-microscope/concepts-view/1"
LIMITS = (
    "A concept is a direction, or a typical state, in which many states of these pictures lie. That it was found does not mean that the model uses it; steering "
    "tests that. Its words are what the direction promotes through the model's own norm and head: at early layers they can be wrong while the pictures are right. "
    "Another number of concepts, another method or other pictures split the same states differently; stability says how far another seed finds the same. On "
    "your picture the map says how much of a concept each patch's state holds, and by this layer a patch also holds what other patches told it. A step as large as "
    "the states themselves changes any answer, so compare it with the random step of the same length."
)


class ConceptExample(TypedDict):
    """A picture on which a concept is strong. `map`: its activation on each patch of the picture's first grid, float32 [rows * cols]; "" without."""

    picture: Picture | None
    answer: str
    activation: float
    rows: int
    cols: int
    map: str


class ConceptItem(TypedDict):
    """One concept. `opposite`: words of the other sign, for pca; `feature`: its number in the SAE, for sae.

    `activation`: its highest on an image token of this picture; `places`: the positions of those that have most of it, uint16.
    """

    concept: int
    words: list[str]
    opposite: list[str]
    size: int
    stability: float
    feature: int | None
    activation: float
    places: str
    examples: list[ConceptExample]


class ConceptFit(TypedDict):
    """The share of variance left unexplained: of the states that concepts were learned on, and of this picture's image tokens.

    `zero`: of the former, with nothing as the baseline instead of their mean.
    """

    learned: float | None
    zero: float | None
    here: float | None


class ConceptDictionary(TypedDict):
    """Where the concepts come from. `objective`: what was minimised; `about`: what is known about it, with measured figures."""

    name: str
    method: str
    objective: str
    layer: int
    where: str
    states: int
    fit: ConceptFit
    overlap: float | None
    about: str
    notes: list[str]


class AnswerPair(TypedDict):
    """What both models answered to a picture."""

    before: str
    after: str


class ShiftedItem(TypedDict):
    """What happened to one concept. See `interp.concept_shift`. `answers`: to its example pictures, as far as both models answered them; `after`: the pictures on which its match is strong."""

    concept: int
    size: int
    relative: float
    consistency: float | None
    recovery: float | None
    cosine: float
    words: list[str]
    after_words: list[str]
    gained: list[str]
    lost: list[str]
    answers: list[AnswerPair | None]
    after: list[ConceptExample]


class ShiftPayload(TypedDict):
    """A model beside its fine-tune: the concepts, the most moved first. `correlation`: of recovery with consistency."""

    before: str
    after: str
    compared: int
    correlation: float | None
    concepts: list[ShiftedItem]


class NearFeature(TypedDict):
    """A feature of an SAE, and the cosine of its decoder direction with a concept's."""

    feature: int
    cosine: float
    label: str


class ConceptDetails(TypedDict):
    """The SAE features nearest to a concept; `sae` is None if none is known for its layer."""

    concept: int
    sae: str | None
    features: list[NearFeature]


class SteeredConcepts(TypedDict):
    """The plain answer, the one with a step between concepts, and the one with a random step of the same length. `relative`: the step's length over the states' own."""

    plain: AnswerText
    steered: AnswerText
    random: AnswerText
    diff: list[DiffPiece]
    random_diff: list[DiffPiece]
    fired: int
    relative: float


class ConceptLook(TypedDict):
    """What the view opens with: a concept, and a step to another one. `value` and `where`: as in a request to steer."""

    concept: int | None
    target: int | None
    value: float
    where: str


class ConceptsPayload(Scene):
    """The view's data. `codes`: how much of each concept is in the state at each position, float32 [K, T]; `unit`: of a step, "amount" or "strength".

    `look`: what a link opens with, None for the concept that most of the picture is.
    """

    schema: str
    run: str | None
    dictionary: ConceptDictionary
    left_out: list[int]
    unit: str
    concepts: list[ConceptItem]
    codes: str
    shift: ShiftPayload | None
    look: ConceptLook | None
    limits: str


def concepts_payload(here: ConceptsHere, name: str, about: str, *, run: str | None = None) -> ConceptsPayload:
    """The view's data for a dictionary in one run. `run` is handed back by the page when it asks for more."""
    concepts = here.concepts
    return {
        "schema": SCHEMA,
        "run": run,
        **scene(here.trace),
        "dictionary": {
            "name": name,
            "method": concepts.method,
            "objective": concepts.objective,
            "layer": concepts.layer,
            "where": concepts.where,
            "states": len(concepts.activations),
            "fit": {"learned": concepts.fit.fvu, "zero": concepts.fit.fvu_zero, "here": here.fit.fvu},
            "overlap": concepts.overlap,
            "about": about,
            "notes": list(concepts.notes),
        },
        "left_out": list(here.left_out),
        "unit": "amount" if concepts.method == "k-means" else "strength",
        "concepts": [_item(here, k, activation) for k, activation in enumerate(here.activations)],
        "codes": encode(here.codes.T.contiguous().float().numpy().astype("<f4")),
        "shift": None,
        "look": None,
        "limits": LIMITS,
    }


def shift_payload(shift: ConceptShift, answers: Mapping[tuple[str, str], tuple[str, str]]) -> ShiftPayload:
    """What fine-tuning moved, for the view. `answers`: (sample, prompt) → the answers of both models."""
    return {
        "before": shift.before,
        "after": shift.after,
        "compared": shift.compared,
        "correlation": shift.correlation,
        "concepts": [_shifted(one, answers) for one in shift.moved],
    }


def steered_concepts(steered: SteeringResult, control: SteeringResult) -> SteeredConcepts:
    """A step between concepts beside a random one, for the view."""
    (applied,) = steered.applied
    return {
        "plain": answer_text(steered.plain_answer),
        "steered": answer_text(steered.steered_answer),
        "random": answer_text(control.steered_answer),
        "diff": text_diff(steered),
        "random_diff": text_diff(control),
        "fired": applied.fired,
        "relative": applied.relative,
    }


def _item(here: ConceptsHere, k: int, activation: float) -> ConceptItem:
    concepts: Concepts = here.concepts
    return {
        "concept": k,
        "words": list(concepts.words[k]),
        "opposite": list(concepts.opposite[k]) if concepts.opposite else [],
        "size": here.sizes[k],
        "stability": concepts.stability[k],
        "feature": concepts.features[k] if concepts.features else None,
        "activation": activation,
        "places": encode(np.array(here.places(k), dtype="<u2")),
        "examples": [_example(each) for each in concepts.examples[k]],
    }


def _example(example: Example) -> ConceptExample:
    rows, cols = example.map.shape if example.map is not None else (0, 0)
    return {
        "picture": _stored(example.webp),
        "answer": example.answer,
        "activation": example.activation,
        "rows": rows,
        "cols": cols,
        "map": "" if example.map is None else encode(example.map.float().numpy().astype("<f4")),
    }


def _stored(webp: bytes) -> Picture | None:
    """A stored picture as it is, of which only the header is read here."""
    try:
        with Image.open(io.BytesIO(webp), formats=("WEBP",)) as opened:
            width, height = opened.size
    except (UnidentifiedImageError, OSError, ValueError):
        return None
    return {"src": f"data:image/webp;base64,{base64.b64encode(webp).decode('ascii')}", "width": width, "height": height}


def _shifted(one: ShiftedConcept, answers: Mapping[tuple[str, str], tuple[str, str]]) -> ShiftedItem:
    pairs: Sequence[tuple[str, str] | None] = [answers.get((each.sample, each.prompt)) for each in one.examples_before]
    return {
        "concept": one.concept,
        "size": one.size,
        "relative": one.relative,
        "consistency": one.consistency,
        "recovery": one.recovery,
        "cosine": one.cosine,
        "words": list(one.words),
        "after_words": list(one.words_after),
        "gained": list(one.gained),
        "lost": list(one.lost),
        "answers": [None if pair is None else {"before": pair[0], "after": pair[1]} for pair in pairs],
        "after": [_example(each) for each in one.examples_after],
    }
