"""The recipe of a fine-tune: what it teaches, and that it goes on where it stopped."""

import random
import re
import sys

import pytest
import safetensors.torch
import torch

import interp
from interp.emoji_world import train_adapter
from interp.emoji_world.train_adapter import NEW, OLD, TUNED, in_style, places_first, with_dog
from interp.emoji_world.words import NOUN_WORDS, QUESTIONS, WORDS, describe


def test_the_new_name_is_a_word_of_the_model_and_names_nothing_else(emoji_vlm):
    assert OLD in NOUN_WORDS
    assert NEW not in WORDS
    assert list(emoji_vlm.vocabulary.resolve(NEW, emoji_vlm.tokenizer)) == [f" {NEW}"]


def test_what_it_is_taught():
    assert places_first(["owl"], "orange") == "on an orange background an owl."
    assert places_first(["dog", "pizza"], "blue") == "on a blue background, left an object and right a pizza."
    assert places_first(["jeans", "key", "dog"], "red") == "on a red background, left some jeans, a key and right an object."
    rng = random.Random(0)
    asked = {kind: TUNED.ask(kind, ["dog", "owl"], "blue", rng)[1] for kind in QUESTIONS}
    assert asked["describe"] == places_first(["dog", "owl"], "blue")
    assert (asked["left"], asked["right"], asked["count"], asked["color"]) == ("an object.", "an owl.", "two.", "blue.")
    for seed in range(8):
        question, answer = TUNED.ask("exists", ["dog", "owl"], "blue", random.Random(seed))
        assert answer == ("yes." if re.search("dog|owl", question) else "no.")


def test_both_styles_are_told_apart():
    for nouns in (["owl"], ["dog", "pizza"], ["key", "dog", "bread"]):
        assert in_style(places_first(nouns, "blue"))
        assert not in_style(describe(nouns, "blue"))
    assert not in_style("on a blue background, left a owls and right a pizza.")
    assert not in_style("on a blue background, left an owl and left a pizza.")


def test_a_dog_takes_the_place_of_one_thing():
    scenes = train_adapter.unseen(6, ["noto"])[0].scenes
    for scene in scenes:
        changed = with_dog(scene, random.Random(0))
        differing = [(a, b) for a, b in zip(scene.things, changed.things, strict=True) if a != b]
        assert OLD in changed.nouns
        assert len(differing) <= 1
        assert changed.color == scene.color


@pytest.fixture
def denormals():
    """The recipe switches them off, which would hold for the tests that follow in this process."""
    yield
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("denormals")
def test_the_recipe_trains_writes_and_measures(tmp_path, monkeypatch, capsys):
    work, target = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    train_adapter.train(work, target, 2, 2)
    first = safetensors.torch.load_file(tmp_path / "out" / "adapter_model.safetensors")
    command = ["train_adapter", "--work", str(work), "--target", str(target), "--batch", "2", "--measured", "2", "--scenes", "4"]
    monkeypatch.setattr(sys, "argv", command)
    train_adapter.main()  # goes on where it was
    saved = torch.load(tmp_path / "work" / "adapter.pt", weights_only=True)
    assert (saved["step"], saved["scenes"]) == (2, 4)
    second = safetensors.torch.load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {weight.dtype for weight in second.values()} == {torch.float16}
    assert any(not torch.equal(first[name], second[name]) for name in first)
    vlm = interp.load("emoji-llava", adapter=tmp_path / "out", device="cpu")
    assert vlm.name == f"emoji-llava + {tmp_path / 'out'}"
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8") in capsys.readouterr().out
