"""A random SAE for the tiny models, and a tiny model that is linear behind layer 0."""

from typing import Any

import torch
from torch import nn

import interp
from interp.saes.labels.labels import Labels
from tests import tiny

WIDTH, FEATURES = 64, 96


def sae(layer: int = 0, *, k: int | None = None, features: int = FEATURES, **more: Any) -> interp.Sae:
    """ReLU with about a tenth of its features active, or TopK."""
    make = torch.Generator().manual_seed(0)
    encoder, decoder, bias, center = (
        torch.randn(*shape, generator=make) for shape in ((WIDTH, features), (features, WIDTH), (features,), (WIDTH,))
    )
    activation: Any = "relu" if k is None else "topk"
    return interp.Sae(
        "random", "", layer, encoder / 8, bias / 8 - 1.2, decoder / 8, center / 8, activation, k=k, labels=Labels({}, ""), **more
    )


class Scaled(nn.Module):
    """In the place of a norm: linear."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states * self.weight


def linear_vlm() -> interp.Vlm:
    """Every row behind layer 0 reads the mean of the rows before it, through linear maps only."""
    model, processor = tiny.build("crop")
    decoder = model.get_decoder()
    decoder.norm = Scaled(decoder.norm.weight)
    with torch.no_grad():
        for block in decoder.layers[1:]:
            block.input_layernorm = Scaled(block.input_layernorm.weight)
            block.self_attn.q_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return interp.Vlm(model, processor)
