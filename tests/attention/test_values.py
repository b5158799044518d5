"""The matrix behind a linear layer, however it is stored; and attention that has no norm for each value."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from interp.attention.values import matrix, value_norms


class Adapted(nn.Module):
    """As an adapter library wraps a layer: its `weight` is that of the layer inside."""

    def __init__(self, base):
        super().__init__()
        self.base, self.in_features = base, base.in_features
        self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    @property
    def weight(self):
        return self.base.weight

    def forward(self, states):
        return self.base(states) + self.up(self.down(states))


def test_a_plain_layer_is_read_and_an_adapted_one_applied():
    base = nn.Linear(6, 4)
    adapted = Adapted(base)
    assert matrix(base, torch.ones(1)) is base.weight
    with torch.no_grad():
        torch.testing.assert_close(matrix(adapted, torch.ones(1)), base.weight + adapted.up.weight @ adapted.down.weight)


@pytest.mark.parametrize("used", [False, True])
def test_a_4_bit_layer_is_unpacked(load, used):
    layer = load("crop", "4bit").blocks[0].self_attn.o_proj
    identity = torch.eye(layer.in_features)
    with torch.no_grad():
        if used:
            layer(identity)
        found = matrix(layer, identity).float()
        torch.testing.assert_close(found, layer(identity).T, atol=1e-3, rtol=1e-2)


def test_gated_and_unknown_attention_has_no_norms():
    ones = torch.ones(1, 2, 3, 4)
    for projections in (
        {"q_proj": nn.Linear(8, 16), "o_proj": nn.Linear(8, 8)},
        {"q_proj": nn.Linear(8, 8), "o_proj": nn.Linear(7, 8)},
        {"qkv": nn.Linear(8, 24)},
    ):
        assert value_norms(SimpleNamespace(query=ones, value=ones, module=SimpleNamespace(**projections))) is None
