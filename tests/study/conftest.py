"""A small study of the embedded model, finished once and read by many tests."""

import argparse
import random
import shutil

import pytest
import torch

import interp
from interp.emoji_world.architecture import IMAGE_SIDE
from interp.emoji_world.scenes import draw_picture, sample_scene
from interp.emoji_world.sprites import SEEN_VENDORS, load_sprites
from interp.study import cache, serve_index, top_images
from interp.study.study import Plan, Study

SAMPLES = 40  # one chunk and a part of a second
CACHE = argparse.Namespace(filters=None, pool="mean", keep=8, splits=3)
INDEX = argparse.Namespace(pictures=5, neighbours=4, words=3)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A folder of pictures."""
    folder, rng, sprites = tmp_path_factory.mktemp("scenes"), random.Random("study"), load_sprites()
    for number in range(SAMPLES):
        draw_picture(sample_scene(rng, range(len(SEEN_VENDORS))), sprites, IMAGE_SIDE).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture(scope="session")
def emoji_sae():
    return interp.load_sae("emoji-llava")


@pytest.fixture(scope="session")
def begin(scenes, emoji_vlm, emoji_sae):
    """(folder, what else the plan says) → a study that is begun, with the model and the SAE that the tests share."""

    def begun(folder, **plan):
        study = Study.begin(folder, Plan(**{"model": "emoji-llava", "sae": "emoji-llava", "data": str(scenes), **plan}))
        return with_models(study, emoji_vlm, emoji_sae)

    return begun


def with_models(study, vlm, sae):
    """A study that need not load them."""
    vars(study).update(vlm=vlm, sae=sae)
    return study


@pytest.fixture(scope="session")
def study(begin, tmp_path_factory):
    """A study with a cache and top pictures. Tests must leave it as they found it."""
    threads = torch.get_num_threads()
    study = begin(tmp_path_factory.mktemp("study"))
    cache.run(study, CACHE)
    top_images.run(study, argparse.Namespace(each=8))
    torch.set_num_threads(threads)
    return study


@pytest.fixture(scope="session")
def indexed(study, tmp_path_factory):
    """The same study with an index. Tests must leave it as they found it."""
    folder = tmp_path_factory.mktemp("indexed") / "study"
    shutil.copytree(study.folder, folder)
    copy = with_models(Study.open(folder), study.vlm, study.sae)
    serve_index.run(copy, INDEX)
    return copy
