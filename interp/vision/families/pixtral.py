"""Pixtral towers (Pixtral 12B in a LLaVA, Mistral Small 3): the picture stretched to whole patches, a mark at the end of every row."""

from typing import Any

from PIL import Image

from ...errors import InterpError
from ..grids import WHOLE, Layout, PatchGrid, even
from ..pixels import Tensors, denormalise, expect, image_positions


def pixtral_layout(config: Any, processor: Any, image: Image.Image, inputs: Tensors) -> Layout:
    """One grid over the picture. Mistral 3 merges `spatial_merge_size` squared patches into one token; a LLaVA merges none."""
    merge = getattr(config, "spatial_merge_size", 1)
    size = config.vision_config.patch_size * merge
    height, width = inputs["image_sizes"][0].tolist()
    rows, cols = height // size, width // size
    if merge > 1 and rows * cols == 1:  # transformers drops one dimension too many
        raise InterpError(
            f"A picture of {image.width} x {image.height} pixels is a single patch, which Mistral 3 cannot read. "
            f"Scale it up until one side is longer than {size} pixels."
        )
    positions = image_positions(config, inputs)
    expect(positions, rows * cols, f"a grid of {rows} x {cols} patches")
    grid = PatchGrid.of(WHOLE, positions.view(rows, cols), even(rows, image.height), even(cols, image.width), image)
    return Layout((grid,), (denormalise(inputs["pixel_values"][0, :, :height, :width], processor.image_processor),))
