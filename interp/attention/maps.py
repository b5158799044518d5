"""A map over the picture for one word of the answer: what every method of this package returns, and what the scores read."""

from dataclasses import dataclass

import torch

from ..tracing.select import grid_of
from ..tracing.trace import Trace


@dataclass(frozen=True, eq=False)
class PatchMap:
    """One number for every position, for one token of the answer; larger means that the method gives the position more weight."""

    trace: Trace
    token: int
    """Position of the explained token in `trace.tokens`; row `token` - 1 emits it."""
    method: str
    """Such as "attention, mean over heads"."""
    values: torch.Tensor
    """float32 [T] on the CPU; 0 at positions that row `token` - 1 cannot read."""
    note: str
    """What this map does not show, in a sentence."""

    @property
    def row(self) -> int:
        """The position that emits the token."""
        return self.token - 1

    def map(self, grid: int = 0) -> torch.Tensor:
        """The values over one patch grid: float32 [rows, cols]. Raises InterpError if there is no such grid."""
        return self.values[grid_of(self.trace, grid).positions]

    def on_image(self) -> torch.Tensor:
        """The values at the image positions, in order: float32 [image positions]."""
        return self.values[self.trace.positions("image")]
