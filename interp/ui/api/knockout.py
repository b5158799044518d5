"""`/knockout`."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ...service.requests import MAX_NEW_TOKENS, KnockoutRequest
from ...service.whatif_service import WhatIfService
from ..components.inputs import Layers, Where, Whole
from .endpoint import publish, question


def knockout(changing: WhatIfService) -> None:
    """Add `/knockout` to the current gr.Blocks."""

    def answer(values: Mapping[str, Any]) -> dict[str, Any]:
        return changing.knockout(KnockoutRequest.of(values)).to_dict()

    publish(
        "knockout",
        answer,
        [
            *question(changing.service),
            Where(label="sources", value=None),
            Where("last", label="targets"),
            Layers(label="layers", value=None),
            Whole(32, label="max_new_tokens"),
        ],
        gr.JSON(label="knocked"),
        "What the answer becomes when some positions cannot be read: attention knockout. Inputs: image (a picture file), prompt, model (a name from "
        '/models), sources (what cannot be read: "image", "prompt", "answer", "all", "last" for the last prompt token, or an object as for '
        '/sae_features, such as {"patches": [[2, 2]]}), targets (what cannot read it: the same; "last" is every row that emits a word of the answer), '
        f"layers (a list of numbers; empty for all), max_new_tokens (1 to {MAX_NEW_TOKENS}). Returns plain, answer (without reading the sources), diff, "
        "tokens (of the plain answer, each with probability and log_odds, plain and knocked out, and kl in nats, teacher-forced on the plain answer), "
        "sources, source_positions, targets and layers.",
        optional="layers",
    )
