"""The decoder's attention, seen from inside: read its weights, narrow its mask, or compute it explicitly, for the length of a `with` block.

A function registered with transformers takes the place of the model's own. It runs scaled_dot_product_attention, as the model does, and computes
softmax rows only where they are asked for: `output_attentions=True` would keep layers x heads x T x T numbers and forbids fast kernels.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..errors import InterpError

if TYPE_CHECKING:
    from .vlm import Vlm

_NAME = "interp"


@dataclass(frozen=True)
class Heads:
    """The arguments of one layer's attention: B rows of a batch, H query heads, T queries, K >= T keys.

    Keys are those of the whole sequence up to the last query, whether they come from a cache or not: query i stands at position K - T + i.
    """

    layer: int
    query: torch.Tensor
    """[B, H, T, width], after the position embedding."""
    key: torch.Tensor
    """[B, H_kv, K, width], after the position embedding."""
    value: torch.Tensor
    """[B, H_kv, K, width]"""
    mask: torch.Tensor | None
    """True where a query may read a key: bool [1 or B, 1, T, K]. None: every query reads itself and what stands before it."""
    scaling: float
    soft_cap: float | None
    module: nn.Module
    """The attention module, with its output projection."""

    @property
    def first(self) -> int:
        """Position of the first query."""
        return self.key.shape[2] - self.query.shape[2]

    def visible(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """`mask`, written out, of the queries numbered `rows`, or of all: bool [1 or B, 1, rows, K]."""
        if self.mask is not None:
            return self.mask if rows is None else self.mask[:, :, rows]
        device, queries, keys = self.query.device, self.query.shape[2], self.key.shape[2]
        rows = torch.arange(queries, device=device) if rows is None else rows % queries
        return (torch.arange(keys, device=device) <= rows[:, None] + self.first)[None, None]

    def weights(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """softmax(scaling * query key^T + mask) of the queries numbered `rows`, or of all: float32 [B, H, rows, K]."""
        query, mask = self.query if rows is None else self.query[:, :, rows], self.visible(rows)
        batch, heads, count, width = query.shape
        key = self.key.float()
        grouped = query.float().reshape(batch, key.shape[1], -1, width)  # the heads that share a key, side by side
        scores = (grouped @ key.transpose(2, 3) * self.scaling).view(batch, heads, count, -1)
        if self.soft_cap is not None:
            scores = torch.tanh(scores / self.soft_cap) * self.soft_cap
        return scores.masked_fill(~mask, -torch.inf).softmax(-1)

    def output(self, weights: torch.Tensor) -> torch.Tensor:
        """What attention with these weights [B, H, T, K] returns: [B, T, H, width]."""
        value = repeat_kv(self.value, self.query.shape[1] // self.value.shape[1])
        return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous()


Read = Callable[[Heads], torch.Tensor | None]
"""Called with each layer's attention. Returned weights [B, H, T, K] are used as they are; for None the fast kernel runs."""
Mask = Callable[[Heads], torch.Tensor | None]
"""Called first. Returns the mask that takes the place of `Heads.mask`, or None to leave it."""


@dataclass(frozen=True)
class _Attending:
    layers: dict[nn.Module, int]
    read: Read | None
    mask: Mask | None


_NOW: ContextVar[_Attending | None] = ContextVar("interp_attention", default=None)


@contextlib.contextmanager
def attending(vlm: "Vlm", *, read: Read | None = None, mask: Mask | None = None) -> Iterator[None]:
    """Within the block, every attention of the decoder is seen by `mask`, then by `read`. The caller holds `vlm.lock`.

    Raises InterpError, naming the class, for a decoder whose attention cannot be replaced.
    """
    decoder = vlm.decoder
    own = decoder.config._attn_implementation  # noqa: SLF001 - it has no public name
    layers = {module: layer for layer, block in enumerate(vlm.blocks) for module in block.modules()}
    token = _NOW.set(_Attending(layers, read, mask))
    try:
        decoder.set_attn_implementation(_NAME)
        if decoder.config._attn_implementation != _NAME:  # noqa: SLF001
            raise InterpError(f"The attention of {type(decoder).__name__} cannot be replaced, so its weights cannot be read.")
        yield
    finally:
        _NOW.reset(token)
        decoder.set_attn_implementation(own)


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    now = _NOW.get()
    layer = None if now is None else now.layers.get(module)
    if layer is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, softcap=softcap, **more)
    assert now is not None
    heads = Heads(layer, query, key, value, attention_mask, scaling, softcap, module)
    if now.mask is not None and (new := now.mask(heads)) is not None:
        heads = replace(heads, mask=new)
    weights = now.read(heads) if now.read is not None else None
    if weights is None and softcap is not None:  # which the fast kernel does not know
        weights = heads.weights()
    if weights is not None:
        return heads.output(weights), None
    return sdpa_attention_forward(module, query, key, value, heads.mask, scaling=scaling, **more)


AttentionInterface.register(_NAME, _attend)
# Without a mask function of the same name transformers passes no mask at all: wrong for sliding windows and two-way attention on pictures.
AttentionMaskInterface.register(_NAME, sdpa_mask)
