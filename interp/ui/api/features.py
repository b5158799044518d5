"""`/sae_features`."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ...service.requests import MAX_FEATURES, MAX_NEW_TOKENS, Ranking, TraceRequest
from ...service.service import Service
from ..components.inputs import Text, Where, Whole
from .endpoint import publish, question


def sae_features(service: Service) -> None:
    """Add `/sae_features` to the current gr.Blocks."""

    def answer(values: Mapping[str, Any]) -> dict[str, Any]:
        ranking = Ranking.of(values)
        return service.features(service.trace(TraceRequest.of(values)), ranking).to_dict()

    publish(
        "sae_features",
        answer,
        [
            *question(service),
            Text("", label="sae"),
            Where("image", label="where"),
            Text("mean", label="rank_by"),
            Whole(10, label="top_k"),
            Whole(32, label="max_new_tokens"),
        ],
        gr.JSON(label="found"),
        "The sparse-autoencoder features that a picture and a prompt activate. Inputs: image (a picture file), prompt, model (a name from "
        '/models), sae (one of the model\'s SAEs; empty for the first), where ("image", "prompt", "answer", "all", or an object: '
        '{"patches": [[row, column], …]} or {"box": [top, left, bottom, right]}, each with an optional "grid", or {"positions": [i, …]}), '
        f'rank_by ("mean", "max" or "frequency" over these tokens), top_k (1 to {MAX_FEATURES}), max_new_tokens (1 to {MAX_NEW_TOKENS}). '
        "Returns features (each with feature, label, label_source, score, mean, max, frequency, density, dense, top_tokens, bottom_tokens, link, "
        "map: rows of patches for each grid, and activations: by position, for tokens outside the grids), quality (for image and text tokens: "
        "explained_variance, l0, active_share, trained: the SAE's own figures, and a verdict if the fit is poor), left_out (positions left "
        "out of the ranking: BOS and attention sinks) and tokens.",
    )
