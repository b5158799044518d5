"""What is said of features in a study so far: labels with their source, explanations, kinds and scores, as far as the verbs have got."""

from collections.abc import Mapping
from typing import Any

from ..saes.labels.labels import UNNAMED, clean
from .answers import UNABLE
from .explanation_files import read_texts
from .study import Study

EXPLANATIONS, LABELS, CLASSES, SCORES = "explanations", "labels", "classes", "scores"
"""Folders of a study."""


def texts_of(study: Study, name: str) -> Mapping[int, str]:
    """The explanations, labels or classes of a study by feature; none if that verb has not been run. Raises InterpError for damaged files."""
    folder = study.folder / name
    return read_texts(folder).get(study.found["sae"]["layer"], {}) if any(folder.glob("*.json")) else {}


def said_of(study: Study) -> dict[int, dict[str, Any]]:
    """What is said of each feature: label, source, explanation, category, scores and undefined, as in `IndexedFeature`. Features without any are absent.

    A refined label goes before the explanation that it was made of, and this before the name that the SAE came with.
    """
    explanations, labels, classes = (texts_of(study, name) for name in (EXPLANATIONS, LABELS, CLASSES))
    own = {feature: label for feature, label in study.sae.labels.names.items() if label.text != UNNAMED}
    out: dict[int, dict[str, Any]] = {}
    for feature in sorted({*explanations, *labels, *own}):
        explanation, refined = clean(explanations.get(feature, "")), clean(labels.get(feature, ""))
        described = "" if explanation.casefold().startswith(UNABLE.casefold()) else explanation
        label, source = next(
            (
                (text, source)
                for text, source in (
                    (refined, "refined from the explanation"),
                    (described, "explained by a model"),
                    *([(clean(own[feature].text), clean(own[feature].source))] if feature in own else []),
                )
                if text
            ),
            ("", ""),
        )
        out[feature] = {
            "label": label,
            "source": source,
            "explanation": explanation,
            "category": clean(classes.get(feature, "")),
            "scores": {},
            "undefined": {},
        }
    return out
