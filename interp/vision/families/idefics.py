"""Idefics2 (a perceiver, whose tokens have no places), Idefics3 and SmolVLM (tiles of the picture, then the whole)."""

import re
from typing import Any

import torch
from PIL import Image

from ...errors import InterpError
from ..grids import TILES, WHOLE, Layout, PatchGrid, Region, even
from ..pixels import Tensors, assembled, denormalise, expect, image_positions


def idefics2_layout(config: Any, processor: Any, image: Any, inputs: Tensors) -> Layout:  # noqa: ARG001 - the signature of all builders
    """Idefics2: a perceiver's latents each read the whole picture, or with splitting one of its quadrants; no grid is invented for them."""
    latents = config.perceiver_config.resampler_n_latents
    positions = image_positions(config, inputs)
    views = inputs["pixel_values"].shape[1]
    expect(positions, views * latents, f"{views} views of {latents} latents")
    width, height = image.size
    x, y = width // 2, height // 2
    whole = ("whole picture", (0.0, 0.0, float(width), float(height)))
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
    """Idefics3 and SmolVLM: the picture stretched over rows x columns of square tiles, then the whole of it in one; k x k tokens each."""
    pixels = inputs["pixel_values"][0]
    k = pixels.shape[-1] // config.vision_config.patch_size // config.scale_factor
    positions = image_positions(config, inputs)
    views = len(pixels)
    expect(positions, views * k * k, f"{views} views of {k} x {k} patches")
    down, across = _tile_rows_and_columns(processor.tokenizer, inputs["input_ids"][0], positions.view(views, -1)[:, 0])
    if views != down * across + 1:
        raise InterpError(f"{views} views do not fit {down} x {across} tiles and the whole picture.")
    *tiles, whole = positions.view(views, k, k)
    grids = [PatchGrid.of(WHOLE, whole, even(k, image.height), even(k, image.width), image)]
    seen = [pixels[-1]]
    if tiles:
        in_place = torch.stack(tiles).view(down, across, k, k).transpose(1, 2).reshape(down * k, across * k)
        grids.append(PatchGrid.of(TILES, in_place, even(down * k, image.height), even(across * k, image.width), image))
        seen.append(assembled(pixels[:-1], down, across))
    return Layout(tuple(grids), tuple(denormalise(view, processor.image_processor) for view in seen))


def _tile_rows_and_columns(tokenizer: Any, ids: torch.Tensor, starts: torch.Tensor) -> tuple[int, int]:
    """How many rows and columns of tiles there are, by the marks in front of them, for the processor does not say."""
    marks = tokenizer.convert_ids_to_tokens(ids[starts - 1].tolist())
    found = [match for mark in marks if (match := re.fullmatch(r"<row_(\d+)_col_(\d+)>", mark))]
    return max((int(match[1]) for match in found), default=0), max((int(match[2]) for match in found), default=0)
