"""`/attention`."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ...service.attention_service import AttentionService
from ...service.attention_summary import summary
from ...service.requests import MAX_NEW_TOKENS, METHODS, MapRequest, TraceRequest
from ..components.inputs import Text, Whole, Word
from ..files import write_attention_json
from .endpoint import publish, question


def attention(explaining: AttentionService) -> None:
    """Add `/attention` to the current gr.Blocks."""

    def answer(values: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        asked, request = MapRequest.of(values), TraceRequest.of(values)
        trace = explaining.service.trace(request)
        found = explaining.patch_map(trace, asked)
        read = explaining.attention(trace)
        return summary(read, found, explaining.score(trace, asked)), write_attention_json(read)

    publish(
        "attention",
        answer,
        [
            *question(explaining.service),
            Word("", label="token"),
            Text("attention", label="method"),
            Whole(label="layer", value=None),
            Whole(label="head", value=None),
            Whole(32, label="max_new_tokens"),
        ],
        [gr.JSON(label="summary"), gr.File(label="json")],
        "Which patches a word of the answer looked at, by one of several methods, and how good that map is. Inputs: image (a picture file), prompt, "
        "model (a name from /models), token (a word of the answer, or the number of its token, from 0; empty for the first content word), "
        f'method ({", ".join(METHODS)}), layer and head (with the methods "attention" and "value_weighted"; empty for all), '
        f"max_new_tokens (1 to {MAX_NEW_TOKENS}). Returns a summary (answer, tokens, token, method, note: what the map does not show, map: rows of "
        "patches for each grid, 0 at attention sinks, shares: of the attention on image, prompt, answer and sinks in each layer, insertion and deletion: areas under the "
        "curves of the word's probability as patches are revealed and removed in the map's order, random_insertion and random_deletion: those of random "
        "maps, sinks: positions of registers of the vision tower and of attention sinks of the decoder, readers: how much each token of the answer "
        "reads the map's brightest patch), and a JSON file with the attention maps and the shares of every head for all tokens of the answer.",
        optional="layer",
    )
