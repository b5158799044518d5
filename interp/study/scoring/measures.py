"""Measures of agreement: of a heat with a mask, of answers with the truth, and their means.

A measure that a case leaves undefined is None, never 0 or NaN, and no mean counts it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

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


def overlap(heat: Heat, mask: Mask) -> Overlap:
    """How well a heat [height, width] and a mask of the same picture agree. The heat counts as it is, where it is above 0: not smoothed, not widened.

    Both IoUs are None where neither covers a pixel; the AUPRC where the mask covers none, so that there is nothing to find.
    Raises InterpError for different shapes, and for a heat that is negative or not finite.
    """
    heat, mask = np.asarray(heat), np.asarray(mask)
    if heat.ndim != 2 or heat.shape != mask.shape or mask.dtype != np.bool_:
        raise InterpError(
            f"The heat is {heat.dtype} {list(heat.shape)} and the mask {mask.dtype} {list(mask.shape)}; both must be of one picture, "
            "[height, width], and the mask of booleans."
        )
    if not np.isfinite(heat).all() or (heat.size and heat.min() < 0):
        raise InterpError("The heat holds numbers that are negative or not finite; it must be a feature's activations, at least 0.")
    active = heat > 0
    either = int(np.count_nonzero(active | mask))
    if not either:
        return Overlap(None, None, None)
    share = heat.astype(np.float64) / (float(heat.max()) or 1.0)
    return Overlap(
        iou=int(np.count_nonzero(active & mask)) / either,
        soft_iou=float(np.minimum(share, mask).sum() / np.maximum(share, mask).sum()),
        auprc=_average_precision(heat, mask) if mask.any() else None,
    )


def _average_precision(heat: Heat, mask: Mask) -> float:
    """Of all pixels: as there are few different values, one for each patch, pixels of the same value are counted once, with their number."""
    values, which = np.unique(heat, return_inverse=True)
    inside = np.bincount(which.ravel(), mask.ravel(), len(values))
    outside = np.bincount(which.ravel(), ~mask.ravel(), len(values))
    truth = np.repeat([1, 0], len(values))
    return float(average_precision_score(truth, np.tile(values, 2), sample_weight=np.concatenate([inside, outside])))


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
