"""The table of model families: the function that finds the part of the picture each image token shows, and the families refused.

The functions follow what the image processor does to a picture. Each is checked against the real processor and model by painting patches
(tests/vision/test_families.py).
"""

from collections.abc import Callable
from typing import Any

from PIL import Image

from .families.anyres import llava_next_layout, llava_onevision_layout
from .families.gemma3 import gemma3_layout
from .families.idefics import idefics2_layout, idefics3_layout
from .families.merged import merged_layout
from .families.molmo2 import molmo2_layout
from .families.pixtral import pixtral_layout
from .families.square import llava_layout, square_layout
from .families.tiled import tiled_layout
from .grids import Layout
from .pixels import Tensors

Builder = Callable[[Any, Any, Image.Image, Tensors], Layout]
"""(model config, processor, upright picture, the model's inputs) → the layout of the picture's tokens."""

LAYOUTS: dict[str, Builder] = {
    "aya_vision": tiled_layout,
    "cohere2_vision": tiled_layout,
    "gemma3": gemma3_layout,
    "glm4v": merged_layout,
    "glm4v_moe": merged_layout,
    "idefics2": idefics2_layout,
    "idefics3": idefics3_layout,
    "internvl": tiled_layout,
    "llava": llava_layout,
    "llava_next": llava_next_layout,
    "llava_onevision": llava_onevision_layout,
    "mistral3": pixtral_layout,
    "molmo2": molmo2_layout,
    "paligemma": square_layout,
    "qwen2_5_vl": merged_layout,
    "qwen2_vl": merged_layout,
    "qwen3_5": merged_layout,
    "qwen3_5_moe": merged_layout,
    "qwen3_vl": merged_layout,
    "qwen3_vl_moe": merged_layout,
    "smolvlm": idefics3_layout,
    "vipllava": llava_layout,
}
"""config.model_type → builder. `interp.Vlm` refuses a family that is not listed."""

_CROSS = "it reads the picture by cross-attention: there are no image tokens in the residual stream"
REFUSED = {
    **dict.fromkeys(("mllama", "idefics", "flamingo"), _CROSS),
}
"""Families that cannot be supported, and why."""
