"""Qwen2-VL to Qwen3.5 and GLM-4V: the picture stretched to whole patches, neighbouring patches merged into one token."""

from typing import Any

from PIL import Image

from ...errors import InterpError
from ..grids import WHOLE, Layout, PatchGrid, even
from ..pixels import Tensors, denormalise, expect, image_positions


def merged_layout(config: Any, processor: Any, image: Image.Image, inputs: Tensors) -> Layout:
    """One grid over the picture, of `spatial_merge_size` x `spatial_merge_size` patches a token."""
    deep, layers = len(getattr(config.vision_config, "deepstack_visual_indexes", ())), config.get_text_config().num_hidden_layers
    if deep >= layers:
        raise InterpError(f"This model adds picture features after all of its {layers} blocks; behind the last, no layer shows them.")
    merge, patch = config.vision_config.spatial_merge_size, config.vision_config.patch_size
    _, height, width = inputs["image_grid_thw"][0].tolist()
    rows, cols = height // merge, width // merge
    positions = image_positions(config, inputs)
    expect(positions, rows * cols, f"a grid of {rows} x {cols} merged patches")
    grid = PatchGrid.of(WHOLE, positions.view(rows, cols), even(rows, image.height), even(cols, image.width), image)
    # Patches are ordered by the token they merge into; each holds several equal frames.
    pieces = inputs["pixel_values"].view(rows, cols, merge, merge, 3, -1, patch, patch)[:, :, :, :, :, 0]
    view = pieces.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, height * patch, width * patch)
    return Layout((grid,), (denormalise(view, processor.image_processor),))
