"""`/feature` and `/find_features`."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ...service.study_service import StudyService
from ..components.inputs import Text, Whole
from .endpoint import publish

_STUDY = "study (one of those that the app was started with; empty for the first)"


def feature(studying: StudyService) -> None:
    """Add `/feature` to the current gr.Blocks."""

    def answer(values: Mapping[str, Any]) -> dict[str, Any]:
        return studying.feature(values["feature"], values["study"])

    publish(
        "feature",
        answer,
        [Whole(None, label="feature"), Text("", label="study")],
        gr.JSON(label="found"),
        f"All that a study of many pictures knows of a feature. Inputs: feature (its number), {_STUDY}. Returns study (name, model, sae, layer, features, "
        "alive, samples, pool), feature, label, source (of the label), explanation, category, scores (by figure: score and its controls, null where undefined), "
        "undefined (by measure: why there is no score), pictures and tokens (that it is active on), peak, histogram (edges, on_pictures, on_text), neighbours "
        "(each with feature, cosine and label), promotes and suppresses (words), and top (each with number and id of the sample, score, picture: a small copy as a data URL, "
        "width and height of the original, active: left, top, right, bottom and activation of each patch).",
        queue="study",
    )


def find_features(studying: StudyService) -> None:
    """Add `/find_features` to the current gr.Blocks."""

    def answer(values: Mapping[str, Any]) -> Any:
        return studying.find_in_study(values["study"], values["text"])

    publish(
        "find_features",
        answer,
        [Text(None, label="text"), Text("", label="study")],
        gr.JSON(label="found"),
        f"The features of a study by label. Inputs: text (a part of a label; whole words are found first), {_STUDY}. Returns features (each with feature and label) "
        "and note (how many match).",
        queue="study",
    )
