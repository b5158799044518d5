"""Which image token is which piece of the picture: one builder for each architecture family.

Follows what the image processor does to the picture (resize, centre crop, pad, stretch), from its settings and the picture's size.
Knows nothing of prompts and residuals.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from .errors import InterpError

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels of the upright original picture."""


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
        left, top, right, bottom = self.boxes[row, col].tolist()
        return left, top, right, bottom


@dataclass(frozen=True)
class Layout:
    """How one picture became image tokens."""

    grids: tuple[PatchGrid, ...]
    views: tuple[Image.Image, ...]
    """What each grid's encoder saw, de-normalised."""


def llava_layout(config: Any, image_processor: Any, image: Image.Image, inputs: Mapping[str, torch.Tensor]) -> Layout:
    """LLaVA 1.5 and its kin: one square view cut into rows of patches, one token each.

    A patch of `patch_size` pixels of the view is mapped back through the processor's steps. Patches are counted from the corner: where the
    view is no multiple of the patch (384 = 27 x 14 + 6), a strip at the right and the bottom has no token.
    """
    vision = config.vision_config
    pixels = inputs["pixel_values"]
    view_height, view_width = pixels.shape[-2:]
    patch = vision.patch_size
    rows, cols = view_height // patch, view_width // patch
    scale_x, scale_y, offset_x, offset_y = _resize_rule(image_processor, image.size, (view_width, view_height))
    positions = _image_positions(config, inputs)
    if len(positions) != rows * cols:
        raise InterpError(
            f"{len(positions)} image tokens do not fit a grid of {rows} x {cols} patches; "
            f"this checkpoint's processor (patch_size, vision_feature_select_strategy) does not match its vision tower."
        )
    column_edges = ((torch.arange(cols + 1) * patch + offset_x) / scale_x).clamp(0, image.width)
    row_edges = ((torch.arange(rows + 1) * patch + offset_y) / scale_y).clamp(0, image.height)
    boxes = torch.empty(rows, cols, 4)
    boxes[..., 0], boxes[..., 2] = column_edges[:-1], column_edges[1:]
    boxes[..., 1], boxes[..., 3] = row_edges[:-1, None], row_edges[1:, None]
    grid = PatchGrid("whole picture", positions.view(rows, cols), boxes)
    return Layout((grid,), (denormalise(pixels.reshape(-1, *pixels.shape[-3:])[0], image_processor),))


def _resize_rule(processor: Any, size: tuple[int, int], view: tuple[int, int]) -> tuple[float, float, float, float]:
    """(scale_x, scale_y, offset_x, offset_y) so that a view pixel v shows picture pixel (v + offset) / scale."""
    width, height = size
    padding_x = padding_y = 0
    if getattr(processor, "do_pad", False):  # to a square, the picture in its middle, before the resize
        side = max(size)
        padding_x, padding_y = (side - width) // 2, (side - height) // 2
        width = height = side
    resized = (width, height)
    if processor.do_resize:
        shortest = processor.size.get("shortest_edge")
        if shortest is None:
            resized = (processor.size["width"], processor.size["height"])
        else:
            longest = int(shortest * max(resized) / min(resized))
            resized = (shortest, longest) if width <= height else (longest, shortest)
    scale_x, scale_y = resized[0] / width, resized[1] / height
    # A centre crop takes the middle; where the picture is smaller than the crop, it is padded on both sides by the same rule.
    crop_x, crop_y = (resized[0] - view[0]) // 2, (resized[1] - view[1]) // 2
    return scale_x, scale_y, crop_x - padding_x * scale_x, crop_y - padding_y * scale_y


def _image_positions(config: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return (inputs["input_ids"][0] == config.image_token_id).nonzero().flatten().cpu()


def denormalise(pixels: torch.Tensor, processor: Any) -> Image.Image:
    """[3, height, width] as the vision tower gets it, as a picture again."""
    values = pixels.detach().float().cpu()
    if processor.do_normalize:
        mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
        values = values * std[:, None, None] + mean[:, None, None]
    if processor.do_rescale:
        values = values / processor.rescale_factor
    return Image.fromarray(values.permute(1, 2, 0).round().clamp(0, 255).numpy().astype(np.uint8))


LAYOUTS: dict[str, Callable[..., Layout]] = {"llava": llava_layout}
"""config.model_type → builder. A family that is not listed is refused by `interp.Vlm`."""
