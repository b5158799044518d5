"""Muon: momentum whose matrix updates are made orthogonal (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

torch ships one, but it runs its Newton-Schulz steps in bfloat16, which is a hundred times slower than float32 on a CPU without bfloat16
instructions. Vectors, embeddings and heads are left to AdamW; `optimizers` splits a model's parameters between the two.
"""

from collections.abc import Iterable

import torch
from torch import nn


def _orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    x: torch.Tensor = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum with orthogonal updates, scaled to the size of AdamW's so that both share one learning rate."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, _closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = _orthogonalise(p.grad.lerp(buffer, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * max(p.shape) ** 0.5)


def optimizers(modules: Iterable[nn.Module], lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for everything else that is trainable."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for module in modules:
        for name, p in module.named_parameters():
            if p.requires_grad:
                hidden = p.ndim == 2 and not any(part in name for part in ("embed", "head"))
                (matrices if hidden else rest).append(p)
    found: list[torch.optim.Optimizer] = [Muon(matrices, lr)] if matrices else []
    return [*found, torch.optim.AdamW(rest, lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)]
