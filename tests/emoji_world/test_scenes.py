import dataclasses
import itertools
import random

import numpy as np
import pytest
import torch

from interp.emoji_world.scenes import NOUN_INDEX, Scene, Thing, draw, draw_picture, sample_scene
from interp.emoji_world.sprites import HELD_OUT_VENDOR, SEEN_VENDORS, VENDORS, load_sprites
from interp.emoji_world.train import Studio
from interp.emoji_world.words import COLORS, NOUNS, WORDS


@pytest.fixture(scope="module")
def sprites():
    return load_sprites(size=36)


def scenes(count, *, crowded=False, seed=0, augment=1.0):
    rng = random.Random(seed)
    return [sample_scene(rng, range(len(SEEN_VENDORS)), crowded=crowded, augment=augment) for _ in range(count)]


def lone(noun="dog", **changes):
    thing = Thing(noun, 0, 0.5, 0.5, 0.5)
    return Scene((dataclasses.replace(thing, **changes),), "blue", (0.1, 0.2, 0.9))


@pytest.mark.parametrize("crowded", [False, True])
def test_shares_of_a_patch_sum_to_one(sprites, crowded):
    pictures, shares = draw(scenes(24, crowded=crowded), sprites, 48, 8)
    assert pictures.shape == (24, 3, 48, 48)
    assert shares.shape == (24, 64, len(WORDS))
    torch.testing.assert_close(shares.sum(-1), torch.ones(24, 64))
    assert shares.min() > -1e-5
    assert pictures.min() >= 0
    assert pictures.max() <= 1


def test_shares_name_only_what_is_in_the_scene(sprites):
    batch = scenes(24)
    _, shares = draw(batch, sprites, 48, 8)
    for scene, share in zip(batch, shares, strict=True):
        words = {WORDS[i] for i in share.amax(0).gt(1e-4).nonzero().flatten().tolist()}
        assert words <= {*scene.nouns, scene.color}
        assert scene.color in words
        assert words & set(scene.nouns)


@pytest.mark.parametrize(("x", "y"), [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.6, 0.4)])
def test_an_object_lies_under_its_patch(sprites, x, y):
    """x runs to the right and y downwards, in the picture and in the shares alike."""
    scene = lone("pizza", x=x, y=y, size=0.36)
    (picture,), (shares,) = draw([scene], sprites, 96, 8)
    cover = shares[:, NOUN_INDEX["pizza"]].view(8, 8)
    row, col = int(y * 8), int(x * 8)
    assert cover[row, col] > 0.7
    rows, cols = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    assert ((cover * (rows + 0.5)).sum() / cover.sum() / 8).item() == pytest.approx(y, abs=0.04)
    assert ((cover * (cols + 0.5)).sum() / cover.sum() / 8).item() == pytest.approx(x, abs=0.04)
    change = (picture - torch.tensor(scene.rgb)[:, None, None]).abs().sum(0)
    patches = torch.nn.functional.avg_pool2d(change[None], 12)[0]
    assert patches[cover < 1e-6].max() < 1e-5  # no trace of it where the labels say background
    assert patches[cover > 0.7].min() > 0.1


def test_what_lies_on_top_hides_what_lies_below(sprites):
    below, above = Thing("pizza", 0, 0.45, 0.5, 0.5), Thing("dog", 0, 0.5, 0.5, 0.5)
    scene = Scene((below, above), "red", (1, 0, 0))
    shares = draw([scene], sprites, 96, 8)[1][0]
    alone = draw([Scene((above,), "red", (1, 0, 0))], sprites, 96, 8)[1][0]
    torch.testing.assert_close(shares[:, NOUN_INDEX["dog"]], alone[:, NOUN_INDEX["dog"]])
    assert (
        shares[:, NOUN_INDEX["pizza"]].sum() < draw([Scene((below,), "red", (1, 0, 0))], sprites, 96, 8)[1][0][:, NOUN_INDEX["pizza"]].sum()
    )


