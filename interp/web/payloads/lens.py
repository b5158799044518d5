"""The payload of the lens view: the scene, what one lens reads in it, and which other lenses the page offers."""

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch

from ...errors import InterpError
from ...lens.contextual import ContextualLens
from ...lens.lens import Lens
from ...presets import PRESETS
from .lens_texts import LIMITS, WHY_DEFAULT, LensMethod, known_lens, lens_method
from .scene import Scene, encode, quantise, scene

SCHEMA = "llava-microscope/lens-view/2"


class ContextItem(TypedDict):
    """Where a word of the contextual lens was read: what stands before and after it, and the layer of the text's state."""

    before: str
    word: str
    after: str
    layer: int


class LensReading(TypedDict):
    """What one lens reads. L layers, T positions (the last token was never read), k words at each.

    `reads`: "next" or "here", the token that the words stand for; `score`: "probability" or "cosine similarity".
    `vocab`: the words that occur; `ids`: uint16 or uint32 [L, T, k] into it; `probs`: uint8 [L, T, k], probabilities as quantised logits,
    similarities as steps of 1/255 between the two numbers of `range`. `scale`: [L, 2], the scores at the ends of each layer's colours.
    `entropy`: uint8 [L, T], 255 is `max_entropy` nats; "" for a lens without.
    `first`: uint8 [T], the index of the layer from which on the last layer's word is on top; "" for a lens that reads what stands here.
    `contexts`, and `neighbours`: uint32 [L, T, k] into them, for the contextual lens; else empty. `note`: what to know about it, "" for nothing.
    `default`: index of the layer to open at; `best`: the same if it is known to be the best for this lens, else null.
    """

    method: str
    reads: str
    score: str
    layers: list[int]
    default: int
    best: int | None
    why_default: str
    k: int
    vocab: list[str]
    ids: str
    ids_bytes: int
    probs: str
    range: list[float]
    scale: list[list[float]]
    entropy: str
    max_entropy: float
    first: str
    contexts: list[ContextItem]
    neighbours: str
    note: str
    limits: str


class LensPayload(Scene, LensReading):
    """The view's data. `methods`: the lenses that the page offers; `missing`: how to get those that it lacks, "" if none.

    `others`: what other lenses read, for a file without a server; `locked`: the position to open with, null for none.
    """

    schema: str
    run: str | None
    methods: list[LensMethod]
    missing: str
    others: list[LensReading]
    locked: int | None


def lens_payload(
    lens: Lens,
    *,
    run: str | None = None,
    methods: Sequence[LensMethod] = (),
    missing: str = "",
    others: Sequence[Lens] = (),
    layer: int | None = None,
    locked: int | None = None,
) -> LensPayload:
    """The view's data for a lens of all positions. `run` is handed back by the page when it asks for a word's map or for another lens.

    `layer`: the one to open at instead of the lens's own, the nearest if it was not read.
    """
    trace = lens.trace
    reading = lens_reading(lens)
    if layer is not None:
        reading["default"] = _nearest(lens, layer)
    return {
        "schema": SCHEMA,
        "run": run,
        **scene(trace),
        "notes": [*trace.notes, *_some_layers(lens)],
        **reading,
        "methods": list(methods) or [lens_method(each.method, trace.model_name) for each in (lens, *others)],
        "missing": missing,
        "others": [lens_reading(other) for other in others],
        "locked": locked if locked is not None and 0 <= locked < len(lens.positions) else None,
    }


