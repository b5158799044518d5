"""The measurement of explanations: its scores on maps whose result is known, and one scene from end to end."""

import math

import pytest
import torch

import interp
from interp.emoji_world import measure_attention, measure_heads
from interp.emoji_world.measure_attention import Map, lower_bound, map_table, methods, told
from interp.emoji_world.measure_heads import spatial_entropy
from interp.emoji_world.measure_steering import cases


def blobs(*corners, side=2):
    patches = torch.zeros(8, 8)
    for row, col in corners:
        patches[row : row + side, col : col + side] = 1
    return patches


def test_spatial_entropy_of_one_blob_is_0_and_of_equal_ones_the_log_of_their_number():
    assert spatial_entropy(blobs((2, 3))) == pytest.approx(0)
    assert spatial_entropy(blobs((0, 0), (0, 4), (5, 5))) == pytest.approx(math.log(3))


def test_pieces_that_touch_at_a_corner_are_one():
    assert spatial_entropy(blobs((0, 0), (2, 2))) == pytest.approx(0)


def test_spatial_entropy_does_not_change_when_the_map_is_flipped_or_scaled():
    patches = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    expected = spatial_entropy(patches)
    assert spatial_entropy(patches.flip(0)) == pytest.approx(expected)
    assert spatial_entropy(patches.T * 3) == pytest.approx(expected)


def test_a_mark_says_which_scores_are_no_better_than_random():
    better, same = torch.full((50,), 0.9), torch.full((50,), 0.2)
    chance = Map(same, same, same, better)
    assert Map(better, same, better, better).row("mine", chance) == "| mine | 90.0% | 0.20 ✗ | 0.900 | 0.900 ✗ |"
    assert "✗" not in chance.row("random", chance)
    assert lower_bound(torch.tensor([1.0, -1.0] * 20)) < 0 < lower_bound(torch.ones(40))


@pytest.fixture(scope="module")
def scenes():
    return told(interp.load("emoji-llava"), list(cases(["dog", "pizza"], 1, "a test")))


def test_every_method_maps_the_noun_of_a_scene(scenes):
    each, ways = scenes[0], methods((7, 2))
    rows = interp.attention(each.trace, [each.token])
    for make in ways.values():
        drawn = make(each, rows)
        assert drawn.token == rows.tokens[0]
        assert drawn.map().shape == each.mask.shape
    few = {name: ways[name] for name in ("lens, last layer", "random")}
    assert map_table(scenes[:1], few).count("\n") == 1 + len(few)


def test_a_push_of_no_heads_leaves_the_description(scenes):
    each = scenes[0]
    assert measure_heads._pushed(each, []) == each.trace.answer
    assert measure_heads._following(each).shape == (8, 6)


def test_removal_flow_and_heads_are_reported(scenes, monkeypatch):
    monkeypatch.setattr(measure_heads, "RANDOM", 2)
    removal = measure_attention.removal_table(scenes[:1])
    assert removal.count("%") == 3 * 5
    flow = measure_attention.flow_table(scenes[:1])
    assert "object→" in flow
    assert "Localisation heads" in measure_heads.heads_report(scenes[:1], scenes[:1])
