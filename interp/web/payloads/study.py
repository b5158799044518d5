"""The payload of the study view: one feature of a study, with its pictures, label, scores, histogram, neighbours and words."""

import base64
from collections.abc import Sequence
from typing import TypedDict

from ...lens.directions import listed
from ...study.feature_index import FeatureIndex
from ...study.indexed import IndexedFeature, TopPicture
from ...study.scoring.table import NAMES
from .scene import Picture, encode

SCHEMA = "llava-microscope/study-view/1"
LIMITS = (
    "The top pictures are those of the study on which the feature is strongest. They say nothing about weaker activations, which may mean something else, and nothing about pictures "
    "that the study did not see. A label was written from some of these pictures; its scores, measured on others, say how far it holds, and only beside their controls. "
    "A patch's state also holds what other patches told it, so a map can be bright beside its object. Neighbours have similar decoder directions: they "
    "write similar things, and may fire on different ones. Words that a direction promotes are read through the model's own norm and head, and mislead at early layers."
)


class StudyFacts(TypedDict):
    """What a study is of. `alive`: features active on a picture; `pool`: "mean" or "max", by which pictures are ranked."""

    name: str
    model: str
    sae: str
    layer: int
    features: int
    alive: int
    samples: int
    pool: str


class IndexedPicture(TypedDict):
    """A picture of a feature. `picture` has the size of the original; `boxes`: float32 [patches, 4] in its pixels, and `values`: float32 [patches], of the active patches."""

    picture: Picture
    id: str
    score: float
    boxes: str
    values: str


class ControlItem(TypedDict):
    """A control beside a score."""

    name: str
    value: float | None


class FigureItem(TypedDict):
    """A score, None where undefined."""

    name: str
    value: float | None
    controls: list[ControlItem]


class IndexedHistogram(TypedDict):
    """Tokens by their activation: `edges` has one more entry than the counts, or none if all are 0."""

    edges: list[float]
    on_pictures: list[int]
    on_text: list[int]


class IndexedNeighbour(TypedDict):
    """A feature with a similar decoder direction."""

    feature: int
    cosine: float
    label: str


class IndexedItem(TypedDict):
    """All that a study knows of a feature. `undefined`: why a measure has no score; `peak`: the highest activation on a picture."""

    feature: int
    label: str
    source: str
    explanation: str
    category: str
    scores: list[FigureItem]
    undefined: list[str]
    pictures: int
    tokens: int
    peak: float
    histogram: IndexedHistogram
    neighbours: list[IndexedNeighbour]
    promotes: list[str]
    suppresses: list[str]
    top: list[IndexedPicture]


class StudyPart(TypedDict):
    """A study, and one feature of it."""

    study: StudyFacts
    feature: IndexedItem


class FoundLabel(TypedDict):
    """A feature that a search found."""

    feature: int
    label: str


class FoundIndexed(TypedDict):
    """What a search found."""

    features: list[FoundLabel]
    note: str


class HandOver(TypedDict):
    """A feature as steering takes it. `sae`: its name on this page; `max`: the highest activation in the study."""

    sae: str
    layer: int
    feature: int
    label: str
    max: float


class StudyPayload(StudyPart):
    """The view's data. `studies`: all that are open here."""

    schema: str
    studies: list[str]
    limits: str


def study_payload(names: Sequence[str], part: StudyPart) -> StudyPayload:
    """The view's data."""
    return {"schema": SCHEMA, "studies": list(names), **part, "limits": LIMITS}


def study_part(index: FeatureIndex, found: IndexedFeature) -> StudyPart:
    """The part that another feature replaces."""
    return {"study": study_facts(index), "feature": _item(found)}


def study_facts(index: FeatureIndex) -> StudyFacts:
    """What a study is of."""
    about = index.about
    return {
        "name": index.name,
        "model": about["model"]["name"],
        "sae": about["sae"]["name"],
        "layer": about["sae"]["layer"],
        "features": about["features"],
        "alive": about["alive"],
        "samples": about["samples"],
        "pool": about["pool"],
    }


def found_indexed(index: FeatureIndex, text: str, limit: int) -> FoundIndexed:
    """The features whose labels contain a text, and a note with their count."""
    found = index.search(text, limit)
    more = f"; the first {limit} are shown." if len(found) >= limit else "."
    note = f"{len(found)} of {len(index.labels.names):,} labels match{more}"
    return {"features": [{"feature": feature, "label": label.text} for feature, label in found], "note": note}


def _item(found: IndexedFeature) -> IndexedItem:
    return {
        "feature": found.feature,
        "label": found.label,
        "source": found.source,
        "explanation": found.explanation,
        "category": found.category,
        "scores": [
            {
                "name": NAMES.get(figure, figure),
                "value": values.get("score"),
                "controls": [{"name": name, "value": value} for name, value in values.items() if name != "score"],
            }
            for figure, values in sorted(found.scores.items(), key=_order)
        ],
        "undefined": [f"{measure}: {reason}" for measure, reason in found.undefined.items()],
        "pictures": found.pictures,
        "tokens": found.tokens,
        "peak": found.peak,
        "histogram": {
            "edges": list(found.histogram.edges),
            "on_pictures": list(found.histogram.on_pictures),
            "on_text": list(found.histogram.on_text),
        },
        "neighbours": [{"feature": each.feature, "cosine": each.cosine, "label": each.label} for each in found.neighbours],
        "promotes": [listed([word]) for word in found.promotes],
        "suppresses": [listed([word]) for word in found.suppresses],
        "top": [_picture(each) for each in found.top],
    }


def _order(score: tuple[str, object]) -> int:
    """The place of a figure: known ones as in tables, then the others as they come."""
    return [*NAMES, score[0]].index(score[0])


def _picture(shown: TopPicture) -> IndexedPicture:
    width, height = shown.size
    return {
        "picture": {"src": f"data:image/webp;base64,{base64.b64encode(shown.webp).decode('ascii')}", "width": width, "height": height},
        "id": shown.id,
        "score": shown.score,
        "boxes": encode(shown.boxes.numpy().astype("<f4")),
        "values": encode(shown.values.numpy().astype("<f4")),
    }
