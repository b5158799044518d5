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
    """Put `/steer` into the current gr.Blocks."""

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
        "The answer with features turned up or down, beside the plain one. Inputs: image (a picture file), prompt, model (a name from "
        "/models), sae (one of that model's, empty for the first), edits (a list; each has feature, exactly one of strength, amount and "
        "target, and where). strength adds that fraction of the layer's median residual norm along the feature's direction; amount adds "
        "that much activation; target sets the activation, and 0 ablates the feature. where is "
        '"all", "image", "prompt", "answer", or an object as for /sae_features; the default is "all". An edit may name its own sae. '
        f"max_new_tokens (1 to {MAX_NEW_TOKENS}), temperature (0: greedy; otherwise both answers share the noise of each step), seed, words (to "
        "watch, with commas between them). Returns plain, steered, diff, tokens (of the plain answer), kl (KL(plain || steered) in nats at each "
        "of these tokens, both reading the plain answer), words (probability plain and steered at each token), edits (with fired, the number of "
        "positions changed, and the mean change in absolute and relative size), and notes.",
    )


def steer_sweep(steering: SteerService) -> None:
    """Put `/steer_sweep` into the current gr.Blocks."""

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
        "One feature at several strengths, each with its answer, in one batch. Inputs as for /steer, with feature, where, strengths (a list "
        f'of up to {MAX_SWEEP} numbers) and unit (what the numbers are: "strength", "amount" or "target"). Returns a list of {{strength (or the '
        "unit asked for), answer, kl (mean KL(plain || steered) in nats over the plain answer), relative (mean |change| / |residual|)}.",
    )
