"""The payload of the lens view."""

import math

import numpy as np
import torch

from ...errors import InterpError
from ...lens.lens import Lens
from ...presets import PRESETS
from .scene import Scene, encode, quantise, scene

SCHEMA = "llava-microscope/lens-view/1"
WHY_DEFAULT = "Opens about three quarters of the way through: the last layers turn from what a patch shows to which word comes next."
LIMITS = (
    "A logit lens asks one narrow question: which word would the model say if it stopped at this layer? A word on a patch is neither what the "
    "patch contains nor what the model thinks of it. In early layers most readings are noise, because those layers do not speak the language of "
    "the output words. A concept without a single-token word cannot show up at all. Patches exchange information, so a word may appear on the "
    "background or belong to a neighbouring patch. And a readable word need not be used: only an intervention shows what the answer depends on. "
    "Other readings, such as the nearest contextual embeddings (LatentLens) or a trained lens (tuned lens), find more in the same states."
)


class LensPayload(Scene):
    """The view's data. L layers, T positions (the last token was never read), k words at each.

    `vocab`: the words that occur; `ids`: uint16 or uint32 [L, T, k] into it; `probs`: uint8 [L, T, k], quantised logits; `entropy`: uint8 [L, T],
    255 is `max_entropy` nats; `first`: uint8 [T], the index of the layer from which on the last layer's word is on top.
    """

    schema: str
    run: str | None
    layers: list[int]
    default: int
    why_default: str
    k: int
    vocab: list[str]
    ids: str
    ids_bytes: int
    probs: str
    entropy: str
    max_entropy: float
    first: str
    limits: str


def lens_payload(lens: Lens, *, run: str | None = None) -> LensPayload:
    """The view's data for a lens of all positions. `run` is handed back by the page when it asks for a word's map."""
    trace = lens.trace
    if lens.positions != tuple(range(trace.states.shape[1])):
        raise InterpError("The view needs a lens of all positions; leave `positions` out of logit_lens.")
    if lens.entropy is None:
        raise InterpError("The view shows probabilities, and this lens has similarities; read them with texts() and grid().")
    listed, index = torch.unique(lens.ids, return_inverse=True)
    texts = trace.vlm.vocabulary.texts
    wide = len(listed) > 65535
    default = min(lens.layers, key=lambda layer: abs(layer - trace.vlm.default_layer))
    axis_of = {layer: axis for axis, layer in enumerate(lens.layers)}
    most = math.log(len(texts))
    preset = PRESETS.get(trace.model_name)
    return {
        "schema": SCHEMA,
        "run": run,
        **scene(trace),
        "notes": [*trace.notes, *_some_layers(lens)],
        "layers": list(lens.layers),
        "default": axis_of[default],
        "why_default": preset.default_layer_note if preset and preset.default_layer_note else WHY_DEFAULT,
        "k": lens.ids.shape[-1],
        "vocab": [texts[i] for i in listed.tolist()],
        "ids": encode(index.numpy().astype("<u4" if wide else "<u2")),
        "ids_bytes": 4 if wide else 2,
        "probs": encode(quantise(lens.probs)),
        "entropy": encode((lens.entropy / most * 255).round().clamp(0, 255).numpy().astype(np.uint8)),
        "max_entropy": most,
        "first": encode(np.array([axis_of[layer] for layer in lens.first_layer().tolist()], dtype=np.uint8)),
        "limits": LIMITS,
    }


def _some_layers(lens: Lens) -> list[str]:
    read, there = len(lens.layers), lens.trace.n_layers + 1
    return [] if read == there else [f"{read} of {there} states were read."]
