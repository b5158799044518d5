"""Idefics2 (a perceiver, whose tokens have no position), Idefics3 and SmolVLM (tiles of the picture, then the whole)."""

import re
from typing import Any

import torch
from PIL import Image

from ...errors import InterpError
from ..grids import WHOLE, Layout, Region
from ..pixels import Tensors, expect, image_positions
from .tiled import tiles_then_whole


def idefics2_layout(config: Any, processor: Any, image: Image.Image, inputs: Tensors) -> Layout:  # noqa: ARG001 - every layout function has these arguments
    """Idefics2: each latent of the perceiver reads the whole picture, or one quadrant where it is split. They form no grid."""
    latents = config.perceiver_config.resampler_n_latents
    positions = image_positions(config, inputs)
    views = inputs["pixel_values"].shape[1]
    expect(positions, views * latents, f"{views} views of {latents} latents")
    width, height = image.size
    x, y = width // 2, height // 2
    whole = (WHOLE, (0.0, 0.0, float(width), float(height)))
    quadrants = [
        ("top left", (0.0, 0.0, float(x), float(y))),
        ("top right", (float(x), 0.0, float(width), float(y))),
        ("bottom left", (0.0, float(y), float(x), float(height))),
        ("bottom right", (float(x), float(y), float(width), float(height))),
    ]
    parts = [*quadrants, whole] if views > 1 else [whole]
    regions = [Region(name, rows, box) for (name, box), rows in zip(parts, positions.view(-1, latents), strict=True)]
    return Layout((), (), tuple(regions))


def idefics3_layout(config: Any, processor: Any, image: Image.Image, inputs: Tensors) -> Layout:
    """Idefics3 and SmolVLM: the picture stretched over rows x columns of square tiles, then all of it in one view; k x k tokens each."""
    pixels = inputs["pixel_values"][0]
    k = pixels.shape[-1] // config.vision_config.patch_size // config.scale_factor
    positions = image_positions(config, inputs)
    views = len(pixels)
    expect(positions, views * k * k, f"{views} views of {k} x {k} patches")
    down, across = _tile_rows_and_columns(processor.tokenizer, inputs["input_ids"][0], positions.view(views, -1)[:, 0])
    if views != down * across + 1:
        raise InterpError(f"{views} views do not fit {down} x {across} tiles and the whole picture.")
    return tiles_then_whole(positions.view(views, k, k), pixels, down, across, processor.image_processor, image)


def _tile_rows_and_columns(tokenizer: Any, ids: torch.Tensor, starts: torch.Tensor) -> tuple[int, int]:
    """Rows and columns of tiles, read from the marks in front of them: the processor does not report them."""
    marks = tokenizer.convert_ids_to_tokens(ids[starts - 1].tolist())
    found = [match for mark in marks if (match := re.fullmatch(r"<row_(\d+)_col_(\d+)>", mark))]
    return max((int(match[1]) for match in found), default=0), max((int(match[2]) for match in found), default=0)
