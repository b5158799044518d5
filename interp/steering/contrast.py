"""Contrast vectors: directions to steer along without an SAE, from two sets of pictures with prompts.

Difference of mean residuals, as in Turner et al. 2023 (activation addition), Rimsky et al. 2024 (contrastive activation addition) and
Parekh et al. 2024 (concepts of vision-language models).
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..errors import InterpError
from ..models.vlm import Vlm
from ..tracing.select import plain_where, select, sinks
from ..tracing.trace import Trace, checked_layer
from ..validation import instance, sequence, shown, text
from .edits import Contrast

FOLDS = 5
_ROUNDING = 1e-5  # of a state's norm: what lies closer than this differs by rounding alone
Example = tuple[Any, str]


def contrast_vector(vlm: Vlm, positives: Sequence[Example], negatives: Sequence[Example], layer: int, *, where: Any = "image") -> Contrast:
    """Mean residual after `layer` of the positives minus that of the negatives, each a (picture, prompt).

    `where`: the tokens averaged in each, as in `tracing.select`; "answer" is the last prompt position, which predicts the answer's
    first token. BOS and attention sinks are left out. In most models the prompt follows the picture: image tokens do not know it, so sets that
    differ only in the prompt need "prompt" or "answer". If the means differ by no more than rounding, the vector is zero.

    Its `auroc` says whether the direction means anything. It is cross-validated (five folds): no example is scored along a direction that it
    contributed to.

    Raises InterpError for fewer than two examples on either side, an example that is not a pair, and a layer that does not exist.
    """
    instance("vlm", vlm, Vlm, "a Vlm, as interp.load(...) returns")
    layer = checked_layer(layer, vlm.name, vlm.n_layers)
    where = where if isinstance(where, str) and where == "answer" else plain_where(where)
    sides = [_checked("positives", positives), _checked("negatives", negatives)]
    means = [_means(vlm, examples, layer, where) for examples in sides]
    up, down = (states for states, _ in means)
    return contrast_of(up, down, layer, vlm.name, means[0][1], eps=torch.finfo(vlm.model.dtype).eps)


def contrast_of(up: torch.Tensor, down: torch.Tensor, layer: int, model_name: str, where: str, *, eps: float = _ROUNDING) -> Contrast:
    """The mean of `up` [N, d] minus that of `down` [M, d], float32 states of at least two examples each, with its cross-validated AUROC.

    `eps`: the rounding of the dtype in which the states were computed, relative.
    """
    whole = up.mean(0) - down.mean(0)
    if whole.norm() <= max(_ROUNDING, eps) * up.mean(0).norm():  # scaled to a strength, it would push along noise
        return Contrast(torch.zeros_like(whole), layer, model_name, where, 0.5, (len(up), len(down)))
    scores = [torch.empty(len(states)) for states in (up, down)]
    folds = min(FOLDS, len(up), len(down))
    for fold in range(folds):
        held = [torch.arange(len(states)) % folds == fold for states in (up, down)]
        direction = up[~held[0]].mean(0) - down[~held[1]].mean(0)
        # Scores of different folds are compared, so each is measured from the midpoint of its own fold's means.
        middle = (up[~held[0]].mean(0) + down[~held[1]].mean(0)) / 2
        length = direction.norm().clamp(min=torch.finfo(torch.float32).tiny)
        for kept, states, rows in zip(scores, (up, down), held, strict=True):
            kept[rows] = (states[rows] - middle) @ direction / length
    above, level = scores[0][:, None] > scores[1], scores[0][:, None] == scores[1]
    auroc = float((above.float() + level.float() / 2).mean())
    return Contrast(whole, layer, model_name, where, auroc, (len(up), len(down)))


def _checked(name: str, examples: object) -> list[Example]:
    pairs = list(sequence(name, examples, "pairs (picture, prompt)", empty=True))
    if len(pairs) < 2:
        raise InterpError(
            f"There are {len(pairs)} {name}; give at least two pairs (picture, prompt), ten or more for a direction worth steering with."
        )
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InterpError(f"One of the {name} is {shown(pair)}; each must be a pair (picture, prompt).")
        text("prompt", pair[1])
    return pairs


def _means(vlm: Vlm, examples: Sequence[Example], layer: int, where: Any) -> tuple[torch.Tensor, str]:
    """The mean residual of each example [N, d], and a description of the averaged tokens."""
    rows, words = [], ""
    for example in examples:
        trace = vlm.trace(*example, max_new_tokens=1)
        states = trace.residual(layer).float()
        words, positions = _averaged(trace, states, where)
        rows.append(states[positions].mean(0))
    return torch.stack(rows), words


def _averaged(trace: Trace, states: torch.Tensor, where: Any) -> tuple[str, list[int]]:
    if isinstance(where, str) and where == "answer":
        return "the last prompt position", [trace.length - 1]
    words, positions = select(trace, where, sinks(trace, states))
    if not positions:
        raise InterpError(f"There are no {words} to average other than BOS and attention sinks; choose another `where`.")
    return words, positions
