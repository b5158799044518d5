import random

import pytest

from interp.emoji_world.english import KINDS, NOUNS, QUESTIONS, a, ask, describe
from interp.emoji_world.scenes import draw, sample_scene
from interp.emoji_world.sprites import VENDORS, load_sprites
from interp.emoji_world.words import COLORS, NOUN_WORDS
from interp.emoji_world.world import EMOJI, ENGLISH


def test_at_least_300_nouns_of_which_the_first_120_are_those_of_emoji_llava():
    assert len(set(NOUNS)) == len(NOUNS) >= 300
    respelt = {"icecream": "ice cream", "hotdog": "hot dog"}
    assert NOUNS[:120] == tuple(respelt.get(noun, noun) for noun in NOUN_WORDS)
    assert not set(NOUNS) & set(COLORS)
    assert set(KINDS["rooster"]) == {"bird", "animal"}


@pytest.mark.parametrize(
    ("noun", "phrase"),
    [
        ("owl", "an owl"),
        ("milk", "some milk"),
        ("socks", "some socks"),
        ("bus", "a bus"),
        ("hourglass", "an hourglass"),
        ("ice cream", "an ice cream"),
    ],
)
def test_articles(noun, phrase):
    assert a(noun) == phrase


def test_answers_are_plain_english():
    rng = random.Random(0)
    assert describe(["owl", "dog", "milk"], "orange") == "An owl, a dog and some milk on an orange background."
    said = {kind: ask(kind, ["owl", "dog"], "blue", rng)[1] for kind in ("left", "right", "count", "color")}
    assert said == {"left": "An owl.", "right": "A dog.", "count": "There are two objects.", "color": "The background is blue."}
    assert ask("count", ["owl"], "blue", rng)[1] == "There is one object."
    existing = {ask("exists", ["socks"], "blue", random.Random(seed)) for seed in range(30)}
    assert ("Is there some socks?", "Yes, there are some socks.") in existing
    assert all(answer.startswith("Yes" if "socks" in question else "No") for question, answer in existing)


def test_sides_are_those_of_the_scene():
    asked = {ask("where", ["owl", "dog", "bus"], "blue", random.Random(seed)) for seed in range(30)}
    assert asked == {
        ("Where is the owl?", "On the left."),
        ("Where is the dog?", "In the middle."),
        ("Where is the bus?", "On the right."),
    }
    assert {ask("where", ["owl", "owl"], "blue", random.Random(seed))[1] for seed in range(9)} == {"There are two of them."}
    assert ask("where", ["owl"], "blue", random.Random(0))[1] == "It is alone in the picture."


def test_no_training_question_or_answer_names_a_kind():
    kinds = set().union(*KINDS.values()) - set(NOUNS)
    rng = random.Random(1)
    text = " ".join(part for kind in QUESTIONS for noun in NOUNS for part in ask(kind, [noun, "dog"], "red", rng))
    assert not kinds & set(text.lower().replace(".", " ").replace("?", " ").split())


def test_every_noun_is_drawn_by_every_vendor():
    sprites = load_sprites(size=8, world=ENGLISH)
    assert sprites.shape[:3] == (len(VENDORS), len(NOUNS), 2)
    assert (sprites[:, :, 0, 3].amax(dim=(-1, -2)) > 0.2).all()
    assert (load_sprites(size=8, world=EMOJI) == sprites[:, :120]).all()


def test_scenes_of_the_larger_world_hold_its_nouns():
    rng, sprites = random.Random(2), load_sprites(("noto",), size=36, world=ENGLISH)
    scenes = [sample_scene(rng, [0], nouns=NOUNS) for _ in range(8)]
    _, shares = draw(scenes, sprites, 48, 8, NOUNS)
    assert shares.shape == (8, 64, len(ENGLISH.words))
    for scene, cells in zip(scenes, shares, strict=True):
        there = {ENGLISH.words[i] for i in (cells.sum(0) > 0.5).nonzero().flatten().tolist()}
        assert there == {*scene.nouns, scene.color}
