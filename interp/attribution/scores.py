"""The first-order effect of every active feature at every position, from one gradient.

A state is x = shift + (b_dec + sum_f z_f d_f) / scale + e, where shift and scale undo the SAE's normalisation and e is what the SAE misses.
With g = dm/dx this splits <g, x> into one score for each feature, one for the error e and one for the bias, shift + b_dec / scale, which is
the same whatever is active. Shift and scale are held fixed.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ..saes.features import Encoding
from ..saes.sae import Sae, SparseActs
from ..tracing.select import grid_of


@dataclass(frozen=True, eq=False)
class Scores:
    """a_f[p] = z_f[p] <g[p], d_f> / scale[p] for the active features at every position up to the row that emits the word; else 0."""

    encoding: Encoding
    features: torch.Tensor
    """int64 [entries]"""
    positions: torch.Tensor
    """int64 [entries], ascending."""
    values: torch.Tensor
    """float32 [entries]"""
    error: torch.Tensor
    """<g, e> at each position: float32 [T]."""
    bias: torch.Tensor
    """<g, shift + b_dec / scale> at each position: float32 [T]."""

    def of(self, feature: Any) -> torch.Tensor:
        """A feature's score at every position: float32 [T]. Raises InterpError if there is no such feature."""
        out = torch.zeros(self.encoding.trace.length)
        here = self.features == self.encoding.sae.check(feature)
        out[self.positions[here]] = self.values[here]
        return out

    def map(self, feature: Any, grid: int = 0) -> torch.Tensor:
        """A feature's score on each patch: float32 [rows, cols]. Raises InterpError if there is no such feature or grid."""
        return self.of(feature)[grid_of(self.encoding.trace, grid).positions]

    def at(self, positions: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The entries at these positions: features, positions and values."""
        wanted = torch.zeros(self.encoding.trace.length, dtype=torch.bool)
        wanted[positions] = True
        here = wanted[self.positions]
        return self.features[here], self.positions[here], self.values[here]

    def summed(self, positions: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The features active at these positions, ascending, and the sum of each one's scores there: float32."""
        features, _, values = self.at(positions)
        found, index = features.unique(return_inverse=True)
        return found, torch.zeros(len(found)).index_add_(0, index, values)


def scores(encoding: Encoding, gradient: torch.Tensor, row: int) -> Scores:
    """The scores of everything active up to position `row`, given dm/dx there: `gradient` [T, d]."""
    sae, acts = encoding.sae, encoding.acts
    gradient = gradient.clone()
    gradient[row + 1 :] = 0
    end = int(acts.offsets[row + 1])
    features, positions = acts.features[:end].long(), acts.tokens[:end]
    values = acts.values[:end] * along(sae, acts, gradient[: row + 1]) / acts.scale[positions, 0]
    wide = gradient.double()
    whole = (wide * encoding.trace.residual(sae.layer)).sum(-1)
    bias = (wide * bias_of(sae, acts)).sum(-1)
    error = (whole - bias).index_add(0, positions, -values.double())
    return Scores(encoding, features, positions, values, error.float(), bias.float())


def bias_of(sae: Sae, acts: SparseActs) -> torch.Tensor:
    """What is left of the reconstruction when no feature is active: float32 [T, d]."""
    return sae.b_dec.float().cpu() / acts.scale + acts.shift


def along(sae: Sae, acts: SparseActs, gradient: torch.Tensor) -> torch.Tensor:
    """<gradient[t], d_f> for every active feature f of the first tokens t: float32 [entries] on the CPU, for `gradient` [tokens, d].

    It is the gradient of a sum of decoder rows by their weights, for which torch has a kernel that gathers no rows.
    """
    out = torch.empty(int(acts.offsets[len(gradient)]))
    for tokens, entries, table, features, bags in sae.bags(acts, len(gradient)):
        if not len(features):
            continue
        with torch.enable_grad():
            weights = torch.ones(len(features), device=table.device, requires_grad=True)
            summed = F.embedding_bag(features, table, bags, mode="sum", per_sample_weights=weights)
        (found,) = torch.autograd.grad(summed, weights, gradient[tokens].to(table.device))
        out[entries] = found.cpu()
    return out
