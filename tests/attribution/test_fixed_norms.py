"""Norms whose scale is held fixed are linear maps, and what leaves them stays the same."""

import pytest
import torch
from torch import nn
from transformers.models.cohere2.modeling_cohere2 import Cohere2LayerNorm
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from interp.attribution.fixed_norms import fixed_norms


@pytest.mark.parametrize("make", [LlamaRMSNorm, Gemma3RMSNorm, nn.LayerNorm, Cohere2LayerNorm])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_is_that_of_a_linear_map(make, dtype):
    torch.manual_seed(0)
    norm = make(8).to(dtype)
    with torch.no_grad():
        for part in norm.parameters():
            part.copy_(torch.randn(8))
    states, above = torch.randn(3, 8, dtype=dtype), torch.randn(3, 8, dtype=dtype)
    plain = norm(states)
    states.requires_grad_()
    with fixed_norms([nn.Sequential(norm)]):
        out = norm(states)
        (gradient,) = torch.autograd.grad(out, states, above)
    torch.testing.assert_close(out, plain)
    # A linear map returns its output, less its bias, for the state itself: <g, x> = <above, y - bias>.
    bias = getattr(norm, "bias", None)
    expected = (above * (plain if bias is None else plain - bias)).sum(-1)
    close = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.2, "rtol": 0.05}
    torch.testing.assert_close((gradient * states).sum(-1), expected, **close)
    assert not norm._forward_hooks


def test_it_is_the_weight_over_the_root_mean_square():
    norm = LlamaRMSNorm(8, eps=0)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(8.0))
    states, above = torch.randn(3, 8, requires_grad=True), torch.randn(3, 8)
    with fixed_norms([norm]):
        (gradient,) = torch.autograd.grad(norm(states), states, above)
    torch.testing.assert_close(gradient, above * norm.weight.detach() / states.detach().pow(2).mean(-1, keepdim=True).sqrt())
