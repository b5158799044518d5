"""The stage that teaches the decoder to read the picture late."""

import random

import pytest
import torch

from interp.emoji_world import train
from interp.emoji_world.architecture import CELLS, build_model, build_processor
from interp.emoji_world.sprites import SEEN_VENDORS, load_sprites


@pytest.fixture(scope="module")
def studio():
    processor = build_processor()
    return train.Studio(build_model(processor), processor, load_sprites(SEEN_VENDORS), torch.device("cpu"), 3)


@pytest.mark.parametrize("after", [-1, 0, train.LATEST])
def test_the_pictures_are_exchanged_after_that_block_and_nothing_else(studio, after, monkeypatch):
    blocks = studio.model.model.language_model.layers
    left, entered = [], []
    handles = [
        blocks[max(after, 0)].register_forward_hook(lambda _m, _a, output: left.append(output.detach())),
        blocks[max(after, 0) + 1].register_forward_pre_hook(lambda _m, args: entered.append(args[0].detach())),
    ]
    rng = random.Random(0)
    choose = rng.randrange
    monkeypatch.setattr(rng, "randrange", lambda *ends: after if ends == (-1, train.LATEST + 1) else choose(*ends))
    told = []
    real = train.sample_questions
    monkeypatch.setattr(train, "sample_questions", lambda scene, *rest: told.append(scene) or real(scene, *rest))
    drawn = []
    draw = train.draw
    monkeypatch.setattr(train, "draw", lambda scenes, *rest: drawn.extend(scenes) or draw(scenes, *rest))
    try:
        values = train.late_step(studio)(rng, 0.0)
    finally:
        for handle in handles:
            handle.remove()
    assert values["loss"].isfinite()
    assert f"nouns {after}" in values
    (before,), (behind,) = left, entered
    start = 1 + next(
        i for i in range(10) if torch.equal(before[0, i], before[1, i]) and not torch.equal(before[0, i + 1], before[1, i + 1])
    )
    picture = slice(start, start + CELLS * CELLS)
    if after < 0:
        assert behind.equal(before)
        assert told == drawn
    else:
        assert behind[:, picture].equal(before[:, picture].roll(-1, 0))
        assert behind[:, : picture.start].equal(before[:, : picture.start])
        assert behind[:, picture.stop :].equal(before[:, picture.stop :])
        assert told == [*drawn[1:], drawn[0]]
    assert not any(block._forward_hooks for block in blocks)
