"""Helpers for the layouts of all families: positions of image tokens, and the encoder's input turned back into a picture."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import InterpError

Tensors = Mapping[str, torch.Tensor]


def image_positions(config: Any, inputs: Tensors) -> torch.Tensor:
    """Positions of the image token: int64 [n]."""
    ids = inputs["input_ids"][0]
    return torch.nonzero(ids == config.image_token_id).flatten().cpu()


def expect(positions: torch.Tensor, count: int, what: str) -> None:
    """Raise InterpError unless there are `count` image tokens. `what` describes what they should cover."""
    if len(positions) != count:
        raise InterpError(
            f"{len(positions)} image tokens do not fit {what}: the processor's settings (patch_size, vision_feature_select_strategy, "
            "image_seq_length, …) do not match the vision tower. Use the checkpoint's own processor."
        )


def assembled(tiles: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    """Tiles [rows * cols, 3, height, width], in row-major order, as one picture [3, rows * height, cols * width]."""
    _, channels, height, width = tiles.shape
    return tiles.view(rows, cols, channels, height, width).permute(2, 0, 3, 1, 4).reshape(channels, rows * height, cols * width)


def denormalise(pixels: torch.Tensor, processor: Any) -> Image.Image:
    """The vision tower's input [3, height, width] turned back into a picture."""
    values = pixels.detach().float().cpu()
    if processor.do_normalize:
        mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
        values = values * std[:, None, None] + mean[:, None, None]
    if processor.do_rescale:
        values = values / processor.rescale_factor
    return Image.fromarray(values.permute(1, 2, 0).round().clamp(0, 255).numpy().astype(np.uint8))