@pytest.mark.parametrize("crowded", [False, True])
def test_things_are_told_from_left_to_right(crowded):
    for scene in scenes(200, crowded=crowded):
        places = [thing.x for thing in scene.things]
        assert places == sorted(places)
        assert scene.nouns == [thing.noun for thing in scene.things]
        assert len(scene.things) in ({4, 6} if crowded else {1, 2, 3})
        if not crowded:
            assert all(right - left >= 0.15 for left, right in itertools.pairwise(places))  # no quarrel about which is left


def test_scenes_vary_as_they_should():
    batch = scenes(1500)
    assert {scene.color for scene in batch} == set(COLORS)
    assert {noun for scene in batch for noun in scene.nouns} == {noun for noun, _ in NOUNS}
    assert any(len(set(scene.nouns)) < len(scene.nouns) for scene in batch)  # the same noun twice happens
    assert {len(scene.things) for scene in batch} == {1, 2, 3}
    for scene in batch:
        assert all(abs(have - want / 255) < 0.2 for have, want in zip(scene.rgb, COLORS[scene.color], strict=True))


def test_without_augmentation_drawings_are_as_the_vendor_made_them():
    for scene in scenes(50, augment=0.0):
        for thing in scene.things:
            assert (thing.angle, thing.stretch, thing.shear, thing.mirrored, thing.softness, thing.tint) == (0, 1, 0, False, False, None)


def test_scenes_and_pictures_are_reproducible(sprites):
    one, other = scenes(8, seed=5), scenes(8, seed=5)
    assert one == other != scenes(8, seed=6)
    for left, right in zip(draw(one, sprites, 48, 8), draw(other, sprites, 48, 8), strict=True):
        assert torch.equal(left, right)


def test_a_scene_is_drawn_the_same_alone_and_in_a_batch(sprites):
    batch = scenes(6, seed=7)
    together, _ = draw(batch, sprites, 48, 8)
    for scene, picture in zip(batch, together, strict=True):
        torch.testing.assert_close(draw([scene], sprites, 48, 8)[0][0], picture, atol=1e-5, rtol=0)


def test_the_held_out_vendor_is_never_drawn_in_training(sprites):
    assert HELD_OUT_VENDOR not in SEEN_VENDORS
    assert (*SEEN_VENDORS, HELD_OUT_VENDOR) == VENDORS
    studio = Studio(None, None, sprites, torch.device("cpu"), batch=200)
    rng = random.Random(0)
    for crowded in (0.0, 0.7):
        vendors = {thing.vendor for scene in studio.scenes(rng, crowded=crowded) for thing in scene.things}
        assert vendors == set(range(len(SEEN_VENDORS)))
    held_out = VENDORS.index(HELD_OUT_VENDOR)
    assert {thing.vendor for thing in sample_scene(rng, [held_out]).things} == {held_out}
    assert len(load_sprites(SEEN_VENDORS, size=8)) == len(SEEN_VENDORS)  # the recipe does not even load it


def test_sprites(sprites):
    assert sprites.shape == (len(VENDORS), len(NOUNS), 2, 4, 36, 36)
    alpha = sprites[:, :, :, 3:]
    assert (alpha.flatten(3).amax(-1) > 0.5).all()  # every noun is drawn by every vendor
    assert (sprites[:, :, :, :3] <= alpha + 1e-5).all()  # colour is premultiplied
    flat = sprites[:, :, 0].flatten(2)
    for vendor in flat:
        assert len(torch.unique(vendor, dim=0)) == len(NOUNS)  # and no two nouns share a drawing


def test_draw_picture(sprites):
    picture = draw_picture(lone(), sprites, side=60)
    assert picture.size == (60, 60)
    assert picture.mode == "RGB"
    assert np.abs(np.subtract(picture.getpixel((1, 1)), (26, 51, 230))).max() <= 1
