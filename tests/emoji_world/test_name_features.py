"""How a feature gets its name: the most specific class that holds half of its activation, on scenes it was not chosen on."""

import pytest
import torch

from interp.emoji_world import name_features
from interp.emoji_world.name_features import Candidates, _chosen, _joined, _named_by

TOKENS = 1000
CLASSES = torch.eye(4).repeat_interleave(10, 1)  # four classes of ten tokens each ...
MASK = torch.cat([CLASSES, torch.zeros(4, TOKENS - 40)], 1)  # ... among a thousand


def firing(*shares):
    """A feature with these shares of its activation on the four classes, the rest on no class."""
    spread = torch.tensor([*shares, 1 - sum(shares)])
    return torch.cat([spread[:4].repeat_interleave(10) / 10, (spread[4] / (TOKENS - 40)).expand(TOKENS - 40)])[:, None]


def name(first, second, **fields):
    candidates = Candidates([*"abcd"], (MASK, MASK), **fields)
    found = [*_named_by(candidates, [first, second], torch.ones(1, dtype=torch.bool))]
    return [("".join(candidates.names[c] for c in classes), share) for _, classes, share in found]


def test_half_of_the_activation_on_both_sets_makes_a_name():
    assert name(firing(0.6, 0, 0, 0), firing(0.7, 0, 0, 0)) == [("a", pytest.approx(0.7))]
    assert name(firing(0.6, 0, 0, 0), firing(0.4, 0, 0, 0)) == []
    assert name(firing(0.4, 0, 0, 0), firing(0.9, 0, 0, 0)) == []
    assert name(firing(0.6, 0, 0, 0), firing(0, 0.9, 0, 0)) == []


def test_two_or_three_classes_share_a_name_if_each_holds_enough():
    assert name(firing(0.3, 0.4, 0, 0), firing(0.3, 0.4, 0, 0), together=True) == [("ba", pytest.approx(0.7))]
    assert name(firing(0.2, 0.2, 0.2, 0), firing(0.2, 0.2, 0.2, 0), together=True)[0][1] == pytest.approx(0.6)
    assert name(firing(0.2, 0.1, 0.1, 0.2), firing(0.2, 0.1, 0.1, 0.2), together=True)[0][1] == pytest.approx(0.5)
    assert name(firing(0.45, 0.04, 0.04, 0), firing(0.45, 0.04, 0.04, 0), together=True) == []


def test_a_large_class_needs_more_than_half():
    """Half of all patches hold half of anything: what counts are the odds."""
    half = torch.zeros(1, TOKENS)
    half[:, : TOKENS // 2] = 1
    for share, named in ((0.6, False), (0.8, False), (0.84, True)):
        z = torch.where(half[0] > 0, share, 1 - share)[:, None]
        found = [*_named_by(Candidates(["upper half"], (half, half)), [z, z], torch.ones(1, dtype=torch.bool))]
        assert bool(found) == named


def test_the_class_that_is_least_expected_wins():
    masks = torch.stack([MASK[0], MASK[:2].amax(0)])
    assert _chosen(Candidates(["dog", "animals"], (masks, masks)), torch.tensor([0.6, 0.9])) == [0]
    assert _chosen(Candidates(["dog", "animals"], (masks, masks)), torch.tensor([0.4, 0.9])) == [1]


def test_names_are_phrases():
    assert [_joined([*letters]) for letters in ("a", "ab", "abc")] == ["a", "a or b", "a, b or c"]
    assert name_features.TOO_RARE.text == name_features.NO_CLASS.text == "unnamed"
