"""Gemma 3: the picture stretched to a square, its patches pooled to a fixed number; with pan-and-scan, crops of it as well."""

from typing import Any

from PIL import Image

from ..grids import WHOLE, Layout, PatchGrid, even
from ..pixels import Tensors, denormalise, expect, image_positions


def gemma3_layout(config: Any, processor: Any, image: Image.Image, inputs: Tensors) -> Layout:
    """A grid over the whole picture, and one for each crop."""
    tokens = config.mm_tokens_per_image
    side = round(tokens**0.5)
    positions = image_positions(config, inputs)
    pixels = inputs["pixel_values"]
    expect(positions, len(pixels) * tokens, f"{len(pixels)} views of {side} x {side} pooled patches")
    whole, *crops = positions.view(-1, side, side)
    grids = [PatchGrid.of(WHOLE, whole, even(side, image.height), even(side, image.width), image)]
    for i, crop in enumerate(crops):
        # Crops follow each other along the longer side, in equal steps that are rounded up.
        wide = image.width >= image.height
        step = -(-max(image.size) // len(crops))
        along = even(side, min((i + 1) * step, max(image.size)), i * step)
        rows, cols = (even(side, image.height), along) if wide else (along, even(side, image.width))
        grids.append(PatchGrid.of(f"crop {i + 1} of {len(crops)}", crop, rows, cols, image))
    return Layout(tuple(grids), tuple(denormalise(view, processor.image_processor) for view in pixels))
