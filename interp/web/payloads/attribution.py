"""The payload of the attribution view: what each feature did for a word of the answer, and the answer without some features."""

from collections.abc import Collection, Sequence
from typing import TypedDict

import numpy as np
import torch

from ...attribution.ablate import FeatureAblation
from ...attribution.attribute import AttributedFeature, Attribution, Effect
from ...saes.features import Encoding, Feature
from ...tracing.trace import Trace
from .features import Dictionary, dictionary
from .scene import Scene, encode, scene
from .steer import AnswerText, DiffPiece, answer_diff, answer_text

SCHEMA = "llava-microscope/attribution-view/1"
LIMITS = (
    "A bar says how far the presence of a feature moves this word against the other one in this run, through the layers behind the SAE. It does not say "
    "why the feature is active, nor what earlier layers did. Single effects need not add up: what one feature carries, another may carry too. "
    "The estimate is a straight line through one gradient; where the model bends, only the exact effect counts, and that is measured for the listed "
    "features alone. The map shows where a feature was read from, and by these layers a patch also holds what other patches told it. What the SAE "
    "misses is in no feature; it has a row of its own. Another SAE would split the same states, and the credit, differently."
)


class WordSpec(TypedDict):
    """Which comparison. `token`: number in the answer; `baseline`: the other word, "" for the likeliest one; `top`: how many features to list."""

    token: int
    baseline: str
    top: int


class OtherWord(TypedDict):
    """A word the model could have said there instead."""

    text: str
    probability: float


class EffectItem(TypedDict):
    """What something did for the word, in logits: to first order, and as measured by taking it away."""

    score: float
    exact: float


class SignedRows(TypedDict):
    """A score at some positions. `rows`: uint16; `values`: float32."""

    rows: str
    values: str


class AttributedItem(SignedRows):
    """One feature. `max`: its highest activation on the picture, 0 for none; `exact` is None where it was not measured."""

    feature: int
    label: str
    source: str
    dense: str
    link: str | None
    max: float
    score: float
    exact: float | None


class WordAttribution(TypedDict):
    """What the features did for one word. `other`: the word it is compared with; `others`: the likeliest ones there, the word itself left out.

    `margin`: the word's logit less that of the other; `missed`: the scores of what the SAE misses; `active`: the number of features active at the
    positions it could read.
    """

    spec: WordSpec
    other: str
    others: list[OtherWord]
    margin: float
    features: list[AttributedItem]
    active: int
    all_features: EffectItem
    all_missed: EffectItem
    total: EffectItem
    missed: SignedRows
    pearson: float | None
    overlap: float | None
    note: str


class WordScore(SignedRows):
    """What a feature did for one token of the answer, against the likeliest other one there."""

    token: int
    other: str
    score: float


class FeatureWords(TypedDict):
    """What a feature did for every token of the answer, in order."""

    feature: int
    label: str
    source: str
    dense: str
    link: str | None
    max: float
    words: list[WordScore]


class WithoutFeatures(TypedDict):
    """The answer without some features beside the plain one. `before` and `after`: probability of the word in both runs, after the same words."""

    features: list[int]
    plain: AnswerText
    changed: AnswerText
    diff: list[DiffPiece]
    before: float
    after: float


class AttributionPayload(Scene):
    """The view's data. `start`: position of the first token of the answer; `words`: those attributed so far, the one to open with first."""

    schema: str
    run: str | None
    sae: Dictionary
    left_out: list[int]
    start: int
    words: list[WordAttribution]
    limits: str


def attribution_payload(
    words: Sequence[WordAttribution], encoding: Encoding, *, run: str | None = None, study: str | None = None
) -> AttributionPayload:
    """The view's data for words attributed to an encoding's features. `run` is handed back by the page when it asks for more."""
    trace = encoding.trace
    return {
        "schema": SCHEMA,
        "run": run,
        **scene(trace),
        "sae": dictionary(encoding, study),
        "left_out": list(encoding.left_out),
        "start": trace.answer_start,
        "words": list(words),
        "limits": LIMITS,
    }


def word_attribution(found: Attribution, spec: WordSpec, others: Sequence[OtherWord]) -> WordAttribution:
    """One word's part of the view's data."""
    return {
        "spec": spec,
        "other": found.baseline,
        "others": list(others),
        "margin": found.metric,
        "features": [_feature(feature) for feature in found.features],
        "active": found.active,
        "all_features": _effect(found.all_features),
        "all_missed": _effect(found.all_error),
        "total": _effect(found.total),
        "missed": signed_rows(_counted(found.error, found.positions)),
        "pearson": found.pearson,
        "overlap": found.overlap,
        "note": found.note,
    }


def word_score(number: int, other: str, scores: torch.Tensor, left_out: Collection[int]) -> WordScore:
    """A feature's scores [T] for the token of this number in the answer; positions in `left_out` do not count."""
    counted = scores.clone()
    counted[list(left_out)] = 0
    return {"token": number, "other": other, "score": float(counted.sum()), **signed_rows(scores)}


def feature_words(about: Feature, words: Sequence[WordScore]) -> FeatureWords:
    """One feature over all words, for the view."""
    return {
        "feature": about.feature,
        "label": about.label,
        "source": about.label_source,
        "dense": about.dense,
        "link": about.link,
        "max": highest_on_picture(about.trace, about.activations),
        "words": list(words),
    }


def without_features(found: FeatureAblation, token: int) -> WithoutFeatures:
    """An answer without some features, for the view. `token`: position of the word whose probability is told."""
    assert found.answer is not None  # `ablate_features` always answers
    before, after = (float(each[found.tokens.index(token)]) for each in found.probability)
    return {
        "features": list(found.features),
        "plain": answer_text(found.plain_answer),
        "changed": answer_text(found.answer),
        "diff": answer_diff(found.diff, found.plain_answer, found.answer),
        "before": before,
        "after": after,
    }


def signed_rows(values: torch.Tensor) -> SignedRows:
    """Scores [T] without the zeros."""
    rows = values.nonzero().flatten()
    return {"rows": encode(rows.numpy().astype("<u2")), "values": encode(values[rows].float().numpy().astype("<f4"))}


def highest_on_picture(trace: Trace, activations: torch.Tensor) -> float:
    """The highest of some activations [T] on a patch, 0 if there is none."""
    rows = np.concatenate([grid.positions.flatten().numpy() for grid in trace.grids]) if trace.grids else np.empty(0, dtype=np.int64)
    return float(activations[torch.from_numpy(rows)].max()) if len(rows) else 0.0


def _feature(found: AttributedFeature) -> AttributedItem:
    about = found.about
    return {
        "feature": found.feature,
        "label": found.label,
        "source": about.label_source,
        "dense": found.dense,
        "link": about.link,
        "max": highest_on_picture(about.trace, about.activations),
        "score": found.score,
        "exact": found.exact,
        **signed_rows(found.scores),
    }


def _effect(effect: Effect) -> EffectItem:
    return {"score": effect.score, "exact": effect.exact}


def _counted(values: torch.Tensor, positions: Sequence[int]) -> torch.Tensor:
    out = torch.zeros_like(values)
    out[list(positions)] = values[list(positions)]
    return out
