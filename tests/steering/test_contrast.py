"""Contrast vectors: on the states of a tiny model, and on planted ones, where what is to be found is known."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import interp
from interp import Edit, InterpError, contrast_vector, steer
from tests import tiny
from tests.conftest import PROMPT

IMAGE = [*range(4, 20)]
NOISE = [(tiny.noise(60, 60, seed=seed), PROMPT) for seed in range(6)]
UP, DOWN = NOISE[:3], [(picture, "Describe a red house.") for picture, _ in NOISE[3:5]]


class Planted(interp.Vlm):
    """A model whose every trace has the states that its "picture" is."""

    def __init__(self, trace):
        self._trace, self.name, self.blocks, self.model = trace, "planted", trace.vlm.blocks, trace.vlm.model

    def trace(self, picture, _prompt, **_options):
        states = self._trace.states.clone()
        states[2, IMAGE] = picture
        return dataclasses.replace(self._trace, states=states)


@pytest.fixture(scope="module")
def planted(trace):
    return Planted(trace)


def drawn(count, seed, shift=0.0):
    """So many draws of white noise in 64 dimensions, shifted along the first: nearly orthogonal to each other."""
    make = torch.Generator().manual_seed(seed)
    return [(torch.randn(64, generator=make) + shift * torch.eye(64)[0], PROMPT) for _ in range(count)]


@pytest.mark.parametrize(
    ("where", "positions", "words"),
    [
        ("image", IMAGE, "image tokens"),
        ("answer", [-1], "the last prompt position"),
        ({"patches": [[0, 0], [1, 1]]}, [4, 9], "2 patches"),
        ({"positions": [0, 4]}, [0, 4], "2 tokens"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("layer", [interp.EMBED, 1, 2])
def test_it_is_the_difference_of_the_means(vlm, layer, where, positions, words):
    found = contrast_vector(vlm, UP, DOWN, layer, where=where)
    means = [
        torch.stack([vlm.trace(*pair, max_new_tokens=1).residual(layer)[positions].mean(0) for pair in pairs]).mean(0)
        for pairs in (UP, DOWN)
    ]
    torch.testing.assert_close(found.vector, means[0] - means[1], rtol=1e-5, atol=1e-5)
    assert (found.layer, found.model_name, found.examples) == (layer, vlm.name, (3, 2))
    assert found.where.startswith(words)
    assert found.vector.norm() > 0 or layer == interp.EMBED


def test_bos_is_left_out_of_a_kind(vlm):
    found = contrast_vector(vlm, UP, DOWN, 1, where="all")
    means = [torch.stack([vlm.trace(*pair, max_new_tokens=1).residual(1)[1:].mean(0) for pair in pairs]).mean(0) for pairs in (UP, DOWN)]
    torch.testing.assert_close(found.vector, means[0] - means[1], rtol=1e-5, atol=1e-5)


def test_half_precision_is_averaged_in_float32(picture):
    model, processor = tiny.build("crop")
    vlm = interp.Vlm(model.bfloat16(), processor)
    vector = contrast_vector(vlm, UP, DOWN, 1).vector
    means = [
        torch.stack([vlm.trace(*pair, max_new_tokens=1).residual(1)[IMAGE].double().mean(0) for pair in pairs]).mean(0)
        for pairs in (UP, DOWN)
    ]
    assert vector.dtype == torch.float32
    torch.testing.assert_close(vector, (means[0] - means[1]).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("counts", [(2, 2), (2, 9), (12, 7)])
def test_what_lies_apart_is_told_apart(vlm, planted, counts):
    assert contrast_vector(planted, drawn(counts[0], 0, 40), drawn(counts[1], 1, -40), 1).auroc == 1
    pictures = [
        [(Image.fromarray(np.full((60, 60, 3), level + i, np.uint8)), PROMPT) for i in range(count)]
        for level, count in zip((200, 20), counts, strict=True)
    ]
    assert contrast_vector(vlm, *pictures, 1).auroc == 1


def test_two_draws_of_the_same_set_are_not_told_apart(planted):
    found = [contrast_vector(planted, drawn(12, 2 * seed), drawn(12, 2 * seed + 1), 1).auroc for seed in range(20)]
    assert sum(found) / 20 == pytest.approx(0.5, abs=0.1)
    assert max(found) < 0.95, "one alone is off by 0.16 in the mean"


def test_what_is_scored_was_held_out(planted):
    """In 64 dimensions a direction tells the ten examples it was made of apart perfectly, whatever they are."""
    up, down = drawn(5, 100), drawn(5, 101)
    found = contrast_vector(planted, up, down, 1)
    fitted = [torch.stack([state for state, _ in pairs]) @ found.vector for pairs in (up, down)]
    assert (fitted[0][:, None] > fitted[1]).all()
    assert found.auroc < 0.8


def test_it_is_between_chance_and_certainty_for_sets_that_overlap(planted):
    found = contrast_vector(planted, drawn(40, 0, 1.0), drawn(40, 1, -1.0), 1)
    assert 0.75 < found.auroc < 0.97
    assert found.vector[0] == pytest.approx(2, abs=0.6)
    swapped = contrast_vector(planted, drawn(40, 1, -1.0), drawn(40, 0, 1.0), 1)
    assert torch.equal(swapped.vector, -found.vector)
    assert swapped.auroc == pytest.approx(found.auroc)


def test_what_all_examples_share_does_not_matter(planted):
    """Residuals have a large mean, and the directions of two folds differ along it."""
    sides = drawn(20, 0, 2.0), drawn(20, 1, -2.0)
    far = [[(state + 300, prompt) for state, prompt in side] for side in sides]
    assert 0.95 < contrast_vector(planted, *sides, 1).auroc == pytest.approx(contrast_vector(planted, *far, 1).auroc, abs=0.01)


def test_folds_whose_directions_differ_in_length_are_compared(planted):
    """By hand, in one dimension: 9 and 4 are scored along 1 - 2 from 1.5 (-7.5, -2.5), 1 and 2 along 9 - 4 from 6.5 (-5.5, -4.5)."""
    along = torch.eye(64)[0]
    up, down = ([(value * along, PROMPT) for value in values] for values in ([9, 1], [4, 2]))
    assert contrast_vector(planted, up, down, 1).auroc == 0


def test_the_same_on_both_sides_is_no_direction(planted):
    found = contrast_vector(planted, drawn(1, 5) * 3, drawn(1, 5) * 3, 1)
    assert found.auroc == 0.5
    with pytest.raises(InterpError, match=r"no direction to push along: .* the same mean at their image tokens\..* where='answer'"):
        Edit(vector=found, strength=0.1)


def test_sets_that_differ_only_in_the_prompt_look_the_same_to_the_picture(vlm):
    other = [(picture, "Say what is there.") for picture, _ in UP]
    assert not contrast_vector(vlm, UP, other, 1).vector.any()
    assert contrast_vector(vlm, UP, other, 1, where="answer").vector.any()


def test_it_can_be_steered_along(vlm, picture):
    found = contrast_vector(vlm, UP, DOWN, 1, where="answer")
    edit = Edit(vector=found, strength=0.7, where="answer")
    steered = steer(vlm, picture, PROMPT, [edit], max_new_tokens=3)
    greedy = steer(vlm, picture, PROMPT, [Edit(vector=found.vector, layer=1, strength=0.7, where="answer")], max_new_tokens=3)
    assert steered.steered_answer == greedy.steered_answer
    assert steered.kl == greedy.kl
    assert max(steered.kl) > 1e-6
    # An amount of 1 takes the mean of the negatives to the mean of the positives.
    whole = steer(vlm, picture, PROMPT, [Edit(vector=found, amount=1, where="answer")], max_new_tokens=1)
    assert whole.applied[0].absolute == pytest.approx(float(found.vector.norm()), rel=1e-5)


@pytest.mark.parametrize(
    ("sides", "fields", "message"),
    [
        (([], DOWN), {}, "There are 0 positives; give at least two pairs"),
        ((UP, DOWN[:1]), {}, "There are 1 negatives"),
        ((UP, None), {}, "negatives is None; it must be a list of pairs"),
        ((UP, [NOISE[0][0], NOISE[1][0]]), {}, "One of the negatives is .*; each must be a pair"),
        (([(*UP[0], 3), UP[1]], DOWN), {}, "One of the positives is .*; each must be a pair"),
        ((UP, DOWN), {"layer": 3}, "Layer 3 does not exist"),
        ((UP, DOWN), {"layer": -2}, "Layer -2 does not exist"),
        ((UP, DOWN), {"where": "nowhere"}, "where is 'nowhere'"),
        ((UP, DOWN), {"where": {"positions": [99]}}, "Position 99 does not exist"),
        (([(UP[0][0], ""), UP[1]], DOWN), {}, "prompt is empty"),
        (([("/nowhere.png", PROMPT), UP[1]], DOWN), {}, "nowhere"),
    ],
)
def test_what_is_refused(vlm, sides, fields, message):
    with pytest.raises(InterpError, match=message):
        contrast_vector(vlm, *sides, **{"layer": 1} | fields)
