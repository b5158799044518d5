"""Gradients through 4-bit layers, whichever way bitsandbytes has packed them for this processor."""

import pytest
import torch

from interp.models.four_bit import _is_packed, differentiable, unpacked
from tests import tiny
from tests.conftest import PROMPT


@pytest.fixture(scope="module")
def layers(load):
    """Those of the first block, after a plain pass."""
    vlm = load("crop", "4bit")
    vlm.trace(tiny.noise(60, 60), PROMPT, max_new_tokens=2)
    return [layer for layer in vlm.blocks[0].modules() if type(layer).__name__ == "Linear4bit"]


def weights_of(layer):
    """Each column is what the layer makes of a one in one place."""
    with torch.no_grad():
        return layer(torch.eye(layer.in_features)).T


def test_the_gradient_is_that_of_the_weights(layers):
    assert len(layers) == 7
    for layer in layers:
        states = torch.randn(2, 5, layer.in_features, requires_grad=True)
        above = torch.randn(2, 5, layer.out_features)
        with differentiable([layer]):
            out = layer(states)
        (gradient,) = torch.autograd.grad(out, states, above)
        torch.testing.assert_close(gradient, above @ weights_of(layer), atol=2e-2, rtol=2e-2)
        with torch.no_grad():
            torch.testing.assert_close(out, layer(states.detach()))


def test_packed_weights_are_unpacked_exactly(layers):
    packed = [layer for layer in layers if _is_packed(layer)]
    if not packed:
        pytest.skip("this processor has no bfloat16 instructions, so nothing is packed")
    for layer in packed:
        torch.testing.assert_close(unpacked(layer).float(), weights_of(layer).float(), atol=1e-3, rtol=1e-2)


def test_nothing_stays_behind(layers):
    with pytest.raises(ValueError, match="on purpose"), differentiable(layers):
        raise ValueError("on purpose")
    assert not any(layer._forward_hooks for layer in layers)
