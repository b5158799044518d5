"""How well an SAE reconstructs some tokens, and with how many features, compared with its published metrics."""

from dataclasses import dataclass
from typing import Any

import torch

from .sae import Sae, SaeMetrics, SparseActs

_POOR, _UNLIKE = 0.5, 0.2  # explained variance below this, or this much below the SAE's own
_ROUNDING = 1e-9  # relative to the sum of squares: a smaller spread is rounding, so all tokens are equal


@dataclass(frozen=True)
class ReconstructionFit:
    """How well an SAE reconstructs the tokens of one kind in this input."""

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
    """The SAE's metrics on the data it was trained for, if known."""

    @property
    def verdict(self) -> str:
        """A warning if the fit is poor, else ""."""
        explained, own = self.explained_variance, self.trained.explained_variance if self.trained else None
        if explained is None:
            return ""
        if explained < 0:
            return f"On these {self.kind} tokens the SAE does worse than their mean: do not trust its features here."
        if explained < _POOR:
            return f"The SAE explains only {explained:.0%} of the variance of these {self.kind} tokens: treat its features as hints."
        if own is not None and explained < own - _UNLIKE:
            return f"The SAE explains {explained:.0%} of these {self.kind} tokens, well below the {own:.0%} of its training data: this input is unlike it."
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
    """How well `acts` reconstruct `states` [tokens, d_in], at least one token."""
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
