"""On scenes whose truth is known: concepts of the states that name things stand for these things."""

import random

import pytest

import interp
from interp.emoji_world.scenes import Scene, Thing, draw_picture
from interp.emoji_world.sprites import SEEN_VENDORS, load_sprites

NOUNS = ("dog", "pizza", "owl", "camera", "whale")
PER_NOUN = 8


@pytest.fixture(scope="module")
def scenes():
    rng, sprites = random.Random(0), load_sprites(SEEN_VENDORS)
    made = []
    for noun in NOUNS:
        for _ in range(PER_NOUN):
            color, rgb = rng.choice([("blue", (0.2, 0.4, 0.9)), ("yellow", (0.95, 0.85, 0.2))])
            thing = Thing(
                noun,
                rng.randrange(len(SEEN_VENDORS)),
                rng.uniform(0.4, 0.6),
                rng.uniform(0.4, 0.6),
                0.6,
                0,
                1,
                0,
                mirrored=False,
                softness=False,
                tint=None,
            )
            made.append((Scene((thing,), color, rgb), draw_picture(Scene((thing,), color, rgb), sprites)))
    return made


@pytest.fixture(scope="module")
def states(emoji_vlm, scenes):
    return interp.collect(emoji_vlm, [picture for _, picture in scenes], [5, 7], list(NOUNS), max_new_tokens=8)


def test_concepts_are_as_pure_as_the_nouns_that_are_said(states, scenes):
    found = interp.learn_concepts(states, len(NOUNS), "k-means", layer=7, maps=False)
    said = {sample.id: sample.word.lower() for sample in states.samples}
    assert interp.purity(found, said).mean > 0.9
    truth = {str(i): scene.nouns for i, (scene, _) in enumerate(scenes)}
    pure = interp.purity(found, truth)
    assert pure.mean > 0.8
    assert pure.shuffled < 0.5
    named = [one.label in map(str.lower, found.words[one.concept][:3]) for one in pure.each if one.size]
    assert sum(named) >= len(named) - 1, "their words name them"


def test_a_concept_lies_on_its_object(emoji_vlm, states, scenes):
    """The state that says a word and the patches that show its thing do not share a space in general; patch by patch the codes must at least differ."""
    patches = interp.collect(emoji_vlm, [picture for _, picture in scenes], 7, "patches", max_new_tokens=1)
    found = interp.learn_concepts(patches, 8, "k-means", maps=True)
    maps = [example.map for row in found.examples for example in row]
    assert all(each.shape == (8, 8) and each.min() < each.max() for each in maps)


def test_the_concept_that_a_fine_tune_renamed_moved_most(emoji_vlm, states, scenes):
    """The adapter that ships calls a dog an object."""
    tuned = interp.load("emoji-llava", adapter="emoji-llava-adapter", device="cpu")
    after = interp.collect(tuned, [picture for _, picture in scenes], [5, 7], [*NOUNS, "object"], max_new_tokens=16)
    concepts = interp.learn_concepts(states, len(NOUNS), "k-means", layer=7, maps=False)
    shift = interp.concept_shift(states, after, concepts, maps=False)
    first, second, *_ = shift.moved
    assert "dog" in first.words
    assert "object" in first.words_after
    assert first.relative > 2 * second.relative


def test_a_coarse_vector_turns_one_answer_into_the_other(emoji_vlm, states, scenes):
    rows = {noun: [i for i, name in enumerate(states.ids) if scenes[int(name)][0].nouns == [noun]] for noun in ("dog", "pizza")}
    vector = interp.steering_vector(states.take(rows["dog"]), states.take(rows["pizza"]), layer=5)
    assert vector.auroc > 0.9
    picture = scenes[1][1]
    result = interp.steer(
        emoji_vlm, picture, "Describe the image.", [interp.Edit(vector=vector, amount=1, where="answer")], words=["pizza"], max_new_tokens=8
    )
    plain, steered = result.words["pizza"]
    assert max(steered) > max(plain)
