"""Measures of agreement: of a heat with a mask, of answers with the truth, and their means.

A measure that a case leaves undefined is None, never 0 or NaN, and no mean counts it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...errors import InterpError

Heat = npt.NDArray[np.float32]
"""A feature's activation at every pixel: float32 [height, width], 0 where it is not active."""
Mask = npt.NDArray[np.bool_]
"""What a segmenter found: bool [height, width]."""


@dataclass(frozen=True)
class Overlap:
    """How well a heat and a mask agree. See `overlap`."""

    iou: float | None
    """Pixels that both cover, of those that one of them covers."""
    soft_iou: float | None
    """The same with the heat's own strengths: sum of min(h, mask) over sum of max(h, mask), h being the heat over its maximum (Jaccard by Ruzicka)."""
    auprc: float | None
    """Average precision of the heat as a ranking of pixels by which to find the mask: free of thresholds. A heat that knows nothing gets the
    mask's share of the picture."""


UNDEFINED = Overlap(None, None, None)


def overlap(heat: Heat, mask: Mask) -> Overlap:
    """How well a heat [height, width] and a mask of the same picture agree. The heat counts as it is, where it is above 0: not smoothed, not widened.

    Both IoUs are None where neither covers a pixel; the AUPRC where the mask covers none, so that there is nothing to find.
    Raises InterpError for different shapes, and for a heat that is negative or not finite.
    """
    return _Levels.of(heat).against(mask)


def moved(heat: Heat, mask: Mask, times: int, rng: np.random.Generator) -> list[Overlap]:
    """The same with the mask somewhere else: shifted at random, so many times, what leaves the picture entering again on the other side.

    What a mask of the same size and shape gets that does not know where the heat is. Raises InterpError as `overlap` does.
    """
    levels = _Levels.of(heat)
    return [levels.against(np.roll(mask, rng.integers(0, mask.shape), (0, 1))) for _ in range(times)]


@dataclass(frozen=True)
class _Levels:
    """A heat as its different values, which are few: one for each patch."""

    values: npt.NDArray[np.float32]
    """Ascending."""
    which: npt.NDArray[np.intp]
    """The value of each pixel: [height, width]."""
    counts: npt.NDArray[np.intp]
    """Pixels of each value."""

    @classmethod
    def of(cls, heat: Heat) -> "_Levels":
        heat = np.asarray(heat)
        if heat.ndim != 2 or not heat.size or not np.isfinite(heat).all() or heat.min() < 0:
            raise InterpError(
                f"The heat is {heat.dtype} {list(heat.shape)}; it must be a feature's activations on a picture, [height, width], at least 0."
            )
        values, which, counts = np.unique(heat, return_inverse=True, return_counts=True)
        return cls(values, which.reshape(heat.shape), counts)

    def against(self, mask: Mask) -> Overlap:
        if mask.shape != self.which.shape or mask.dtype != np.bool_:
            raise InterpError(
                f"The mask is {mask.dtype} {list(mask.shape)} and its heat {list(self.which.shape)}; both must be of one picture, the mask of booleans."
            )
        inside = np.bincount(self.which[mask], minlength=len(self.values))
        outside = self.counts - inside
        active = self.values > 0
        either = int(inside.sum() + outside[active].sum())
        if not either:
            return UNDEFINED
        share = self.values.astype(np.float64) / (float(self.values[-1]) or 1.0)
        return Overlap(
            iou=int(inside[active].sum()) / either,
            soft_iou=float(share @ inside / (inside.sum() + share @ outside)),
            auprc=self._average_precision(inside) if mask.any() else None,
        )

    def _average_precision(self, inside: npt.NDArray[np.intp]) -> float:
        """As in scikit-learn, whose function would take most of the time of a trial: pixels of one value enter the ranking together."""
        found, ranked = inside[::-1].cumsum(), self.counts[::-1].cumsum()
        return float((inside[::-1] / found[-1]) @ (found / ranked))


@dataclass(frozen=True)
class Detection:
    """How well yes and no tell pictures on which a feature fires from others. See `detection`."""

    f1: float | None
    balanced_accuracy: float | None
    """Mean of the shares of active pictures answered yes and of inactive ones answered no: 0.5 for a judge who guesses."""


def detection(active: Sequence[bool | None], inactive: Sequence[bool | None]) -> Detection:
    """The scores of a judge's answers to "does this picture show the label?", for pictures on which the feature is active and for others.

    Answers that failed (None) do not count. Both scores are None where no picture of one kind was answered; the F1 of a judge who never says yes is 0.
    """
    yes, no = _answered(active), _answered(inactive)
    if not yes or not no:
        return Detection(None, None)
    hits, false_alarms = sum(yes), sum(no)
    return Detection(
        f1=2 * hits / (hits + len(yes) + false_alarms),
        balanced_accuracy=(hits / len(yes) + (len(no) - false_alarms) / len(no)) / 2,
    )


def _answered(answers: Sequence[bool | None]) -> list[bool]:
    return [answer for answer in answers if answer is not None]


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are defined, whatever their order; None if none is."""
    defined = [value for value in values if value is not None]
    return float(np.mean(sorted(defined))) if defined else None
