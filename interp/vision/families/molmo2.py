"""Molmo 2: the whole picture in one square view, then a finer canvas that is cut into overlapping crops."""

import itertools
from typing import Any

import torch
from PIL import Image

from ..grids import TILES, WHOLE, Edges, Layout, PatchGrid
from ..pixels import Tensors, assembled, denormalise, expect, image_positions


def molmo2_layout(config: Any, processor: Any, image: Image.Image, inputs: Tensors) -> Layout:
    """The picture stretched to one square view, and to a canvas that is cut into overlapping crops; 2 x 2 patches are pooled into a token.

    `image_token_pooling` lists the patches of every image token; the canvas is reassembled from it.
    """
    low_rows, low_cols, high_rows, high_cols = inputs["image_grids"][0].tolist()
    positions = image_positions(config, inputs)
    low, high = low_rows * low_cols, high_rows * high_cols
    expect(positions, low + high, f"grids of {low_rows} x {low_cols} and {high_rows} x {high_cols} pooled patches")
    patch = processor.image_processor.patch_size
    pieces = inputs["pixel_values"].flatten(0, 1).view(-1, patch, patch, 3).permute(0, 3, 1, 2)
    pooled_high, pooled_wide = processor.image_processor.pooling_size
    grids, views = [], []
    for name, at, rows, cols in ((WHOLE, slice(0, low), low_rows, low_cols), (TILES, slice(low, None), high_rows, high_cols)):
        pooling = inputs["image_token_pooling"][at].view(rows, cols, pooled_high, pooled_wide)
        patches = pooling.transpose(1, 2).reshape(rows * pooled_high, cols * pooled_wide)
        inside = patches >= 0  # an odd number of patches is padded on both sides
        has_row, has_col = inside.any(1), inside.any(0)
        canvas = patches[has_row][:, has_col]
        grids.append(
            PatchGrid.of(
                name,
                positions[at].view(rows, cols),
                _pooled_edges(has_row, pooled_high, image.height),
                _pooled_edges(has_col, pooled_wide, image.width),
                image,
            )
        )
        views.append(denormalise(assembled(pieces[canvas.flatten()], *canvas.shape), processor.image_processor))
    return Layout(tuple(grids), tuple(views))


def _pooled_edges(inside: torch.Tensor, pool: int, length: int) -> Edges:
    """Edges of pooled rows (or columns) in a picture of this length, where some patches at the ends are padding."""
    size = length / int(inside.sum())
    before = [int(inside[: i * pool].sum()) for i in range(len(inside) // pool + 1)]
    return [(a * size, b * size) for a, b in itertools.pairwise(before)]
