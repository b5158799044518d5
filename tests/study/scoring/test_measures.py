"""Agreement of heats with masks and of answers with the truth, against definitions written out and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score

from interp import InterpError
from interp.study.scoring.measures import Detection, Overlap, detection, mean, moved, overlap


def boxed(left, top, right, bottom, value=1.0, shape=(6, 8)):
    heat = np.zeros(shape, np.float32)
    heat[top:bottom, left:right] = value
    return heat


def test_equal_masks_give_one_and_disjoint_ones_zero():
    heat = boxed(1, 1, 4, 4, 2.5)
    assert overlap(heat, heat > 0) == Overlap(1.0, 1.0, 1.0)
    apart = overlap(heat, boxed(5, 0, 8, 3) > 0)
    assert (apart.iou, apart.soft_iou) == (0, 0)
    assert apart.auprc == pytest.approx(9 / 48), "a heat that is nowhere right ranks all of the picture before the mask's end"


def test_nothing_against_nothing_is_undefined_and_leaves_no_trace_in_a_mean():
    nothing = np.zeros((4, 4), np.float32)
    assert overlap(nothing, nothing > 0) == Overlap(None, None, None)
    assert mean([0.5, None, 1.0]) == 0.75
    assert mean([None, None]) is None
    assert mean([]) is None


def test_a_heat_without_a_mask_is_wrong_and_a_mask_without_a_heat_is_missed():
    heat = boxed(0, 0, 2, 2)
    assert overlap(heat, np.zeros_like(heat, bool)) == Overlap(0.0, 0.0, None)
    missed = overlap(np.zeros_like(heat), heat > 0)
    assert (missed.iou, missed.soft_iou) == (0, 0)
    assert missed.auprc == pytest.approx(4 / 48), "a heat that knows nothing gets the mask's share"


def test_measures_are_their_definitions():
    rng = np.random.default_rng(0)
    heat = np.maximum(rng.normal(size=(9, 7)), 0).astype(np.float32).repeat(3, 0).repeat(2, 1)  # patches
    mask = rng.random(heat.shape) < 0.3
    found = overlap(heat, mask)
    both = either = low = high = 0.0
    for value, inside in zip(heat.ravel().tolist(), mask.ravel().tolist(), strict=True):
        both += value > 0 and inside
        either += value > 0 or inside
        low += min(value / float(heat.max()), inside)
        high += max(value / float(heat.max()), inside)
    assert found.iou == pytest.approx(both / either)
    assert found.soft_iou == pytest.approx(low / high)
    assert found.auprc == pytest.approx(average_precision_score(mask.ravel(), heat.ravel()))


def test_the_size_of_a_heat_does_not_matter_and_its_shape_does():
    mask = boxed(2, 2, 5, 5) > 0
    sharp = boxed(2, 2, 5, 5, 3.0)
    blurred = sharp + boxed(0, 0, 8, 6, 0.3)
    assert overlap(sharp * 7, mask) == overlap(sharp, mask)
    assert overlap(blurred, mask).iou < overlap(blurred, mask).soft_iou < 1, "the soft IoU forgives weak activations elsewhere"
    assert overlap(blurred, mask).auprc == 1, "the strongest pixels are the mask's"


def test_a_heat_counts_as_it_is_and_is_not_widened():
    """The reference paints patches with a bilinear filter and counts all that it touches: one patch of 24 then covers more than its own area."""
    heat = boxed(14, 14, 28, 28, 5.0, (56, 56))
    assert overlap(heat, heat > 0).iou == 1
    widened = boxed(8, 8, 34, 34, 1.0, (56, 56))
    assert overlap(heat, widened > 0).iou == pytest.approx(14**2 / 26**2)


def test_what_is_no_heat_is_refused():
    heat, mask = boxed(0, 0, 2, 2), np.zeros((6, 8), bool)
    for heat_, mask_, message in (
        (heat[:-1], mask, r"\[6, 8\].*\[5, 8\]"),
        (heat[0], mask[0], r"The heat is float32 \[8\]"),
        (heat[:0], mask[:0], r"The heat is float32 \[0, 8\]"),
        (heat, mask.astype(np.uint8), "of booleans"),
        (-heat, mask, "at least 0"),
        (heat * np.nan, mask, "at least 0"),
    ):
        with pytest.raises(InterpError, match=message):
            overlap(heat_, mask_)


def test_a_moved_mask_keeps_its_size_and_knows_nothing():
    heat = boxed(0, 0, 20, 20, 1.0, (60, 80))
    found = moved(heat, heat > 0, 200, np.random.default_rng(0))
    assert found == moved(heat, heat > 0, 200, np.random.default_rng(0))
    assert found != moved(heat, heat > 0, 200, np.random.default_rng(1))
    assert overlap(heat, heat > 0).iou == 1
    assert 0.01 < mean(one.iou for one in found) < 0.1, "400 of 4800 pixels each"
    assert mean(one.auprc for one in found) == pytest.approx(400 / 4800, abs=0.05)


def test_detection_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    active, inactive = (rng.random(20) < 0.7).tolist(), (rng.random(30) < 0.3).tolist()
    truth, answers = [True] * 20 + [False] * 30, active + inactive
    found = detection(active, inactive)
    assert found.f1 == pytest.approx(f1_score(truth, answers))
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, answers))


def test_the_ends_of_detection():
    assert detection([True] * 3, [False] * 2) == Detection(1.0, 1.0)
    assert detection([False] * 3, [True] * 2) == Detection(0.0, 0.0)
    assert detection([False] * 3, [False] * 2) == Detection(0.0, 0.5)
    assert detection([True, None], [None, False]) == Detection(1.0, 1.0), "failed answers do not count"
    assert detection([True], [None]) == Detection(None, None)
    assert detection([], [False]) == Detection(None, None)


def test_a_mean_does_not_depend_on_the_order():
    values = np.random.default_rng(0).random(101).tolist()
    assert mean(values) == mean(values[::-1])
