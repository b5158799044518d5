"""`serve-index`: what it keeps of a feature is what the cache, the top pictures, the SAE and the model say; complete, alone, and the same after a cut."""

import argparse
import hashlib
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import interp
from interp.lens.directions import promoted_words
from interp.study import index_block, serve_index
from interp.study.answers import UNABLE
from interp.study.cache_files import Cache, Splits
from interp.study.explanation_files import key_of, write_explanations, write_labels
from interp.study.feature_index import BLOCK, FeatureIndex
from interp.study.index_block import EDGES, neighbours_of
from interp.study.scoring.cases import Record
from interp.study.scoring.score_files import write_records
from interp.study.study import Study
from interp.study.top_images import TopImages
from tests.study.conftest import INDEX, SAMPLES, with_models


@pytest.fixture(scope="module")
def top(indexed):
    return TopImages.open(indexed)


@pytest.fixture(scope="module")
def held(indexed):
    return FeatureIndex.open(indexed.folder)


@pytest.fixture(scope="module")
def some(top):
    """Features that are active on many pictures, on few and on none, both sides of the edge between blocks, and the last."""
    pictures = top.cache.top["pictures"]
    dead = int((pictures == 0).nonzero()[0])
    return [*pictures.argsort(descending=True)[:3].tolist(), *top.features[::150], dead, BLOCK - 1, BLOCK, len(pictures) - 1]


def test_pictures_and_maps_are_those_of_the_top_pictures(held, top, some):
    for feature in some:
        shown = top.shown(feature, INDEX.pictures)
        found = held.feature(feature).top
        assert [(one.number, one.id, one.score) for one in found] == [(one.number, one.id, one.score) for one in shown]
        for one, other in zip(found, shown, strict=True):
            assert np.array_equal(np.asarray(one.picture), np.asarray(other.picture))
            torch.testing.assert_close(one.heat, other.heat)


def test_histograms_count_every_token_but_bos_and_sinks(held, top, some):
    for feature in some:
        active = top.cache.feature(feature)
        where = [top.cache.sample(number) for number in active.samples.tolist()]
        kinds = np.array([one.kinds[at] == 0 for one, at in zip(where, active.positions, strict=True)], dtype=bool)
        counted = np.array([not one.left_out[at] for one, at in zip(where, active.positions, strict=True)], dtype=bool)
        naive = [
            np.histogram(active.values.numpy()[counted & mine], [-np.inf, *EDGES[1:-1].tolist(), np.inf])[0] for mine in (kinds, ~kinds)
        ]
        found = held.feature(feature)
        low = EDGES.tolist().index(found.histogram.edges[0]) if found.histogram.edges else 0
        for name, counts in zip(("on_pictures", "on_text"), naive, strict=True):
            kept = getattr(found.histogram, name)
            assert sum(kept) == counts.sum()
            assert list(kept) == counts[low : low + len(kept)].tolist()
        assert found.tokens == naive[0].sum()
        assert found.pictures == int(top.cache.top["pictures"][feature])
        assert found.peak == pytest.approx(max(active.values.numpy()[counted & kinds], default=0))


def test_a_dead_feature_has_words_and_neighbours_and_no_pictures(held, some, top):
    dead = held.feature(some[-4])
    assert (dead.pictures, dead.tokens, dead.peak, dead.top) == (0, 0, 0, ())
    assert len(dead.neighbours) == INDEX.neighbours
    assert len(dead.promotes) == INDEX.words


def test_neighbours_and_words_are_those_of_the_sae_and_the_model(held, indexed, some):
    sae = indexed.sae
    for feature in some:
        found = held.feature(feature)
        naive = sae.neighbours(feature, INDEX.neighbours)
        assert [one.cosine for one in found.neighbours] == pytest.approx([cosine for _, cosine in naive], abs=1e-5)
        assert {one.feature for one in found.neighbours[:-1]} <= {other for other, _ in sae.neighbours(feature, INDEX.neighbours + 1)}
        labels = [sae.labels.get(one.feature) for one in found.neighbours]
        assert [one.label for one in found.neighbours] == [label.text if label and label.text != "unnamed" else "" for label in labels]
        (words,) = promoted_words(indexed.vlm, sae.W_dec[feature : feature + 1], INDEX.words)
        assert set(found.promotes) == set(words[0])
        assert set(found.suppresses) == set(words[1])


@pytest.mark.parametrize("step", [1, 7, 64])
def test_neighbours_do_not_depend_on_the_blocks(step, monkeypatch):
    make = torch.Generator().manual_seed(0)
    decoder = torch.randn(50, 8, generator=make)
    sae = interp.Sae("random", "", 1, decoder.T, torch.zeros(50), decoder, torch.zeros(8), "relu")
    monkeypatch.setattr(index_block, "_BLOCK_BYTES", 4 * 13 * step)
    found = neighbours_of(sae, 20, 32, 5)
    unit = torch.nn.functional.normalize(decoder, dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-2)[20:33]
    values, naive = cosines.topk(5)
    assert found["neighbours"].tolist() == naive.tolist()
    torch.testing.assert_close(found["cosines"], values)
    few = neighbours_of(sae, 0, 49, 100)
    assert few["neighbours"].shape == (50, 49)
    assert all(sorted([*row, f]) == list(range(50)) for f, row in enumerate(few["neighbours"].tolist()))


