"""Putting activations in order by feature where they come in groups that are: a picture's into its chunk, a chunk's into the cache.

A counting sort: it needs no memory but for the result and one group.
"""

import torch
import torch.nn.functional as F


class Places:
    """Where the entries of each group belong among all, by feature; those of one feature stay in the order in which they come."""

    def __init__(self, counts: torch.Tensor) -> None:
        """`counts` [features]: entries of each in all groups together."""
        self.starts = F.pad(counts.cumsum(0), (1, 0))
        """Where each feature's entries begin, and the end of the last: int64 [features + 1]."""
        self._free = self.starts[:-1].clone()

    def of(self, features: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """The places of the next group, which has so many entries of each of these features, both ascending: int64 [entries]."""
        rows = features.long()
        at = torch.repeat_interleave(self._free[rows] - (counts.cumsum(0) - counts), counts)
        self._free[rows] += counts
        return at.add_(torch.arange(len(at)))
