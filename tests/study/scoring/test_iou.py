"""IoU of features whose truth is known: exact figures, controls far below, failures that stay undefined, and the reference's bugs that are not repeated."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from interp.study.scoring.iou import Iou
from interp.study.top_images import Shown, painted
from tests.study.scoring.painted_world import CASES, World, segment

WORLD = World()


def measure(**options):
    return Iou(**{"top": WORLD, "segment": segment, "cases": CASES, "pictures": 3, "skip": 2, **options})


def test_right_labels_are_exact_and_every_control_is_far_below():
    for case in CASES:
        record = measure()(case)
        for figure in ("iou", "soft_iou", "auprc"):
            scores = record.figures[figure]
            assert scores["score"] == 1
            assert scores["random masks"] < 0.3
            assert scores["random pictures"] in {None, 1.0}, "where the colour is, the feature is; elsewhere nothing is found"
        assert record.figures["iou"]["random features"] is None, "the pictures of other features show other colours"
        assert (record.undefined, record.failed, record.label, record.category) == ("", {}, case.said, "color")
        assert record.details["k"] == 3
        assert record.details["activated_pct"] == pytest.approx(256 / (64 * 40))
        assert record.details["pictures"] == [f"{case.feature + 4 * i:03}.png" for i in (2, 3, 4)], "held out: not those that explained it"


def test_wrong_labels_are_not_found_and_stay_undefined():
    """The reference counts a picture on which nothing was found as 0 in the mean and writes -1."""
    wrong = dataclasses.replace(CASES[0], said="blue")
    record = measure()(wrong)
    assert record.undefined == "not found"
    assert record.failed == {"not found": 3}
    assert record.details["iou_scores"] == [None] * 3
    assert record.details["avg_iou"] is None
    calls = []

    def sometimes(picture, name, label):
        calls.append(name)
        return None if name == "008.png" else segment(picture, name, label)

    partly = measure(segment=sometimes)(CASES[0])
    assert calls[:3] == ["008.png", "012.png", "016.png"]
    assert partly.details["iou_scores"] == [None, 1.0, 1.0]
    assert partly.details["avg_iou"] == 1
    assert (partly.failed, partly.undefined) == ({"not found": 1}, "")


def test_a_label_that_says_unable_or_nothing_is_counted_and_not_scored():
    def never(*_):
        raise AssertionError

    for said, reason in (("Unable to produce descriptions", "unable"), ("", "no label")):
        record = measure(segment=never)(dataclasses.replace(CASES[0], said=said))
        assert (record.undefined, record.figures) == (reason, {})
    record = measure(segment=never, skip=100)(CASES[0])
    assert record.undefined == "no pictures", "all were used for explaining"


def test_nothing_against_nothing_is_undefined_by_its_own_name():
    nothing = measure(segment=lambda picture, *_: np.zeros((picture.height, picture.width), bool), top=Cold())(CASES[0])
    assert (nothing.undefined, nothing.failed) == ("empty", {"empty": 3})
    assert all(value is None for value in nothing.figures["iou"].values())


class Cold(World):
    def one(self, number, feature):
        shown = super().one(number, feature)
        return dataclasses.replace(shown, heat=torch.zeros_like(shown.heat))


def test_the_order_of_pictures_does_not_matter():
    class Turned(World):
        def shown(self, feature, n=5, skip=0):
            return super().shown(feature, n, skip)[::-1]

    def half(picture, name, label):
        found = segment(picture, name, label)
        if found is not None and int(name[:3]) % 8 < 4:
            found[:, 32:] = False
        return found

    straight, turned = (measure(top=top, segment=half)(CASES[1]) for top in (World(), Turned()))
    for figure, scores in straight.figures.items():
        assert scores["score"] == turned.figures[figure]["score"]
        assert scores["random masks"] == turned.figures[figure]["random masks"]


def test_controls_are_drawn_with_the_seed():
    def always(picture, *_):
        """A mask in every picture, so that all controls are defined."""
        return np.asarray(picture)[:, :, 0] != 128

    first, again, other = (measure(segment=always, seed=seed)(CASES[0]).figures["iou"] for seed in (3, 3, 4))
    assert first == again
    assert all(value is not None for value in first.values())
    assert first["random masks"] != other["random masks"]
    assert first["random pictures"] < 1
    assert measure(segment=always, trials=0)(CASES[0]).figures["iou"] == {
        "score": 1.0,
        "random masks": None,
        "random features": None,
        "random pictures": None,
    }


def test_the_heat_of_a_picture_that_is_not_square_lands_on_the_object():
    """The reference stretches every picture to a square and takes the first 576 positions for its patches."""
    picture, at = Image.new("RGB", (336, 168), (128, 128, 128)), (224, 56)
    picture.paste((220, 30, 30), (*at, at[0] + 56, at[1] + 56))
    rows, cols = 3, 6  # patches of 56 x 56
    boxes = torch.tensor([[[56 * c, 56 * r, 56 * c + 56, 56 * r + 56] for c in range(cols)] for r in range(rows)]).float()
    positions = torch.arange(rows * cols).reshape(rows, cols) + 7  # text comes first
    values = torch.zeros(40)
    values[7 + 1 * cols + 4] = 3.0
    heat = painted(values, [(positions, boxes)], (336, 168), (336, 168))
    shown = Shown(0, "a.png", 3.0, picture, heat)

    class One(World):
        def shown(self, *_):
            return [shown]

    record = measure(top=One(), trials=0)(CASES[0])
    assert record.details["iou_scores"] == [1.0]
    small = painted(values, [(positions, boxes)], (336, 168), (168, 84))
    assert float((small > 0).float().mean()) == pytest.approx(1 / 18)


def test_only_the_features_that_are_asked_for_are_scored():
    """The reference scores features 0 to n - 1, whatever the n ids of its filter are."""
    from interp.study.scoring.cases import cases_of

    labels = dict.fromkeys(range(100), "red")
    assert [case.feature for case in cases_of("model.layers.5", labels, {}, {}, [70, 3, 205])] == [3, 70, 205]
    assert [case.undefined for case in cases_of("model.layers.5", labels, {}, {}, [70, 3, 205])] == ["", "", "no label"]
    assert [case.feature for case in cases_of("model.layers.5", {5: "a", 2: "b"}, {}, {})] == [2, 5]
