"""interp: look inside a vision-language model.

    vlm = interp.load("emoji-llava")
    trace = vlm.trace(image, "Describe the image.")
    lens = interp.logit_lens(trace)

A picture and a prompt become a `Trace` (one generation, every layer kept); a `Lens` reads it. Knows nothing of web pages.
"""

from .errors import InterpError
from .lens import Lens, logit_lens
from .model import Inputs, Vlm, load
from .patches import PatchGrid
from .presets import PRESETS, Preset
from .trace import EMBED, Token, Trace, TraceCache

__all__ = [
    "EMBED",
    "PRESETS",
    "Inputs",
    "InterpError",
    "Lens",
    "PatchGrid",
    "Preset",
    "Token",
    "Trace",
    "TraceCache",
    "Vlm",
    "load",
    "logit_lens",
]
