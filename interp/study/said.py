"""What is said of features in a study so far: labels with their source, explanations, kinds and scores, as far as the verbs have got."""

from collections.abc import Mapping
from typing import Any

from ..saes.labels.labels import UNNAMED, clean
from .answers import UNABLE
from .explanation_files import feature_of, read_texts
from .scoring.cases import Record
from .scoring.score_files import read_records
from .study import Study

EXPLANATIONS, LABELS, CLASSES, SCORES = "explanations", "labels", "classes", "scores"
"""Folders of a study."""
TABLE = "table"
"""The file among the scores that is made of the others."""


def texts_of(study: Study, name: str) -> Mapping[int, str]:
    """The explanations, labels or classes of a study by feature; none if that verb has not been run. Raises InterpError for damaged files."""
    folder = study.folder / name
    return read_texts(folder).get(study.found["sae"]["layer"], {}) if any(folder.glob("*.json")) else {}


def explanations_of(study: Study) -> dict[int, str]:
    """The explanation of each feature that could be explained, on one line."""
    found = ((feature, clean(text)) for feature, text in texts_of(study, EXPLANATIONS).items())
    return {feature: text for feature, text in found if not text.casefold().startswith(UNABLE.casefold())}


def labels_of(study: Study) -> dict[int, str]:
    """What each feature is called: its label, or else its explanation. The names that the SAE came with are not looked up, which would load it."""
    return {**explanations_of(study), **{feature: clean(text) for feature, text in texts_of(study, LABELS).items()}}


def records_of(study: Study) -> dict[str, list[Record]]:
    """The scores of each measure that was scored. Raises InterpError for damaged files."""
    files = sorted((study.folder / SCORES).glob("*.json"))
    return {file.stem: read_records(file) for file in files if file.stem != TABLE}


def said_of(study: Study) -> dict[int, dict[str, Any]]:
    """What is said of each feature: label, source, explanation, category, scores and undefined, as in `IndexedFeature`. Features without any are absent.

    A refined label goes before the explanation that it was made of, and this before the name that the SAE came with.
    """
    explained = f"explained by {by}" if (by := _by(study, "explain")) else "explained"
    refined = f"{explained}, refined by {by}" if (by := _by(study, "refine")) else f"{explained} and refined"
    own = {feature: label for feature, label in study.sae.labels.names.items() if label.text != UNNAMED}
    labels, described = texts_of(study, LABELS), explanations_of(study)
    names = (
        {feature: (clean(label.text), clean(label.source)) for feature, label in own.items()}
        | {feature: (text, explained) for feature, text in described.items() if text}
        | {feature: (clean(text), refined) for feature, text in labels.items() if clean(text)}
    )
    explanations, classes = texts_of(study, EXPLANATIONS), texts_of(study, CLASSES)
    out: dict[int, dict[str, Any]] = {}
    for feature in names.keys() | explanations.keys():
        label, source = names.get(feature, ("", ""))
        about = {"explanation": clean(explanations.get(feature, "")), "category": clean(classes.get(feature, ""))}
        out[feature] = {"label": label, "source": source, **about, "scores": {}, "undefined": {}}
    for measure, records in records_of(study).items():
        for record in records:
            feature = feature_of(record.feature)
            if feature in out:
                out[feature]["scores"] |= record.figures
                out[feature]["undefined"] |= {measure: record.undefined} if record.undefined else {}
    return out


def _by(study: Study, verb: str) -> str:
    """The model that a verb asked, "" if it asked none."""
    return clean(str(study.settings(verb).get("model", ""))) if (study.folder / verb).is_dir() else ""
