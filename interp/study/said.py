"""What is said of features in a study so far: labels with their source, explanations, kinds and scores, as far as the verbs have got."""

from typing import Any

from ..saes.labels.labels import UNNAMED, clean
from .study import Study


def said_of(study: Study) -> dict[int, dict[str, Any]]:
    """What is said of each feature: label, source, explanation, category, scores and undefined, as in `IndexedFeature`. Features without any are absent."""
    out: dict[int, dict[str, Any]] = {}
    for feature, label in study.sae.labels.names.items():
        if label.text != UNNAMED:
            out[feature] = {**_nothing(), "label": clean(label.text), "source": clean(label.source)}
    return out


def _nothing() -> dict[str, Any]:
    return {"label": "", "source": "", "explanation": "", "category": "", "scores": {}, "undefined": {}}
