"""interp: look inside a vision-language model.

    vlm = interp.load("emoji-llava")
    trace = vlm.trace(image, "Describe the image.")
    lens = interp.logit_lens(trace)
    found = interp.top_features(trace, interp.load_sae("emoji-llava"))

A picture and a prompt become a `Trace` (one generation, every layer kept); a `Lens` reads its words, `Features` the directions that a sparse
autoencoder finds in it. Knows nothing of web pages.
"""

from .errors import InterpError
from .features import Encoding, Feature, Features, encode, top_features
from .lens import Lens, logit_lens
from .model import Inputs, Vlm, load
from .patches import PatchGrid
from .presets import PRESETS, Preset
from .sae import Sae
from .sae_loading import load_sae
from .trace import EMBED, Token, Trace, TraceCache

__all__ = [
    "EMBED",
    "PRESETS",
    "Encoding",
    "Feature",
    "Features",
    "Inputs",
    "InterpError",
    "Lens",
    "PatchGrid",
    "Preset",
    "Sae",
    "Token",
    "Trace",
    "TraceCache",
    "Vlm",
    "encode",
    "load",
    "load_sae",
    "logit_lens",
    "top_features",
]
