"""The payload of the feature view."""

from collections.abc import Sequence
from typing import TypedDict

from ...saes.features import Encoding, Feature, Features
from ...saes.fit import ReconstructionFit
from ...saes.labels.labels import UNNAMED
from .scene import Scene, encode, scene

SCHEMA = "llava-microscope/feature-view/1"
LIKE = 0.9  # scores of at least this share of the highest of their run count as equal
LIMITS = (
    "A feature is one direction of a dictionary trained to rebuild the residual stream from a few such directions. That it is active does not prove "
    "that the model uses it; steering is the test. Its name says what it was found to fire on, or how others described its strongest examples; it "
    "may fire on other things too. What the SAE does not rebuild (one minus the explained variance) is in no feature at all, and another SAE would "
    "split the same states differently."
)


class FeatureItem(TypedDict):
    """One feature. `rows`: uint16, the positions at which it is active; `values`: float32, its activation at each of them."""

    feature: int
    label: str
    source: str
    score: float
    mean: float
    max: float
    frequency: float
    density: float | None
    dense: str
    top: list[str]
    bottom: list[str]
    link: str | None
    rows: str
    values: str


class FoundFeatures(TypedDict):
    """Features of some tokens: the part of the payload that another choice of tokens replaces."""

    where: str
    looked_at: int
    active: int
    features: list[FeatureItem]


class OwnFit(TypedDict):
    """The SAE's own figures on the data it was trained for."""

    explained_variance: float | None
    l0: float | None


class Fit(TypedDict):
    """How well the SAE rebuilds the tokens of one kind, "image" or "text"."""

    kind: str
    tokens: int
    explained_variance: float | None
    l0: float
    active_share: float
    trained: OwnFit | None
    verdict: str


class Dictionary(TypedDict):
    """The SAE. `labels`: where its labels come from; `study`: one that is open on the page and of this SAE."""

    name: str
    layer: int
    features: int
    notes: list[str]
    labels: str
    study: str | None


class FeaturePayload(Scene, FoundFeatures):
    """The view's data. `left_out`: positions that rankings leave out; `quality`: how well the SAE rebuilds the states."""

    schema: str
    run: str | None
    left_out: list[int]
    sae: Dictionary
    quality: list[Fit]
    rank_by: str
    limits: str


def feature_payload(found: Features, *, run: str | None = None, study: str | None = None) -> FeaturePayload:
    """The view's data. `run` is handed back by the page when it asks for more."""
    encoding = found.encoding
    return {
        "schema": SCHEMA,
        "run": run,
        **scene(encoding.trace),
        "left_out": list(encoding.left_out),
        "sae": dictionary(encoding, study),
        "quality": [_fit(quality) for quality in found.quality.values()],
        **found_payload(found),
        "rank_by": found.rank_by,
        "limits": LIMITS,
    }


def dictionary(encoding: Encoding, study: str | None) -> Dictionary:
    """What the views say of an SAE."""
    sae = encoding.sae
    return {
        "name": sae.name,
        "layer": sae.layer,
        "features": sae.d_sae,
        "notes": encoding.notes,
        "labels": sae.labels.about,
        "study": study,
    }


def found_payload(found: Features) -> FoundFeatures:
    """The part of the view's data that another choice of tokens replaces."""
    return {
        "where": found.where,
        "looked_at": len(found.positions),
        "active": found.active,
        "features": [one_feature(feature) for feature in named_first(found.features)],
    }


def named_first(features: Sequence[Feature]) -> list[Feature]:
    """The same features with the named ones first among those of similar score.

    Scores are similar to the highest of their run down to `LIKE` times its value; the next lower one begins a new run.
    """
    out: list[Feature] = []
    run: list[Feature] = []
    for feature in features:
        if run and feature.score < LIKE * run[0].score:
            out += sorted(run, key=_unnamed)
            run = []
        run.append(feature)
    return out + sorted(run, key=_unnamed)


def _unnamed(feature: Feature) -> bool:
    return feature.label == UNNAMED


def one_feature(feature: Feature) -> FeatureItem:
    """One feature, with the rows on which it is active."""
    rows = feature.activations.nonzero().flatten()
    return {
        "feature": feature.feature,
        "label": feature.label,
        "source": feature.label_source,
        "score": feature.score,
        "mean": feature.mean,
        "max": feature.max,
        "frequency": feature.frequency,
        "density": feature.density,
        "dense": feature.dense,
        "top": list(feature.top_tokens),
        "bottom": list(feature.bottom_tokens),
        "link": feature.link,
        "rows": encode(rows.numpy().astype("<u2")),
        "values": encode(feature.activations[rows].numpy().astype("<f4")),
    }


def _fit(quality: ReconstructionFit) -> Fit:
    own = quality.trained
    return {
        "kind": quality.kind,
        "tokens": quality.tokens,
        "explained_variance": quality.explained_variance,
        "l0": quality.l0,
        "active_share": quality.active_share,
        "trained": None if own is None else {"explained_variance": own.explained_variance, "l0": own.l0},
        "verdict": quality.verdict,
    }
