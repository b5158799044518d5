"""Answering many pictures at once, each with its own push."""

import random

import pytest
import torch

import interp
from interp.emoji_world.measure import sample
from interp.emoji_world.steered import Asked, random_push, scaled

QUESTION = "What color is the background?"


@pytest.fixture(scope="module")
def pictures():
    return sample("steered", 4, ["noto"]).pictures


@pytest.fixture(scope="module")
def asked(emoji_vlm, pictures):
    return Asked(emoji_vlm, pictures, [QUESTION] * 4)


def test_it_answers_as_the_model_does_and_keeps_its_states(emoji_vlm, asked, pictures):
    traces = [emoji_vlm.trace(picture, QUESTION) for picture in pictures]
    assert asked.plain == [trace.answer for trace in traces]
    for n, trace in enumerate(traces):
        for layer in range(emoji_vlm.n_layers):
            torch.testing.assert_close(asked.states[layer, n], trace.residual(layer)[trace.answer_start - 1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("layer", [2, 7])
def test_pushes_are_those_of_steer(emoji_vlm, asked, pictures, layer):
    make = torch.Generator().manual_seed(layer)
    push = 3 * torch.randn(4, emoji_vlm.d_model, generator=make)
    said = asked.pushed(layer, push)
    for n, picture in enumerate(pictures):
        edit = interp.Edit(vector=push[n], layer=layer, amount=1, where="answer")
        assert said[n] == interp.steer(emoji_vlm, picture, QUESTION, [edit], max_new_tokens=24).steered
    assert said != asked.plain
    assert asked.pushed(layer, 0 * push) == asked.plain  # nothing is left over
    same = asked.pushed(layer, push[0])
    assert same[0] == said[0]


def test_controls_push_equally_far(asked):
    push = random.Random(0).random() * torch.randn(4, 192, generator=torch.Generator().manual_seed(1))
    other = random_push(scaled(lambda _asked: push, -2), 0)(asked)
    torch.testing.assert_close(other.norm(dim=1), 2 * push.norm(dim=1))
    assert not torch.equal(other, random_push(scaled(lambda _asked: push, -2), 1)(asked))
    assert torch.nn.functional.cosine_similarity(other[0], other[1], dim=0) > 0.999
