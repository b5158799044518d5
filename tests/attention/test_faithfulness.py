"""Scores of maps: curves with the right ends, and scores of maps whose quality is known."""

import json

import numpy as np
import pytest
import torch

import interp
from interp import InterpError
from interp.attention.faithfulness import faithfulness, overlap, pointing_game
from interp.attention.maps import PatchMap
from interp.attention.replaced import Blank, with_replaced
from interp.tracing.replay import Replay
from tests import tiny


def map_of(trace, values, token=None):
    """A map of the image tokens' `values`."""
    full = torch.zeros(trace.length)
    full[trace.positions("image")] = torch.as_tensor(values, dtype=torch.float32)
    return PatchMap(trace, trace.answer_start if token is None else token, "given", full, "")


@pytest.fixture(scope="module")
def rising(trace):
    return map_of(trace, range(len(trace.positions("image"))))


def test_the_ends_are_the_model_itself_and_a_blank_picture(trace, rising):
    found = faithfulness(rising, steps=4)
    own = tiny.naive_logits(trace.vlm, trace)[-1, rising.row].softmax(-1)[trace.tokens[rising.token].id]
    torch.testing.assert_close(found.insertion_curve[-1], own, atol=1e-4, rtol=1e-4)
    assert found.deletion_curve[0] == found.insertion_curve[-1]
    assert found.deletion_curve[-1] == found.insertion_curve[0]
    assert found.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_the_curves_equal_one_run_for_each_point(trace, rising):
    found = faithfulness(rising, steps=4)
    best_first = trace.positions("image")[::-1]
    with trace.vlm.lock:
        replay = Replay.of(trace)
    blank = Blank.mean(replay)
    for point, count in enumerate((0, 4, 8, 12, 16)):
        for curve, gone in ((found.deletion_curve, best_first[:count]), (found.insertion_curve, best_first[count:])):
            alone = with_replaced(replay, [gone], blank, [rising.token])[0, 0].exp()
            torch.testing.assert_close(curve[point], alone, atol=1e-5, rtol=1e-4)
    area = sum(found.deletion_curve.tolist()) / 4 - (found.deletion_curve[0] + found.deletion_curve[-1]).item() / 8
    assert found.deletion == pytest.approx(area, rel=1e-5)


def test_a_map_and_its_reverse_swap_their_curves(trace, rising):
    forward, backward = faithfulness(rising, steps=4), faithfulness(map_of(trace, range(16, 0, -1)), steps=4)
    torch.testing.assert_close(forward.insertion_curve, backward.deletion_curve.flip(0), atol=1e-5, rtol=1e-4)
    assert forward.insertion == pytest.approx(backward.deletion, rel=1e-4)


def test_there_are_no_more_steps_than_image_tokens(rising):
    assert len(faithfulness(rising, steps=100).fractions) == 17
    assert len(faithfulness(rising, steps=1).fractions) == 2


def test_it_can_be_written_as_json(rising):
    written = json.loads(json.dumps(faithfulness(rising, steps=2).to_dict()))
    assert written["schema"] == "llava-microscope/faithfulness/1"
    assert len(written["fractions"]) == len(written["insertion_curve"]) == 3


def test_scores_of_maps_whose_quality_is_known(trace):
    mask = np.zeros((4, 4), dtype=bool)
    mask[1:3, 1:3] = True
    right = map_of(trace, mask.ravel() + 0.1)
    assert pointing_game(map_of(trace, np.eye(16)[5]), mask)
    assert not pointing_game(map_of(trace, np.eye(16)[0]), mask)
    assert overlap(right, mask) == 1
    assert overlap(map_of(trace, ~mask.ravel()), mask) == 0
    half = np.zeros(16)
    half[[5, 6, 0, 1]] = [4, 3, 2, 1]
    assert overlap(map_of(trace, half), mask.tolist()) == pytest.approx(2 / 6)
    assert overlap(right, torch.tensor(mask)) == 1


def test_a_flat_map_points_nowhere(trace):
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0, 0] = True
    assert not pointing_game(map_of(trace, [1.0] * 16), mask)


@pytest.mark.parametrize("mask", [torch.ones(3, 4, dtype=torch.bool), torch.ones(4, 4), torch.zeros(4, 4, dtype=torch.bool), None])
def test_a_mask_that_is_not_one_is_refused(rising, mask):
    for score in (pointing_game, overlap):
        with pytest.raises(InterpError, match=r"mask is .* 4 x 4 patches"):
            score(rising, mask)


def test_a_map_without_a_model_is_refused(trace, rising, tmp_path):
    trace.save(tmp_path / "trace")
    alone = PatchMap(interp.Trace.load(tmp_path / "trace"), rising.token, "given", rising.values, "")
    with pytest.raises(InterpError, match="without its model"):
        faithfulness(alone)
    with pytest.raises(InterpError, match="patch_map is "):
        faithfulness(trace)
