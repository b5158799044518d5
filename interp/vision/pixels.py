"""What every patch builder needs: where the image tokens are, and the encoder's pixels as a picture again. Knows no family."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import InterpError

Tensors = Mapping[str, torch.Tensor]


def image_positions(config: Any, inputs: Tensors) -> torch.Tensor:
    """Positions that hold the image token."""
    return (inputs["input_ids"][0] == config.image_token_id).nonzero().flatten().cpu()


def expect(positions: torch.Tensor, count: int, what: str) -> None:
    """Raise InterpError unless there are so many image tokens."""
    if len(positions) != count:
        raise InterpError(
            f"{len(positions)} image tokens do not fit {what}; this checkpoint's processor "
            "(patch_size, vision_feature_select_strategy, image_seq_length, …) does not match its vision tower."
        )


def assembled(tiles: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    """Tiles [rows * cols, 3, height, width], row by row, side by side: [3, rows * height, cols * width]."""
    _, channels, height, width = tiles.shape
    return tiles.view(rows, cols, channels, height, width).permute(2, 0, 3, 1, 4).reshape(channels, rows * height, cols * width)


def denormalise(pixels: torch.Tensor, processor: Any) -> Image.Image:
    """[3, height, width] as the vision tower gets it, as a picture again."""
    values = pixels.detach().float().cpu()
    if processor.do_normalize:
        mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
        values = values * std[:, None, None] + mean[:, None, None]
    if processor.do_rescale:
        values = values / processor.rescale_factor
    return Image.fromarray(values.permute(1, 2, 0).round().clamp(0, 255).numpy().astype(np.uint8))
