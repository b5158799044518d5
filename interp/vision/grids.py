"""PatchGrid and Region: which image tokens are which piece of a picture. Knows nothing of how a model came to them."""

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
"""Where each row (or column) of patches begins and ends, in pixels of the picture."""


@dataclass(frozen=True)
class PatchGrid:
    """Image tokens that form a grid over a picture."""

    name: str
    """What this grid covers, such as "whole picture"."""
    positions: torch.Tensor
    """Index of each patch's token in the model's sequence: int64 [rows, cols]."""
    boxes: torch.Tensor
    """left, top, right, bottom of each patch, clipped to the picture: float32 [rows, cols, 4]. A patch that lies wholly in padding has no
    area."""

    @classmethod
    def of(cls, name: str, positions: torch.Tensor, rows: Edges, cols: Edges, image: Image.Image) -> "PatchGrid":
        """The grid of `positions` [rows, cols] whose rows and columns have these edges, clipped to the picture."""
        boxes = torch.empty(len(rows), len(cols), 4)
        across, down = torch.tensor(cols).clamp(0, image.width), torch.tensor(rows).clamp(0, image.height)
        boxes[..., 0], boxes[..., 2] = across[:, 0], across[:, 1]
        boxes[..., 1], boxes[..., 3] = down[:, 0, None], down[:, 1, None]
        return cls(name, positions.contiguous(), boxes)

    @property
    def rows(self) -> int:
        """Rows of patches."""
        return self.positions.shape[0]

    @property
    def cols(self) -> int:
        """Patches in a row."""
        return self.positions.shape[1]

    @property
    def seen(self) -> Box:
        """The part of the picture that these patches cover."""
        left, top = self.boxes[..., :2].amin((0, 1)).tolist()
        right, bottom = self.boxes[..., 2:].amax((0, 1)).tolist()
        return left, top, right, bottom

    def box(self, row: int, col: int) -> Box:
        """The pixels of the picture that one patch is made of."""
        there_are = f"the grid has {self.rows} x {self.cols} patches, counted from 0"
        row, col = index("Patch row", row, 0, self.rows - 1, there_are), index("Patch column", col, 0, self.cols - 1, there_are)
        left, top, right, bottom = self.boxes[row, col].tolist()
        return left, top, right, bottom


@dataclass(frozen=True)
class Region:
    """Image tokens that each read all of one part of the picture, as those of a perceiver do: they have no places within it."""

    name: str
    positions: torch.Tensor
    """Index of each token in the model's sequence: int64 [n]."""
    box: Box


@dataclass(frozen=True)
class Layout:
    """How one picture became image tokens.

    Every image token belongs to one grid or one region, but for separators such as the newline behind a row of tiles.
    """

    grids: tuple[PatchGrid, ...]
    """The coarsest first, where several cover the same picture."""
    views: tuple[Image.Image, ...]
    """What each grid's encoder saw, de-normalised: for a grid over several tiles, the tiles side by side, cut to its patches."""
    regions: tuple[Region, ...] = ()

    @property
    def placed(self) -> set[int]:
        """Positions of all image tokens that show something of the picture."""
        parts: list[PatchGrid | Region] = [*self.grids, *self.regions]
        return {position for part in parts for position in part.positions.flatten().tolist()}


def even(count: int, end: float, start: float = 0) -> list[tuple[float, float]]:
    """Edges of `count` equal pieces from `start` to `end`."""
    cuts = [start + (end - start) * i / count for i in range(count + 1)]
    return list(itertools.pairwise(cuts))
