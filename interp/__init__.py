"""interp: look inside a vision-language model.

    vlm = interp.load("emoji-llava")
    trace = vlm.trace(image, "Describe the image.")
    lens = interp.logit_lens(trace)
    sae = interp.load_sae("emoji-llava")
    found = interp.top_features(trace, sae)
    result = interp.steer(vlm, image, "Describe the image.", [interp.Edit(sae=sae, feature=found.features[0].feature, target=0)])

A picture and a prompt become a `Trace` (one generation, every layer kept); a `Lens` reads its words, `Features` the directions that a sparse
autoencoder finds in it, and `steer` answers with such directions turned up or down. Knows nothing of web pages.
"""

from .contrast import contrast_vector
from .edits import Contrast, Edit
from .errors import InterpError
from .features import Encoding, Feature, Features, encode, top_features
from .grids import PatchGrid, Region
from .lens import Lens, logit_lens
from .loading import load
from .model import Inputs, Vlm
from .presets import PRESETS, Preset
from .sae import Sae
from .sae_loading import load_sae
from .steered import Steered, Sweep
from .steering import steer, steer_sweep, steered_trace
from .trace import EMBED, Token, Trace
from .trace_cache import TraceCache

__all__ = [
    "EMBED",
    "PRESETS",
    "Contrast",
    "Edit",
    "Encoding",
    "Feature",
    "Features",
    "Inputs",
    "InterpError",
    "Lens",
    "PatchGrid",
    "Preset",
    "Region",
    "Sae",
    "Steered",
    "Sweep",
    "Token",
    "Trace",
    "TraceCache",
    "Vlm",
    "contrast_vector",
    "encode",
    "load",
    "load_sae",
    "logit_lens",
    "steer",
    "steer_sweep",
    "steered_trace",
    "top_features",
]
