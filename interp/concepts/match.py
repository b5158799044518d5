"""Matching two sets of directions, and what follows from it: how stable concepts are over seeds."""

import torch
from torch.nn.functional import normalize


def cosines(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Cosine of every row of `one` [N, d] with every row of `other` [M, d]: float32 [N, M]."""
    return normalize(one.float(), dim=1) @ normalize(other.float(), dim=1).T


def matched(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """For each row of `one`, the row of `other` it is paired with so that the cosines sum to the most (Hungarian method): int64 [N].

    Both must have as many rows: every row is used once.
    """
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - slow to import, and needed by nothing else

    _, columns = linear_sum_assignment(-cosines(one, other).double().numpy())
    return torch.from_numpy(columns)


def agreement(one: torch.Tensor, others: list[torch.Tensor]) -> torch.Tensor:
    """For each row of `one`, the mean cosine with its match in each of `others`: float32 [N]."""
    found = [cosines(one, other).gather(1, matched(one, other)[:, None])[:, 0] for other in others]
    return torch.stack(found).mean(0)
