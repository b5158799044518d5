"""`cache`: equal to encoding each sample by itself, complete to the last feature, and the same however often it is stopped."""

import argparse
import dataclasses
import hashlib
import itertools
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import interp
from interp.concepts.samples import Sample
from interp.study import cache, prompt_states, work
from interp.study.cache_files import Cache, Splits, boundaries
from interp.study.study import Study
from tests.study.conftest import CACHE, SAMPLES, with_models


@pytest.fixture(scope="module")
def held(study):
    return Cache.open(study)


@pytest.fixture(scope="module")
def singles(study, scenes):
    """Each sample, traced and encoded by itself."""
    traces = [study.vlm.trace(path, study.plan.prompt, max_new_tokens=1) for path in sorted(scenes.iterdir())]
    return [interp.encode(trace, study.sae) for trace in traces]


def dense(encoding, features):
    out = torch.zeros(encoding.trace.length, features)
    out[encoding.acts.tokens, encoding.acts.features.long()] = encoding.acts.values
    return out


def test_is_what_encoding_each_sample_gives(study, held, singles):
    for number in (0, 31, 32, SAMPLES - 1):  # both sides of the edge between chunks, and the last of a partial chunk
        naive = dense(singles[number], study.sae.d_sae)
        naive[0] = 0  # BOS, which the files of multimodal-sae do not count
        torch.testing.assert_close(held.dense(number), naive, rtol=1e-4, atol=1e-4)


def test_no_feature_is_lost_at_the_edges_of_splits(study, held, singles):
    naive = torch.stack([dense(each, study.sae.d_sae)[1:].gt(1e-3).sum(0) for each in singles]).sum(0)
    there = torch.bincount(held.splits.all().features[held.splits.all().values > 1e-3], minlength=study.sae.d_sae)
    assert (naive > 0).sum() > 500
    assert (naive - there).abs().sum() <= 2  # of the batched pass, within rounding of the threshold
    for features, splits in itertools.product((7, 2048), (1, 3, 128)):
        cuts = boundaries(features, splits)
        assert [feature for start, end in cuts for feature in range(start, end + 1)] == list(range(features))


def test_a_feature_is_read_alone_or_with_all(held):
    every = held.splits.all()
    for start, end, _ in held.splits.files:
        for feature in (start, end):
            one, among = held.feature(feature), every.where(every.features == feature)
            for name in ("samples", "positions", "features", "values"):
                assert torch.equal(getattr(one, name), getattr(among, name))
    with pytest.raises(interp.InterpError, match="Feature 2048 does not exist"):
        held.feature(2048)


def test_samples_that_do_not_share_a_pass_are_put_in_order(study, scenes, monkeypatch):
    prompts = ["Describe the image.", "Is there a dog?", "What is on the left?"]
    samples = [Sample(str(i), path, prompts[i % 3]) for i, path in enumerate(sorted(scenes.iterdir())[:12])]
    _, expected = cache.encoded(study.vlm, study.sae, samples, 100, None)
    order = torch.stack([expected["present"].repeat_interleave(expected["offsets"].diff()), expected["image"], expected["position"]], 1)
    assert order.tolist() == sorted(order.tolist())
    assert expected["image"].unique().tolist() == [*range(100, 112)]
    length = study.vlm.prepare(samples[0].picture, prompts[0])["input_ids"].shape[1]
    monkeypatch.setattr(prompt_states, "_STATES_BYTES", 2 * 4 * length * study.vlm.d_model)
    passes = [len(read.numbers) for read in prompt_states.prompt_states(study.vlm, samples, study.sae.layer)]
    assert max(passes) == 2
    assert sum(passes) == 12
    assert len(list(prompt_states.prompt_states(study.vlm, samples, study.sae.layer, 1))) == 3  # with answers: one for each length
    _, bounded = cache.encoded(study.vlm, study.sae, samples, 100, None)
    assert len(bounded["value"]) == pytest.approx(len(expected["value"]), abs=2)  # of other passes, within rounding of the threshold


def test_samples_say_what_stands_where(study, held, singles):
    for number in (3, SAMPLES - 1):
        sample, trace = held.sample(number), singles[number].trace
        assert sample.ids.tolist() == [token.id for token in trace.tokens[: trace.length]]
        assert sample.left_out.nonzero().flatten().tolist() == [i for i in singles[number].left_out if i < len(sample.ids)]
        assert 0 in sample.left_out.nonzero()  # BOS
        (positions, boxes), grid = sample.grids[0], trace.grids[0]
        assert torch.equal(positions, grid.positions)
        assert torch.equal(boxes, grid.boxes)
        assert (sample.id, sample.prompt, (sample.width, sample.height)) == (f"{number:03}.png", study.plan.prompt, trace.image.size)
    with pytest.raises(interp.InterpError, match="Sample 40 does not exist"):
        held.sample(SAMPLES)


