"""A study of scenes whose truth is known: what its features stand for, and that explaining finds it."""

import argparse
import json

import pytest
import torch

import interp
from interp.emoji_world import measure_study, scene_files
from interp.emoji_world.study_truth import NAMED, PICTURES, truth_of
from interp.emoji_world.true_answers import TrueAnswers, serve
from interp.emoji_world.words import COLORS, WORDS
from interp.study import cache, cli, top_images
from interp.study.cache_files import Cache
from interp.study.explanation_files import read_texts
from tests.study.conftest import CACHE

SCENES = 60


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    scene_files.write(folder, SCENES, "a study")
    return folder


@pytest.fixture(scope="module")
def known(begin, world, tmp_path_factory):
    study = begin(tmp_path_factory.mktemp("known") / "study", data=str(world / "pictures"))
    cache.run(study, CACHE)
    top_images.run(study, argparse.Namespace(each=8))
    return study


@pytest.fixture(scope="module")
def truth(known, world):
    return truth_of(Cache.open(known), world)


def test_a_feature_stands_for_the_word_that_holds_most_of_its_activation(known, world, truth):
    names = sorted(file.name for file in (world / "pictures").iterdir())
    covered = scene_files.read(world, names)
    mass, pictures = torch.zeros(known.sae.d_sae, len(WORDS)), torch.zeros(known.sae.d_sae)
    for name, shares in zip(names, covered, strict=True):
        encoding = interp.encode(known.vlm.trace(world / "pictures" / name, known.plan.prompt, max_new_tokens=1), known.sae)
        for feature in encoding.top(known.sae.d_sae, where="image").features:
            mass[feature.feature] += feature.map().flatten() @ shares
            pictures[feature.feature] += 1
    share, word = (mass / mass.sum(1, keepdim=True).clamp(min=1e-9)).max(1)
    naive = [
        WORDS[w] if s >= NAMED and n >= PICTURES else "" for w, s, n in zip(word.tolist(), share.tolist(), pictures.tolist(), strict=True)
    ]
    clear = (share - NAMED).abs() > 1e-3
    assert [one for one, sure in zip(truth.words, clear, strict=True) if sure] == [
        one for one, sure in zip(naive, clear, strict=True) if sure
    ]
    assert truth.of_kind(color=True)
    assert all(truth.words[feature] in COLORS for feature in truth.of_kind(color=True))
    assert not any(truth.words[feature] in COLORS for feature in truth.of_kind(color=False))


def test_explaining_and_refining_finds_the_truth(known, world, truth, tmp_path):
    stands = [feature for feature, word in enumerate(truth.words) if word]
    some = tmp_path / "filters.json"
    some.write_text(json.dumps({known.module: stands}))
    with serve(TrueAnswers(world)) as url:
        for verb, model in (("explain", "--explainer"), ("refine", "--refiner")):
            cli.main([verb, str(known.folder), model, "true-answers", "--server", url, "--filters", str(some)])
    labels = read_texts(known.folder / "labels")[3]
    right = sum(labels.get(feature) == truth.words[feature] for feature in stands)
    assert right >= 0.8 * len(stands) > 0
    table = measure_study.labels_table(known, truth, stands)
    colors = truth.of_kind(color=True)
    share = 100 * sum(labels.get(feature) == truth.words[feature] for feature in colors) / len(colors)
    assert f"| a colour | {len(colors)} | {share:.1f} % |" in table
    assert "| neither | 0 |" in table


def test_the_same_results_are_told_from_others(known, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "labels").mkdir(parents=True)
        (folder / "labels" / "a.json").write_text("{}")
        (folder / "labels" / "journal.jsonl").write_text(str(folder))
    assert measure_study.same(one, other) == []
    (other / "labels" / "a.json").write_text("[]")
    (one / "labels" / "b.json").write_text("{}")
    assert measure_study.same(one, other) == ["labels/a.json", "labels/b.json"]
