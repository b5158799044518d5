"""Fitting the map of one layer of a trained lens by gradient steps from the identity.

The start matters more than the loss shows. A map by ridge regression reads unseen text about as well, but it misreads image tokens, whose
states are unlike those of any text; a short descent from the identity keeps what the head can read already.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..models.unembed import Unembed
from .translators import Affine

BATCH = 256  # positions in a step
CANDIDATES = 32  # likely next words of each position that a step of the tuned lens compares
NEGATIVES = 2048  # random words that a step of the token lens compares
RATE = 1e-3  # of Adam, for inputs and outputs of unit variance; three times this for a low rank, whose product starts at zero
WARM_UP = 10  # steps
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(moved states [n, d], their rows [n]) -> loss."""


def fit(states: torch.Tensor, loss: Loss, rank: int | None, steps: int, seed: int) -> Affine:
    """The map of `states` [N, d] after `steps` of Adam; a full matrix, or two factors of this rank.

    Each dimension is scaled to unit variance, so that the few with very large values do not rule.
    """
    make = torch.Generator().manual_seed(seed)
    width, size = states.shape[1], states.std().item()
    scale = states.std(0).clamp(min=1e-6 * size)
    bias = torch.zeros(width)
    if rank is None or rank >= width:
        free = [torch.zeros(width, width), bias]
        rates = [RATE * size, RATE * size]
    else:
        free = [torch.zeros(width, rank), bias, torch.randn(rank, width, generator=make) / width**0.5]
        rates = [3 * RATE * size, RATE * size, 3 * RATE]
    free = [part.requires_grad_() for part in free]
    optimizer = torch.optim.Adam([{"params": [part], "lr": rate} for part, rate in zip(free, rates, strict=True)])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARM_UP) * (1 - step / max(1, steps)))

    def current() -> Affine:
        return Affine(free[0] / scale, free[1]) if len(free) == 2 else Affine(free[0], free[1], free[2] / scale)

    for _ in range(steps):
        rows = torch.randint(len(states), (BATCH,), generator=make)
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss(current()(states[rows]), rows), free)
        for part, gradient in zip(free, gradients, strict=True):
            part.grad = gradient
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return current()


def next_word_loss(unembed: Unembed, final: torch.Tensor, likely: torch.Tensor) -> Loss:
    """KL from the model's own distribution, over the words that are `likely` [N, CANDIDATES] after one of the batch's positions."""

    def loss(moved: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        words = likely[rows].unique()
        with torch.no_grad():
            own = unembed.wide_logits(final[rows], words).log_softmax(-1)
        read = unembed.wide_logits(moved, words).log_softmax(-1)
        return F.kl_div(read, own, log_target=True, reduction="batchmean")

    return loss


def own_token_loss(unembed: Unembed, ids: torch.Tensor, words: int) -> Loss:
    """Cross-entropy to the token of each position, against the batch's other tokens and `NEGATIVES` random ones of `words`."""

    def loss(moved: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        target = ids[rows]
        make = torch.Generator().manual_seed(int(rows.sum()))  # the same for the same batch, wherever the run was resumed
        among = torch.cat([target, torch.randperm(words, generator=make)[:NEGATIVES]]).unique()
        logits = unembed.wide_logits(moved, among)
        return F.cross_entropy(logits, torch.searchsorted(among, target).to(logits.device))

    return loss
