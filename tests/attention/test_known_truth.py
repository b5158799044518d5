"""On scenes of the embedded model it is known where each thing is: maps of its word must lie there."""

import random

import pytest
import torch

import interp
from interp.emoji_world.scenes import NOUN_INDEX, draw, draw_picture, sample_scene
from interp.emoji_world.sprites import SEEN_VENDORS, load_sprites
from tests.conftest import PROMPT

SCENES = 8
NAMED = 10  # at least so many things, by their right names, in all scenes


@pytest.fixture(scope="module")
def named(emoji_vlm):
    """(trace, number of the word in the answer, which patches the thing covers by a quarter)."""
    sprites, rng = load_sprites(SEEN_VENDORS), random.Random("known truth")
    out = []
    for _ in range(SCENES):
        scene = sample_scene(rng, range(len(SEEN_VENDORS)), augment=0.0)
        trace = emoji_vlm.trace(draw_picture(scene, sprites, 96), PROMPT)
        shares = draw([scene], sprites)[1][0]
        for number, token in enumerate(trace.tokens[trace.answer_start :]):
            if scene.nouns.count(word := token.text.strip()) == 1:
                out.append((trace, number, shares[:, NOUN_INDEX[word]].view(8, 8) >= 0.25))
    assert len(out) >= NAMED
    return out


@pytest.mark.parametrize("method", [interp.relevancy, interp.activation_map])
def test_a_things_map_points_at_the_thing(named, method):
    hits, overlaps, chance = [], [], []
    for trace, number, mask in named:
        found = method(trace, number)
        hits.append(interp.pointing_game(found, mask))
        overlaps.append(interp.overlap(found, mask))
        chance.append(mask.float().mean())
    assert sum(hits) >= 0.7 * len(hits)
    assert sum(overlaps) / len(overlaps) > 0.4
    assert sum(chance) / len(chance) < 0.3


def test_a_things_own_patches_make_its_word_and_others_do_not(named):
    """A map that is the truth itself has better curves than its opposite."""
    trace, number, mask = named[0]
    values = torch.zeros(trace.length)
    values[trace.grids[0].positions] = mask.float()
    token = trace.answer_start + number
    right, wrong = (interp.faithfulness(interp.PatchMap(trace, token, "given", each, "")) for each in (values, -values))
    assert right.insertion > wrong.insertion
    assert right.deletion < wrong.deletion
