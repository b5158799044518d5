"""The weights of 4-bit layers, and gradients through them on a CPU.

bitsandbytes packs its weights anew for processors with bfloat16 instructions as soon as they are used without a gradient, and its kernel for
those weights has none: torch warns, and what comes back is wrong.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

_TOGETHER = 32  # rows of the weight matrix, and numbers in half a row, that are packed side by side


@contextlib.contextmanager
def differentiable(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block, gradients flow through every 4-bit layer inside `modules` to its input."""
    handles = [
        layer.register_forward_hook(_with_gradient)
        for module in modules
        for layer in module.modules()
        # Its own weight: an adapter around it shows that too, and its gradient is more than that of its base.
        if getattr(dict(layer.named_parameters(recurse=False)).get("weight"), "quant_state", None) is not None
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with_gradient(layer: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
    if not (torch.is_grad_enabled() and args[0].requires_grad and _is_packed(layer)):
        return None
    found: torch.Tensor = _Linear.apply(args[0], output.detach(), layer)  # type: ignore[no-untyped-call]
    return found


class _Linear(torch.autograd.Function):
    """What a packed layer returned, with the gradient that its kernel lacks. The weights are unpacked when it is needed, one layer at a time."""

    @staticmethod
    def forward(ctx: Any, _states: torch.Tensor, output: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        ctx.layer = layer
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *above: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return above[0] @ unpacked(ctx.layer).to(above[0].dtype), None, None


def unpacked(layer: Any) -> torch.Tensor:
    """The weights of a 4-bit layer: [out, in], bfloat16 if they are packed for a processor."""
    state = layer.weight.quant_state
    if not _is_packed(layer):
        from bitsandbytes.functional import dequantize_4bit  # noqa: PLC0415 - slow to import, and only such layers need it

        plain: torch.Tensor = dequantize_4bit(layer.weight.data, state)
        return plain
    packed = layer.weight.data.view(torch.uint8)
    rows, columns = state.shape
    codes = packed.reshape(-1, _TOGETHER)
    codes = torch.cat([codes & 0xF, codes >> 4], dim=-1)  # of (block of rows, pair of columns): row by row, both columns
    codes = codes.view(rows // _TOGETHER, columns // 2, _TOGETHER, 2).transpose(1, 2).reshape(rows, columns)
    scales = state.absmax.T.repeat_interleave(state.blocksize, dim=1)
    return state.code.to(torch.bfloat16)[codes.int()] * scales


def _is_packed(layer: Any) -> bool:
    return getattr(layer.weight.quant_state, "packing_format_for_cpu", False)