def lens_reading(lens: Lens) -> LensReading:
    """What the view needs of one lens of all positions."""
    trace = lens.trace
    if lens.positions != tuple(range(trace.states.shape[1])):
        raise InterpError(f"The view needs a lens of all positions; leave `positions` out of {lens.method}_lens.")
    listed, index = torch.unique(lens.ids, return_inverse=True)
    texts = lens.vocabulary
    wide = len(listed) > 65535
    axis_of = {layer: axis for axis, layer in enumerate(lens.layers)}
    most = math.log(len(trace.vlm.vocabulary.texts))
    preset = PRESETS.get(trace.model_name)
    known = known_lens(lens.method, trace.model_name)
    best = None if known is None else known.layer
    probs, bounds = scores(lens, lens.probs)
    contexts, neighbours = _contexts(lens)
    return {
        "method": lens.method,
        "reads": lens.reads,
        "score": lens.score_name,
        "layers": list(lens.layers),
        "default": axis_of[opening_layer(lens)],
        "best": None if best is None else _nearest(lens, best),
        "why_default": preset.default_layer_note
        if preset and preset.default_layer_note and lens.method == "logit"
        else WHY_DEFAULT[lens.reads],
        "k": lens.ids.shape[-1],
        "vocab": [texts[i] for i in listed.tolist()],
        "ids": encode(index.numpy().astype("<u4" if wide else "<u2")),
        "ids_bytes": 4 if wide else 2,
        "probs": probs,
        "range": bounds,
        "scale": _scale(lens),
        "entropy": "" if lens.entropy is None else encode((lens.entropy / most * 255).round().clamp(0, 255).numpy().astype(np.uint8)),
        "max_entropy": most,
        "first": encode(np.array([axis_of[layer] for layer in lens.first_layer().tolist()], dtype=np.uint8))
        if lens.reads == "next"
        else "",
        "contexts": contexts,
        "neighbours": neighbours,
        "note": lens.note,
        "limits": LIMITS[lens.method],
    }


def _contexts(lens: Lens) -> tuple[list[ContextItem], str]:
    if not isinstance(lens, ContextualLens):
        return [], ""
    entries, at = torch.unique(lens.neighbours, return_inverse=True)
    contexts: list[ContextItem] = []
    for layer, place in zip(*(part.cpu()[entries].tolist() for part in (lens.index.layers, lens.index.places)), strict=True):
        found = lens.index.contexts[place]
        contexts.append({"before": found.before, "word": found.word, "after": found.after, "layer": layer})
    return contexts, encode(at.numpy().astype("<u4"))


def scores(lens: Lens, values: torch.Tensor) -> tuple[str, list[float]]:
    """Scores of a lens as the view reads them: the bytes, and the scores that the first and the last byte stand for."""
    if lens.score_name == "probability":
        return encode(quantise(values)), [0.0, 1.0]
    low, high = values.min().item(), values.max().item()
    steps = (values - low) / max(high - low, 1e-6) * 255
    return encode(steps.round().clamp(0, 255).numpy().astype(np.uint8)), [low, high]


def opening_layer(lens: Lens) -> int:
    """The layer that a lens is opened at: where it is known to read best, or the model's default; of those that it holds the nearest."""
    known = known_lens(lens.method, lens.trace.model_name)
    layer = lens.trace.vlm.default_layer if known is None or known.layer is None else known.layer
    return lens.layers[_nearest(lens, layer)]


def _nearest(lens: Lens, layer: int) -> int:
    return min(range(len(lens.layers)), key=lambda axis: abs(lens.layers[axis] - layer))


def _scale(lens: Lens) -> list[list[float]]:
    """The ends of the colours: of similarities, which fill a part of -1 to 1 that moves with depth, nearly all of the patches' at each layer."""
    if lens.score_name == "probability":
        return [[0.0, 1.0] for _ in lens.layers]
    top = lens.probs[:, lens.trace.positions("image") or list(lens.positions), 0]
    low, high = torch.quantile(top, torch.tensor([0.02, 0.98]), dim=1)
    ends: list[list[float]] = torch.stack([low, torch.maximum(high, low + 1e-3)], dim=1).tolist()
    return ends


def _some_layers(lens: Lens) -> list[str]:
    read, there = len(lens.layers), lens.trace.n_layers + 1
    return [] if read == there else [f"{read} of {there} states were read."]
