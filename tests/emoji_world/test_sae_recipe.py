"""The recipe of the embedded SAE: what it is trained on, that it goes on where it stopped, and the arithmetic of its figures."""

import itertools
import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from interp.emoji_world import train_sae
from interp.emoji_world.activations import balanced, batches, residuals, studio
from interp.emoji_world.scenes import draw, sample_scene
from interp.emoji_world.train_sae import RECIPES, Recipe
from interp.emoji_world.unseen import auroc, average_precision
from interp.emoji_world.words import QUESTIONS, WORDS
from interp.lens.text_states import text_states

LAYERS = [2, 5]


@pytest.fixture(scope="module")
def desk(emoji_vlm):
    return studio(emoji_vlm, batch=4)


@pytest.fixture(scope="module")
def batch(desk):
    return next(batches(desk, LAYERS, "test", augment=0.0))


def test_the_states_are_those_of_a_trace(desk, emoji_vlm):
    scene = sample_scene(random.Random(1), [0], augment=0.0)
    pixels, _ = draw([scene], desk.sprites)
    picture = (pixels[0].permute(1, 2, 0) * 255).round().byte().numpy()
    trace = emoji_vlm.trace(picture, QUESTIONS["describe"][0], max_new_tokens=1)
    found = residuals(desk, [scene], random.Random(2), LAYERS)
    for axis, layer in enumerate(LAYERS):
        expected = trace.residual(layer)[trace.grids[0].positions.flatten()].float()
        # The trace's picture was rounded to 8 bits.
        torch.testing.assert_close(found.image[axis, 0], expected, atol=0.5, rtol=0.02)


def test_every_token_is_of_one_kind_and_ends_are_left_out(batch, emoji_vlm):
    texts = emoji_vlm.vocabulary.texts
    answers, prompts = ({texts[i] for i in ids.tolist()} for ids in (batch.answer_ids, batch.prompt_ids))
    assert {"Describe", " ASSISTANT", ":", "USER"} <= prompts
    assert {" background", " on", "."} <= answers
    assert ":" not in answers  # the last token of the prompt, which predicts the first of the answer
    assert not {"<s>", "</s>", "<pad>", "<image>"} & (answers | prompts)
    assert batch.prompt.shape[1] == len(batch.prompt_ids)
    assert batch.answer.shape[1] == len(batch.answer_ids)
    assert batch.image.shape[1:3] == batch.shares.shape[:2]
    assert batch.shares.shape[2] == len(WORDS)


def test_batches_are_the_same_for_the_same_seed(desk):
    first, second = (next(batches(desk, [5], "again")).answer for _ in range(2))
    torch.testing.assert_close(first, second)
    assert not torch.equal(first[0, 0], next(batches(desk, [5], "other")).image[0, 0, 0])


@pytest.mark.parametrize("patches", [1, 1.5, 1000])
def test_kinds_are_balanced(batch, patches):
    rows = balanced(batch, 0, torch.Generator().manual_seed(0), patches)
    kinds = [batch.image[0].flatten(0, 1), batch.prompt[0], batch.answer[0]]
    count = min(map(len, kinds))
    counts = [min(round(patches * count), len(kinds[0])), count, count]
    for kind, part in zip(kinds, rows.split(counts), strict=True):
        assert (part[:, None] == kind).all(-1).any(1).all()


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_is_the_share_of_pairs_in_order(ties):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(60, 3, generator=generator)
    if ties:
        scores = scores.round().clamp(min=0)
    classes = torch.rand(2, 60, generator=generator) < 0.3
    for c in range(2):
        for f in range(3):
            pairs = [
                1.0 if a > b else 0.5 if a == b else 0.0
                for a, b in itertools.product(scores[classes[c], f].tolist(), scores[~classes[c], f].tolist())
            ]
            assert auroc(scores, classes)[c, f].item() == pytest.approx(sum(pairs) / len(pairs))


def test_average_precision():
    positive = torch.tensor([True, False, True, False])
    assert average_precision(torch.tensor([4.0, 3.0, 2.0, 1.0]), positive) == pytest.approx(0.5 + 0.5 * 2 / 3)
    # All tied: one step whose precision is the base rate.
    assert average_precision(torch.zeros(4), positive) == pytest.approx(0.5)
    # One found, the rest tied at 0.
    assert average_precision(torch.tensor([1.0, 0.0, 0.0, 0.0]), positive) == pytest.approx(0.5 * 1 + 0.5 * 0.5)


def test_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(train_sae, "BATCH", 64)
    monkeypatch.setattr(train_sae, "CHECKPOINTS", 3)
    states = torch.randn(1000, 8) + 3
    recipe = Recipe(layer=5, features=32, active=4, tokens=64 * 40, batches=1, pool="1000", chosen="")
    train_sae.train(states, tmp_path / "whole", "emoji-llava", recipe)
    real = train_sae.stream

    def breaks(*args):
        yield from itertools.islice(real(*args), 40)  # 20 of them measure the scale of the states
        raise KeyboardInterrupt

    monkeypatch.setattr(train_sae, "stream", breaks)
    with pytest.raises(KeyboardInterrupt):
        train_sae.train(states, tmp_path / "cut", "emoji-llava", recipe)
    monkeypatch.setattr(train_sae, "stream", real)
    train_sae.train(states, tmp_path / "cut", "emoji-llava", recipe)
    whole, cut = (load_file(tmp_path / name / "finished" / "sae_weights.safetensors") for name in ("whole", "cut"))
    assert whole["W_dec"].shape == (32, 8)
    assert (whole["threshold"] > 0).all()
    for name, value in whole.items():
        assert torch.equal(value, cut[name]), name


def test_collected_pieces_are_not_made_again(emoji_vlm, desk, tmp_path, monkeypatch):
    monkeypatch.setattr(train_sae, "PIECE", 1)
    monkeypatch.setattr(train_sae, "studio", lambda _vlm: desk)
    recipe = replace(RECIPES["emoji-llava"], batches=2)
    first = train_sae.collect(emoji_vlm, tmp_path, recipe)
    monkeypatch.setattr(train_sae, "batches", lambda *_args, **_kwargs: pytest.fail("made again"))
    torch.testing.assert_close(train_sae.collect(emoji_vlm, tmp_path, recipe), first)


def test_a_text_adds_as_many_tokens_as_each_other_kind(emoji_vlm, desk, tmp_path, monkeypatch):
    monkeypatch.setattr(train_sae, "PIECE", 1)
    monkeypatch.setattr(train_sae, "studio", lambda _vlm: desk)
    recipe = replace(RECIPES["emoji-llava"], batches=1)
    lines = ["a dog on a blue background.", "an owl."]
    for folder in ("alone", "both"):
        (tmp_path / folder).mkdir()
    alone = train_sae.collect(emoji_vlm, tmp_path / "alone", recipe)
    both = train_sae.collect(emoji_vlm, tmp_path / "both", recipe, lines)
    torch.testing.assert_close(both[: len(alone)], alone)
    assert len(both) == len(alone) * 4 // 3
    row = emoji_vlm.tokenizer(lines[0], add_special_tokens=False).input_ids
    expected = text_states(emoji_vlm, [row], [recipe.layer])[recipe.layer][0, 1:].half()
    for state in expected:
        assert torch.isclose(both[len(alone) :], state, atol=0.05).all(-1).any()
