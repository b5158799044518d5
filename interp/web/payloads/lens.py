"""A lens as the compact dictionary that the interactive view draws: typed arrays in base64 and one list of words.

Knows neither gradio nor HTML. Nested JSON of the same numbers is five times larger and takes fourteen times longer to reach a page.
"""

import base64
import io
import math
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...errors import InterpError
from ...lens.logit_lens import Lens
from ...presets import PRESETS
from ...tracing.trace import Trace

SCHEMA = "llava-microscope/lens-view/1"
_MAX_SIDE = 768  # pixels of the picture inside the view
_LETTERS = {"image": "i", "separator": "s", "prompt": "p", "answer": "a", "special": "x"}
WHY_DEFAULT = "Opens about three quarters deep: the last layers turn from what a patch shows to which word comes next."
LIMITS = (
    "A logit lens asks one narrow question: which word would the model say if it stopped at this layer. A word on a patch is neither what the "
    "patch contains nor what the model thinks of it. In early layers most readings are noise, for the output words are not the language those "
    "layers speak. A concept without a single-token word cannot show at all. Patches exchange information, so a word may stand on background or "
    "belong to the neighbour. And a readable word need not be used: only an intervention shows what the answer depends on. Other readings, such "
    "as the nearest contextual embeddings (LatentLens) or a trained lens (tuned lens), find more in the same states."
)


def lens_payload(lens: Lens, *, run: str | None = None) -> dict[str, Any]:
    """The view's data for a lens of all positions. `run` is handed back by the page when it asks for a word's map."""
    trace = lens.trace
    if lens.positions != tuple(range(trace.states.shape[1])):
        raise InterpError("The view needs a lens of all positions; leave `positions` out of logit_lens.")
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


def scene(trace: Trace) -> dict[str, Any]:
    """What every view shows of a trace: its picture, its grids and its tokens."""
    return {
        "model": trace.model_name,
        "prompt": trace.prompt,
        "answer": trace.answer,
        "finished": trace.finished,
        "notes": list(trace.notes),
        "image": _data_url(trace.image),
        "seen": list(trace.grids[0].seen) if trace.grids else [0, 0, *trace.image.size],
        "grids": [
            {
                "name": grid.name,
                "rows": grid.rows,
                "cols": grid.cols,
                "boxes": encode(grid.boxes.numpy().astype("<f4")),
                "positions": encode(grid.positions.numpy().astype("<u2")),
                "view": _data_url(view),
            }
            for grid, view in zip(trace.grids, trace.views, strict=True)
        ],
        "regions": [
            {"name": region.name, "box": list(region.box), "positions": encode(region.positions.numpy().astype("<u2"))}
            for region in trace.regions
        ],
        "tokens": {"text": [token.text for token in trace.tokens], "kind": "".join(_LETTERS[token.kind] for token in trace.tokens)},
    }


def quantise(probability: torch.Tensor) -> np.ndarray:
    """Probabilities as uint8 steps of their logit between -9 and 7: relative steps of 6 % at 0.02 %, of 0.1 points at 99.9 %."""
    p = probability.double().clamp(1e-12, 1 - 1e-12)
    return (((p / (1 - p)).log() + 9) / 16 * 255).round().clamp(0, 255).numpy().astype(np.uint8)


def encode(array: np.ndarray) -> str:
    """Little-endian bytes of an array in base64."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _data_url(image: Image.Image) -> dict[str, Any]:
    small = image.copy()
    small.thumbnail((_MAX_SIDE, _MAX_SIDE))
    buffer = io.BytesIO()
    # Small pictures stay exact: their pixels are what is looked at.
    small.save(buffer, "WEBP", **({"lossless": True} if max(small.size) <= 128 else {"quality": 82}))
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"src": f"data:image/webp;base64,{encoded}", "width": image.width, "height": image.height}
