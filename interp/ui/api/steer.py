"""`/steer` and `/steer_sweep`."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ...service.requests import MAX_NEW_TOKENS, SteerRequest
from ...service.steer_service import MAX_SWEEP, SteerService
from ...steering.edits import UNITS
from ...steering.steer import STRENGTHS
from ...validation import one_of
from ..components.inputs import Edits, Number, Numbers, Text, Where, Whole
from .endpoint import publish, question


def steer(steering: SteerService) -> None:
    """Add `/steer` to the current gr.Blocks."""

    def answer(values: Mapping[str, Any]) -> dict[str, Any]:
        request = SteerRequest.of(values)
        return steering.steer(request, steering.edits(values["edits"], request.model, request.sae)).to_dict()

    publish(
        "steer",
        answer,
        [
            *question(steering.service),
            Text("", label="sae"),
            Edits(label="edits"),
            Whole(32, label="max_new_tokens"),
            Number(0, label="temperature"),
            Whole(0, label="seed"),
            Text("", label="words"),
        ],
        gr.JSON(label="steered"),
        "The plain answer and the answer with features turned up or down. Inputs: image (a picture file), prompt, model (a name from "
        "/models), sae (one of the model's SAEs; empty for the first), edits (a list; each edit has feature, exactly one of strength, amount "
        "and target, and optionally where and sae. strength adds that fraction of the layer's median residual norm along the feature's "
        "direction, amount adds activation, target sets the activation: 0 ablates the feature. where is "
        '"all" (default), "image", "prompt", "answer", or an object as for /sae_features), '
        f"max_new_tokens (1 to {MAX_NEW_TOKENS}), temperature (0: greedy decoding; otherwise both answers get the same noise), seed, words "
        "(words to watch, separated by commas). Returns plain, steered, diff, tokens (of the plain answer), kl (KL(plain || steered) in nats at "
        "each of these tokens, teacher-forced on the plain answer), words (plain and steered probability at each token), edits (with fired, the "
        "number of positions changed, and the mean change, absolute and relative) and notes.",
    )


def steer_sweep(steering: SteerService) -> None:
    """Add `/steer_sweep` to the current gr.Blocks."""

    def answer(values: Mapping[str, Any]) -> list[dict[str, Any]]:
        request, unit = SteerRequest.of(values), one_of("unit", values["unit"], UNITS)
        (edit,) = steering.edits([{"feature": values["feature"], unit: 0, "where": values["where"]}], request.model, request.sae)
        return steering.sweep(request, edit, values["strengths"]).to_list()

    publish(
        "steer_sweep",
        answer,
        [
            *question(steering.service),
            Text("", label="sae"),
            Whole(label="feature"),
            Where("all", label="where"),
            Numbers(list(STRENGTHS), label="strengths"),
            Whole(32, label="max_new_tokens"),
            Text("strength", label="unit"),
            Number(0, label="temperature"),
            Whole(0, label="seed"),
        ],
        gr.JSON(label="sweep"),
        "The answers with one feature at several strengths, computed in one batch. Inputs as for /steer, but instead of edits and words: feature, "
        f'where, strengths (a list of up to {MAX_SWEEP} numbers) and unit (of these numbers: "strength", "amount" or "target"). Returns a list of '
        "{strength (or amount or target), answer, kl (mean KL(plain || steered) in nats over the plain answer), relative (mean |change| / "
        "|residual|)}.",
    )
