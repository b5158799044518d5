"""How much a head takes from a position if it looks there: the norm of the position's value behind the head's slice of the output projection.

|A V W_O| is what attention moves, where A alone is where it points (Kobayashi et al. 2020, "Attention is Not Only a Weight").
"""

from typing import Any

import torch
from torch import nn

from ..models.attend import Heads
from ..models.four_bit import unpacked

_HEADS = 8  # worked on together: little memory beside the rows of attention, few kernels on a GPU


def value_norms(heads: Heads) -> torch.Tensor | None:
    """|V_h[k] W_O,h| of every head and position: float32 [heads, K].

    None if there is no such number: the attention gates its output behind the values (Qwen3.5), or has no `o_proj` of one slice per head.

    Through the Gram matrix of each slice, so that nothing of [heads, K, d] is formed.
    """
    count, width = heads.query.shape[1], heads.value.shape[-1]
    module: Any = heads.module
    queries, output = (getattr(module, name, None) for name in ("q_proj", "o_proj"))
    gated = queries is not None and queries.out_features == 2 * count * heads.query.shape[-1]  # the second half is the gate
    if gated or output is None or output.in_features != count * width:
        return None
    slices = matrix(output, heads.value).view(-1, count, width).transpose(0, 1)  # [heads, d, width]
    value, shared = heads.value[0], count // heads.value.shape[1]
    norms = []
    for part in torch.arange(count, device=value.device).split(_HEADS):
        weight, read = slices[part[0] : part[-1] + 1].float(), value[part // shared].float()
        norms.append(((read @ (weight.transpose(1, 2) @ weight)) * read).sum(-1).clamp(min=0).sqrt())
    return torch.cat(norms)


def matrix(linear: Any, like: torch.Tensor) -> torch.Tensor:
    """The matrix [out, in] that a linear layer applies to inputs such as `like`; one with adapters is read by applying it."""
    if type(linear) is nn.Linear:
        return linear.weight
    own = dict(linear.named_parameters(recurse=False)).get("weight")  # an adapter shows its base layer's
    if getattr(own, "quant_state", None) is not None:
        return unpacked(linear)
    identity = torch.eye(linear.in_features, dtype=like.dtype, device=like.device)
    found: torch.Tensor = linear(identity) - linear(torch.zeros_like(identity[:1]))
    return found.T.contiguous()
