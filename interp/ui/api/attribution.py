"""`/attribution`."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ...service.attribution_service import AttributionService
from ...service.requests import MAX_ATTRIBUTED, MAX_NEW_TOKENS, AttributionRequest, TraceRequest
from ..components.inputs import Text, Whole, Word
from ..files import write_filters
from .endpoint import publish, question


def attribution(attributing: AttributionService) -> None:
    """Add `/attribution` to the current gr.Blocks."""

    def answer(values: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        request = AttributionRequest.of(values)
        found = attributing.attribution(attributing.service.trace(TraceRequest.of(values)), request)
        return found.to_dict(), write_filters(found)

    publish(
        "attribution",
        answer,
        [
            *question(attributing.service),
            Text("", label="sae"),
            Word("", label="token"),
            Text("", label="baseline"),
            Whole(20, label="top_k"),
            Whole(32, label="max_new_tokens"),
        ],
        [gr.JSON(label="found"), gr.File(label="filters")],
        "Which sparse-autoencoder features carried a word of the answer. Inputs: image (a picture file), prompt, model (a name from /models), sae (one "
        "of the model's SAEs; empty for the first), token (a word of the answer, or the number of its token, from 0; empty for the first content word), "
        f"baseline (the word it is compared with; empty for the likeliest other one there), top_k (1 to {MAX_ATTRIBUTED} features), max_new_tokens "
        f"(1 to {MAX_NEW_TOKENS}). Returns found: answer, token (position), index (its number in the answer), word, baseline, metric (the word's logit less the baseline's), features (each with "
        "feature, label, label_source, density, dense, score: its effect on the metric to first order, exact: measured by taking it away, map: its score "
        "on each patch of each grid, and scores: by position, for tokens outside the grids), all_features, all_error (the SAE's error: what no feature reproduces) and total "
        "(score and exact of each), error (the score of that error, by position), pearson and overlap of score and exact, note, left_out "
        "(positions that do not count: BOS and attention sinks) and tokens; and a filters.json file as multimodal-sae reads it, with those of the features "
        "that raised the word from the picture.",
    )
