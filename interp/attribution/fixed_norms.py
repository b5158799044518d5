"""Gradients through norms whose scale is held fixed, as if each were a linear map (LN rule; RelP, Jafari et al. 2025).

The plain gradient of a norm is blind along the state itself: making the whole state longer changes nothing. A feature that is a large part of
the state then gets nearly no score, although without it the answer is another. With the scale fixed the gradient says what each part of the
state contributes at this scale.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def fixed_norms(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block, gradients through every norm in `modules` take its scale for a constant. Outputs stay the same."""
    norms = {norm for module in modules for norm in module.modules() if type(norm).__name__.endswith("Norm")}
    handles = [norm.register_forward_hook(_with_fixed_scale) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with_fixed_scale(norm: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
    states = args[0]
    if not (torch.is_grad_enabled() and states.requires_grad):
        return None
    wide: Any = states.float()
    if "LayerNorm" in type(norm).__name__:  # which subtracts the mean first
        wide = wide - wide.mean(-1, keepdim=True)
    scale = wide.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    bias = getattr(norm, "bias", None)
    steady = output if bias is None else output - bias
    return output + steady * (scale / scale.detach() - 1).to(output.dtype)  # adds 0, with the gradient that undoes the scale's own
