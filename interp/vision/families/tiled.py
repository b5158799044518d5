"""The picture stretched over tiles, then a thumbnail of the whole: InternVL, Aya Vision and Cohere2 Vision (and Idefics3)."""

import math
import sys
from typing import Any

import torch
from PIL import Image

from ..grids import TILES, WHOLE, Layout, PatchGrid, even
from ..pixels import Tensors, assembled, denormalise, expect, image_positions


def tiled_layout(config: Any, processor: Any, image: Image.Image, inputs: Tensors) -> Layout:
    """InternVL, Aya Vision and Cohere2 Vision. A picture that fits one tile is its own thumbnail."""
    pictures, pixels = processor.image_processor, inputs["pixel_values"]
    positions = image_positions(config, inputs)
    cols, rows = _columns_and_rows(pictures, image) if len(pixels) > 1 else (1, 1)
    views = rows * cols + 1 if rows * cols > 1 else 1
    k = math.isqrt(len(positions) // views)
    expect(positions, views * k * k, f"{rows} x {cols} tiles of {k} x {k} tokens each")
    expect(positions, len(pixels) * k * k, f"{len(pixels)} views of {k} x {k} tokens each")
    return tiles_then_whole(positions.view(views, k, k), pixels, rows, cols, pictures, image)


def tiles_then_whole(tokens: torch.Tensor, pixels: torch.Tensor, rows: int, cols: int, pictures: Any, image: Image.Image) -> Layout:
    """A grid over the whole picture, and one over its tiles if it has any.

    `tokens`: positions [rows * cols + 1 views, k, k] and `pixels` [views, 3, height, width], tiles row by row and the whole picture last.
    """
    k = tokens.shape[-1]
    *tiles, whole = tokens
    grids = [PatchGrid.of(WHOLE, whole, even(k, image.height), even(k, image.width), image)]
    seen = [pixels[-1]]
    if tiles:
        in_place = torch.stack(tiles).view(rows, cols, k, k).transpose(1, 2).reshape(rows * k, cols * k)
        grids.append(PatchGrid.of(TILES, in_place, even(rows * k, image.height), even(cols * k, image.width), image))
        seen.append(assembled(pixels[:-1], rows, cols))
    return Layout(tuple(grids), tuple(denormalise(view, pictures) for view in seen))


def _columns_and_rows(pictures: Any, image: Image.Image) -> tuple[int, int]:
    """The tiling, from the image processor's own function, since its output does not report it."""
    modules = (sys.modules[kind.__module__] for kind in type(pictures).__mro__)
    decide = next(module.get_optimal_tiled_canvas for module in modules if hasattr(module, "get_optimal_tiled_canvas"))
    tile = (pictures.size["height"], pictures.size["width"])
    cols, rows = decide((image.height, image.width), tile, pictures.min_patches, pictures.max_patches)
    return int(cols), int(rows)
