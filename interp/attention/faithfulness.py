"""Does a map show what the word needed? Insertion and deletion curves (Petsiuk et al. 2018, "RISE"), and two scores where the truth is known.

A map is tested by what it claims: revealing the patches it ranks highest should bring the word back soon, removing them should make it go.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import InterpError
from ..tracing.replay import Replay
from ..tracing.select import grid_of
from ..validation import instance, shown, whole_number
from .maps import PatchMap
from .replaced import Blank, with_replaced

_STEPS = 10_000


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """The probability of a word as image tokens are revealed or removed in a map's order."""

    insertion: float
    """Area under `insertion_curve`, 0 to 1: higher is better."""
    deletion: float
    """Area under `deletion_curve`, 0 to 1: lower is better."""
    fractions: torch.Tensor
    """Shares of the image tokens, 0 to 1: float32 [points]."""
    insertion_curve: torch.Tensor
    """Probability with the best share revealed on a blank: float32 [points]. It ends at the model's own probability."""
    deletion_curve: torch.Tensor
    """Probability with the best share replaced by the blank: float32 [points]. It ends where `insertion_curve` begins."""
    token: int
    """Position of the word in `trace.tokens`."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON types."""
        return {
            "schema": "llava-microscope/faithfulness/1",
            "token": self.token,
            "insertion": self.insertion,
            "deletion": self.deletion,
            "fractions": self.fractions.tolist(),
            "insertion_curve": self.insertion_curve.tolist(),
            "deletion_curve": self.deletion_curve.tolist(),
        }


def faithfulness(patch_map: PatchMap, steps: int = 16) -> Faithfulness:
    """Insertion and deletion curves of a map, in `steps` steps (one per image token, if there are fewer).

    Image tokens are ordered by the map, those of equal value by position. A removed one is replaced by the mean image token of the trace,
    where the picture enters the decoder; the answer before the word stays as it is.

    Raises InterpError for `steps` below 1 and for a map whose trace has no model.
    """
    trace = instance("patch_map", patch_map, PatchMap, _A_MAP).trace
    steps, vlm = whole_number("steps", steps, 1, _STEPS), trace.vlm
    positions = torch.tensor(trace.positions("image"))
    order = positions[patch_map.on_image().argsort(descending=True, stable=True)].tolist()
    counts = sorted({round(len(order) * step / steps) for step in range(steps + 1)})
    removed = [order[:count] for count in counts]
    hidden = [order[count:] for count in counts[1:-1]]  # the ends of both curves are the same two runs
    with vlm.lock, torch.no_grad():
        replay = Replay.of(trace)
        probability = with_replaced(replay, removed + hidden, Blank.mean(replay), [patch_map.token])[:, 0].exp()
    deletion = probability[: len(counts)]
    insertion = torch.cat([deletion[-1:], probability[len(counts) :], deletion[:1]])
    fractions = torch.tensor(counts) / len(order)
    return Faithfulness(
        insertion=torch.trapezoid(insertion, fractions).item(),
        deletion=torch.trapezoid(deletion, fractions).item(),
        fractions=fractions,
        insertion_curve=insertion,
        deletion_curve=deletion,
        token=patch_map.token,
    )


def pointing_game(patch_map: PatchMap, mask: Any, grid: int = 0) -> bool:
    """Whether the map's maximum over one patch grid lies inside `mask`, boolean [rows, cols]. Tied maxima must all do so.

    Raises InterpError for a grid that does not exist, and for a mask of another shape or type, or without a patch.
    """
    values, inside = _values_and_mask(patch_map, mask, grid)
    return bool(inside[values == values.max()].all())


def overlap(patch_map: PatchMap, mask: Any, grid: int = 0) -> float:
    """Intersection over union of `mask`, boolean [rows, cols], with as many patches, those of the highest values. It needs no threshold.

    Raises InterpError for a grid that does not exist, and for a mask of another shape or type, or without a patch.
    """
    values, inside = _values_and_mask(patch_map, mask, grid)
    size = int(inside.sum())
    best = values.flatten().argsort(descending=True, stable=True)[:size]
    common = int(inside.flatten()[best].sum())
    return common / (2 * size - common)


_A_MAP = "a PatchMap, as interp.relevancy(...) returns"


def _values_and_mask(patch_map: PatchMap, mask: Any, grid: Any) -> tuple[torch.Tensor, torch.Tensor]:
    patches = grid_of(instance("patch_map", patch_map, PatchMap, _A_MAP).trace, grid)
    shape, inside = (patches.rows, patches.cols), None
    if not isinstance(mask, range):  # which may be too long to write out
        with contextlib.suppress(Exception):
            inside = torch.as_tensor(mask, device="cpu")
    if inside is None or inside.dtype != torch.bool or inside.shape != shape or not inside.any():
        raise InterpError(
            f"mask is {shown(mask)}; it must hold True or False for each of the {shape[0]} x {shape[1]} patches, and True for at least one."
        )
    return patch_map.map(grid), inside
