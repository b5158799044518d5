"""`top-images`: the right pictures, and each feature painted where it is active."""

import argparse

import numpy as np
import pytest
import torch
from PIL import Image

import interp
from interp.study import top_images
from interp.study.top_images import TopImages, painted
from tests.study.conftest import SAMPLES


@pytest.fixture(scope="module")
def top(study):
    return TopImages.open(study)


def test_shows_the_highest_first_and_then_those_held_out(top, scenes):
    feature = int(top.cache.top["pictures"].argmax())
    shown = top.shown(feature, 3)
    assert [each.number for each in shown] == top.cache.top["images"][feature, :3].tolist()
    assert [each.number for each in top.shown(feature, 3, skip=3)] == top.cache.top["images"][feature, 3:6].tolist()
    assert sorted((each.score for each in shown), reverse=True) == [each.score for each in shown]
    first = shown[0]
    original = np.asarray(Image.open(scenes / first.id).convert("RGB"), dtype=float)
    assert np.abs(np.asarray(first.picture, dtype=float) - original).mean() < 6  # a WebP of it


def test_heat_is_the_map_of_the_feature(top, study, scenes):
    for feature in top.features[::400]:
        (shown,) = top.shown(feature, 1)
        trace = study.vlm.trace(scenes / shown.id, study.plan.prompt, max_new_tokens=1)
        (found,) = interp.encode(trace, study.sae).some([feature])
        side = shown.picture.width // 8
        naive = found.map().repeat_interleave(side, 0).repeat_interleave(side, 1)
        torch.testing.assert_close(shown.heat, naive, rtol=1e-3, atol=1e-3)


def test_inactive_pictures_are_inactive_and_drawn_with_a_seed(top):
    feature = int(top.cache.top["pictures"].argmin().item())
    shown = top.inactive(feature, 5)
    assert len(shown) == 5
    assert not any(each.heat.any() for each in shown)
    assert not {each.number for each in shown} & set(top.cache.feature(feature).samples.tolist())
    assert [each.number for each in shown] == [each.number for each in top.inactive(feature, 5)]
    assert [each.number for each in shown] != [each.number for each in top.inactive(feature, 5, seed=1)]


def test_pictures_at_random_are_drawn_with_a_seed_whatever_is_active(top):
    feature = top.features[0]
    every = top.random(feature)
    assert sorted(each.number for each in every) == list(range(SAMPLES)), "a study this small keeps all"
    some = [each.number for each in top.random(feature, 5, 1)]
    assert len(set(some)) == 5
    assert some == [each.number for each in top.random(feature, 5, 1)]
    assert some != [each.number for each in top.random(feature, 5, 2)]
    active = {each.number: each.heat for each in top.shown(feature, 8)}
    assert set(active) == set(top.numbers(feature))
    for each in every:
        if each.number in active:
            assert each.heat.equal(active[each.number])


def test_paints_a_patch_where_it_lies_on_a_picture_that_is_not_square():
    grid = (
        torch.tensor([[1, 2], [3, 4]]),
        torch.tensor([[[0, 0, 50, 40], [50, 0, 100, 40]], [[0, 40, 50, 60], [50, 40, 100, 60]]]).float(),
    )
    heat = painted(torch.tensor([9.0, 0, 2, 3, 0]), [grid], (100, 60), (50, 30))
    assert heat.shape == (30, 50)
    assert heat[:20, 25:].unique().tolist() == [2]
    assert heat[20:, :25].unique().tolist() == [3]
    assert not heat[:20, :25].any()
    assert not heat[20:, 25:].any()


def test_overlapping_grids_show_the_highest_and_padding_nothing():
    whole = (torch.tensor([[0]]), torch.tensor([[[0, 0, 10, 10]]]).float())
    part = (torch.tensor([[1, 2]]), torch.tensor([[[0, 0, 5, 10], [10, 0, 10, 10]]]).float())
    heat = painted(torch.tensor([1.0, 4.0, 7.0]), [whole, part], (10, 10), (10, 10))
    assert heat[:, :5].unique().tolist() == [4]
    assert heat[:, 5:].unique().tolist() == [1]


def test_says_what_is_missing(begin, study, tmp_path):
    with pytest.raises(interp.InterpError, match="the cache keeps 8 pictures"):
        top_images.run(study, argparse.Namespace(each=9))
    with pytest.raises(interp.InterpError, match="holds results with each = 8, and 4 was asked for"):
        top_images.run(study, argparse.Namespace(each=4))
