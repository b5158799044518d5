"""How far an SAE can be believed on some tokens: what it rebuilds of them and with how many features, beside its own figures."""

from dataclasses import dataclass
from typing import Any

import torch

from .sae import Sae, SaeMetrics, SparseActs

_POOR, _UNLIKE = 0.5, 0.2  # explained variance below this; or that much below the SAE's own
_ROUNDING = 1e-9  # share of the sum of squares that equal tokens may seem to differ by


@dataclass(frozen=True)
class ReconstructionFit:
    """How well an SAE rebuilds the tokens of one kind of this input."""

    kind: str
    """"image" or "text"."""
    tokens: int
    explained_variance: float | None
    """1 - sum|x - x_hat|^2 / sum|x - mean x|^2; 1 is perfect, 0 no better than the mean; None for fewer than two different tokens."""
    l0: float
    """Active features per token."""
    active_share: float
    """Share of all features that are active on at least one of these tokens."""
    trained: SaeMetrics | None
    """The SAE's own figures on the data it was trained for, where known."""

    @property
    def verdict(self) -> str:
        """A plain sentence where the fit is poor, else ""."""
        explained, own = self.explained_variance, self.trained.explained_variance if self.trained else None
        if explained is None:
            return ""
        if explained < 0:
            return f"On these {self.kind} tokens the SAE is worse than their mean: do not believe its features here."
        if explained < _POOR:
            return f"The SAE explains only {explained:.0%} of what these {self.kind} tokens hold: take its features as hints."
        if own is not None and explained < own - _UNLIKE:
            return f"The SAE explains {explained:.0%} of these {self.kind} tokens, well below the {own:.0%} of its own data: this input is unlike it."
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        own = self.trained
        return {
            "tokens": self.tokens,
            "explained_variance": self.explained_variance,
            "l0": self.l0,
            "active_share": self.active_share,
            "trained": None if own is None else {"explained_variance": own.explained_variance, "l0": own.l0},
            "verdict": self.verdict,
        }


def measure(kind: str, states: torch.Tensor, acts: SparseActs, sae: Sae) -> ReconstructionFit:
    """The quality of `acts` as a description of `states` [tokens, d_in], one token at least."""
    x = states.float()
    spread = (x - x.mean(0)).pow(2).sum().item()
    error = (x - sae.decode(acts)).pow(2).sum().item()
    return ReconstructionFit(
        kind=kind,
        tokens=len(x),
        explained_variance=1 - error / spread if spread > _ROUNDING * x.pow(2).sum().item() else None,
        l0=len(acts.features) / len(x),
        active_share=len(acts.features.unique()) / sae.d_sae,
        trained=sae.trained.get(kind) or sae.trained.get("all"),
    )