def test_a_cut_leaves_no_trace(held, indexed, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(indexed.folder, folder)
    before = digests(folder / "index")
    for gone in ("index.json", "said.safetensors", "features/00001.safetensors", "pictures/00000.safetensors"):
        (folder / "index" / gone).unlink()
    with pytest.raises(interp.InterpError, match="holds no index of features"):
        FeatureIndex.open(folder)
    serve_index.run(with_models(Study.open(folder), indexed.vlm, indexed.sae), INDEX)
    assert digests(folder / "index") == before


def test_another_run_renews_what_is_said(indexed, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(indexed.folder, folder)
    before = digests(folder / "index")
    own = sorted(feature for feature, label in indexed.sae.labels.names.items() if label.text != "unnamed")
    said, refined, unable, fresh = own[:4]
    write_explanations(folder / "explanations", indexed.module, {said: "A  sentence.\n", refined: "Dogs.", unable: UNABLE})
    write_labels(folder / "labels", indexed.module, {refined: "dog"})
    write_labels(folder / "classes", indexed.module, {refined: "object"})
    (folder / "explain").mkdir()
    (folder / "explain" / "settings.json").write_text('{"model": "an explainer"}')
    (folder / "scores").mkdir()
    figures = {"iou": {"score": 0.5, "random masks": 0.1}}
    records = [
        Record(key_of(indexed.module, refined), "dog", "object", figures),
        Record(key_of(indexed.module, unable), "", "", {}, "unable"),
    ]
    write_records(folder / "scores" / "iou.json", records)
    copy = with_models(Study.open(folder), indexed.vlm, indexed.sae)
    serve_index.run(copy, INDEX)
    held = FeatureIndex.open(folder)
    one = held.feature(said)
    assert (one.label, one.explanation, one.source) == ("A sentence.", "A sentence.", "explained by an explainer")
    one = held.feature(refined)
    assert (one.label, one.explanation, one.category) == ("dog", "Dogs.", "object")
    assert (one.source, dict(one.scores), dict(one.undefined)) == ("explained by an explainer and refined", figures, {})
    one = held.feature(unable)
    assert (one.label, one.explanation, one.source) == (indexed.sae.labels.get(unable).text, UNABLE, indexed.sae.labels.get(unable).source)
    assert (dict(one.scores), dict(one.undefined)) == ({}, {"iou": "unable"})
    assert held.feature(fresh).explanation == ""
    after = digests(folder / "index")
    assert [str(name) for name in before if before[name] != after[name]] == ["said.safetensors"]


def digests(folder):
    return {file.relative_to(folder): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


def test_an_index_needs_nothing_beside_it(held, indexed, tmp_path):
    shutil.copytree(indexed.folder / "index", tmp_path / "moved")
    alone = FeatureIndex.open(tmp_path / "moved")
    feature = max(range(BLOCK), key=lambda each: held.feature(each).pictures)
    assert alone.feature(feature).to_dict() == held.feature(feature).to_dict()
    assert alone.about["samples"] == SAMPLES
    assert list(alone.alive) == TopImages.open(indexed).features
    first = alone.feature(alone.about["first"])
    assert first.label
    assert len(first.top) == INDEX.pictures


def test_search_finds_the_label_itself_first(held, indexed):
    found = held.search("dog", 100)
    assert {feature for feature, _ in found} == set(indexed.sae.labels.search("dog", 100))
    same = [label.text == "dog" for _, label in found]
    assert same == sorted(same, reverse=True)
    assert sum(same) > 1
    assert held.feature(found[0][0]).label == found[0][1].text
    assert held.search("no such label") == []


def test_without_words_no_model_is_loaded(study, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(study.folder, folder)
    copy = Study.open(folder)
    vars(copy).update(sae=study.sae)
    serve_index.run(copy, argparse.Namespace(pictures=None, neighbours=0, words=0))
    assert "vlm" not in vars(copy)
    found = FeatureIndex.open(folder).feature(0)
    assert (found.neighbours, found.promotes, found.suppresses) == ((), (), ())
    with pytest.raises(interp.InterpError, match="holds results with neighbours = 0, and 4 was asked for"):
        serve_index.run(copy, INDEX)


def test_says_what_is_wrong(held, indexed, study, tmp_path):
    for feature in (-1, held.about["features"], "dog", 1.5, None):
        with pytest.raises(interp.InterpError, match=r"does not exist: the study study has features 0 to 2047"):
            held.feature(feature)
    with pytest.raises(interp.InterpError, match="top-images kept 8 for each feature"):
        serve_index.run(study, argparse.Namespace(pictures=9, neighbours=1, words=0))
    with pytest.raises(interp.InterpError, match="--words is -1"):
        serve_index.run(study, argparse.Namespace(pictures=1, neighbours=1, words=-1))
    with pytest.raises(interp.InterpError, match=r"Run: python -m interp.study serve-index"):
        FeatureIndex.open(study.folder)
    shutil.copytree(indexed.folder / "index", tmp_path / "moved")
    alone = FeatureIndex.open(tmp_path / "moved")
    (tmp_path / "moved/pictures/00000.safetensors").write_bytes(b"")
    with pytest.raises(interp.InterpError, match="cannot be read"):
        [alone.feature(feature) for feature in range(BLOCK)]
    save_file({"pictures": torch.zeros(1)}, tmp_path / "moved/features/00000.safetensors")
    with pytest.raises(interp.InterpError, match="is damaged"):
        alone.feature(0)
    (tmp_path / "moved/index.json").write_text("{}")
    with pytest.raises(interp.InterpError, match="is damaged"):
        FeatureIndex.open(tmp_path / "moved")


def test_activations_are_read_in_pieces(indexed):
    splits = Cache.open(indexed).splits
    whole = splits.all()
    pieces = list(splits.between(600, 1500, most=100))
    assert max(len(piece.values) for piece in pieces) == 100
    here = whole.where((whole.features >= 600) & (whole.features <= 1500))
    for name in ("samples", "positions", "features", "values"):
        assert torch.equal(torch.cat([getattr(piece, name) for piece in pieces]), getattr(here, name))
    assert list(Splits.of(indexed.folder / "cache" / indexed.module).between(5, 4)) == []