def test_top_pictures_are_those_of_the_naive_ranking(study, held, singles):
    mean = torch.stack([dense(each, study.sae.d_sae)[each.select("image")[1]].mean(0) for each in singles])
    scores, images = held.top["scores"], held.top["images"]
    naive, order = mean.topk(CACHE.keep, dim=0)
    torch.testing.assert_close(scores, naive.T.contiguous(), rtol=1e-4, atol=1e-5)
    clear = naive[:-1] - naive[1:] > 1e-4  # elsewhere two pictures are equal
    agree = (order.T[:, :-1] == images[:, :-1])[clear.T]
    assert agree.float().mean() > 0.99
    assert (held.top["pictures"] - (mean > 1e-6).sum(0)).abs().sum() <= 2


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_filters_keep_exactly_their_features(begin, study, held, tmp_path, pool):
    some = held.top["pictures"].topk(3).indices.sort().values.tolist()
    file = tmp_path / "filters.json"
    file.write_text(f'{{"model.layers.3": {[*some, 0]}}}')
    other = begin(tmp_path / "study", limit=33)
    cache.run(other, argparse.Namespace(filters=file, pool=pool, keep=4, splits=None))
    kept, every = Cache.open(other).splits.all(), held.splits.all()
    expected = every.where(torch.isin(every.features, torch.tensor([*some, 0])) & (every.samples < 33))
    assert set(kept.features.tolist()) == set(expected.features.tolist())
    assert len(kept.values) == len(expected.values)
    file.write_text('{"model.layers.3": [5000]}')
    with pytest.raises(interp.InterpError, match="lists the feature 5000; the SAE has 2048"):
        other.chosen(file)
    file.write_text('{"model.layers.7": [5]}')
    with pytest.raises(interp.InterpError, match="lists no feature of layer 3"):
        other.chosen(file)


def test_stopped_anywhere_it_ends_the_same(begin, study, tmp_path, monkeypatch, emoji_vlm, emoji_sae):
    class Killed(BaseException):
        pass

    write, left = work.write, 0

    def failing(*args):
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        write(*args)

    monkeypatch.setattr(work, "write", failing)
    stopped, runs = begin(tmp_path / "study"), 0
    for runs in itertools.count():
        left = 1 + runs % 2
        try:
            cache.run(with_models(Study.open(stopped.folder), emoji_vlm, emoji_sae), CACHE)
        except Killed:
            continue
        break
    assert runs > 3
    assert contents(stopped.folder / "cache") == contents(study.folder / "cache")
    cache.run(stopped, CACHE)  # done: nothing is written
    assert not list(stopped.folder.rglob("*.tmp"))


def contents(folder):
    """Digest of every file."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_chunks_behind_the_end_of_the_data_change_nothing(begin, study, tmp_path):
    longer = begin(tmp_path / "study")  # as where a streamed data set has fewer samples than --limit asked for
    vars(longer)["data"] = dataclasses.replace(longer.data, count=SAMPLES + 64)
    cache.run(longer, CACHE)
    assert Cache.open(longer).count == SAMPLES
    there, here = contents(longer.folder / "cache"), contents(study.folder / "cache")
    assert {name: there[name] for name in here} == here


def test_parts_that_a_kill_left_behind_go(begin, study, tmp_path):
    copy = with_models(Study.open(shutil.copytree(study.folder, tmp_path / "study")), study.vlm, study.sae)
    (copy.folder / "cache" / "parts").mkdir()
    cache.run(copy, CACHE)
    assert not (copy.folder / "cache" / "parts").exists()


def test_reads_the_layouts_of_multimodal_sae_and_delphi(held, tmp_path):
    every = held.splits.all()
    ours, theirs = tmp_path / "lmms-lab", tmp_path / "delphi"
    for folder in (ours, theirs):
        folder.mkdir()
    for start, end, file in held.splits.files:
        tensors = load_file(file)
        locations, values = tensors["locations"], tensors["activations"]
        save_file({"locations": locations, "activations": values}, ours / file.name)
        relative = torch.stack([locations[:, 0], locations[:, 1], locations[:, 2] - start], 1).to(torch.uint16)
        save_file({"locations": relative, "activations": values, "tokens": torch.zeros(2, 2)}, theirs / f"{start}_{end}.safetensors")
    for folder in (ours, theirs):
        read = Splits.of(folder, held.splits.offset).all()
        assert torch.equal(read.features, every.features)
        assert torch.equal(read.positions, every.positions)
        assert torch.equal(read.values, every.values)
        one = Splits.of(folder, held.splits.offset).feature(int(every.features[0]))
        assert torch.equal(one.values, held.feature(int(every.features[0])).values)
    with pytest.raises(interp.InterpError, match="holds no cache"):
        Splits.of(tmp_path)
    (tmp_path / "0_1.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(interp.InterpError, match="cannot be read"):
        Splits.of(tmp_path)


def test_nothing_is_pickled(study):
    assert {path.suffix for path in study.folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_an_unfinished_cache_is_not_read(begin, tmp_path):
    with pytest.raises(interp.InterpError, match="has no finished cache"):
        Cache.open(begin(tmp_path / "study"))
