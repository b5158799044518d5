"""PatchGrid and Region: the part of a picture that each image token shows."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from ..validation import index

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels of the upright original picture."""
WHOLE, TILES = "whole picture", "tiles"
"""Names of grids."""
Edges = Sequence[tuple[float, float]]
"""Start and end of each row (or column) of patches, in pixels of the picture."""


@dataclass(frozen=True)
class PatchGrid:
    """Image tokens that form a grid over a picture."""

    name: str
    """What this grid covers, such as "whole picture"."""
    positions: torch.Tensor
    """Index of each patch's token in the model's sequence: int64 [rows, cols]."""
    boxes: torch.Tensor
    """left, top, right, bottom of each patch, clipped to the picture: float32 [rows, cols, 4]. A patch entirely in padding has no area."""

    @classmethod
    def of(cls, name: str, positions: torch.Tensor, rows: Edges, cols: Edges, image: Image.Image) -> "PatchGrid":
        """The grid of `positions` [rows, cols] with these edges of rows and columns, clipped to the picture."""
        boxes = torch.empty(len(rows), len(cols), 4)
        across, down = torch.tensor(cols).clamp(0, image.width), torch.tensor(rows).clamp(0, image.height)
        boxes[..., 0], boxes[..., 2] = across[:, 0], across[:, 1]
        boxes[..., 1], boxes[..., 3] = down[:, 0, None], down[:, 1, None]
        return cls(name, positions.contiguous(), boxes)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.positions.shape[0]

    @property
    def cols(self) -> int:
        """Number of columns."""
        return self.positions.shape[1]

    @property
    def seen(self) -> Box:
        """The part of the picture that the patches cover."""
        left, top = self.boxes[..., :2].amin((0, 1)).tolist()
        right, bottom = self.boxes[..., 2:].amax((0, 1)).tolist()
        return left, top, right, bottom

    def box(self, row: int, col: int) -> Box:
        """The part of the picture that one patch shows, in pixels."""
        there_are = f"the grid has {self.rows} x {self.cols} patches, counted from 0"
        row, col = index("Patch row", row, 0, self.rows - 1, there_are), index("Patch column", col, 0, self.cols - 1, there_are)
        left, top, right, bottom = self.boxes[row, col].tolist()
        return left, top, right, bottom


@dataclass(frozen=True)
class Region:
    """Image tokens that each read a whole part of the picture, such as those of a perceiver resampler, and so have no position within it."""

    name: str
    positions: torch.Tensor
    """Index of each token in the model's sequence: int64 [n]."""
    box: Box


@dataclass(frozen=True)
class Layout:
    """How a picture became image tokens.

    Every image token belongs to one grid or one region, except separators, such as the newline token after a row of tiles.
    """

    grids: tuple[PatchGrid, ...]
    """Coarsest first, if several cover the same picture."""
    views: tuple[Image.Image, ...]
    """What the vision encoder saw for each grid, de-normalised; tiles are joined and cropped to the grid's patches."""
    regions: tuple[Region, ...] = ()

    @property
    def placed(self) -> set[int]:
        """Positions of all image tokens that belong to a grid or a region."""
        parts: list[PatchGrid | Region] = [*self.grids, *self.regions]
        return {position for part in parts for position in part.positions.flatten().tolist()}


def even(count: int, end: float, start: float = 0) -> list[tuple[float, float]]:
    """Edges of `count` equal parts between `start` and `end`."""
    cuts = [start + (end - start) * i / count for i in range(count + 1)]
    return list(itertools.pairwise(cuts))
