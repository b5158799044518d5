"""Files of multimodal-sae: written as that project reads them, read as it writes them."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import interp
from interp import InterpError
from interp.attribution.attribute import attribute
from interp.attribution.filters import filters, read_filters
from interp.attribution.score_file import read_scores, write_scores
from tests.attribution.random_sae import FEATURES, sae


@pytest.fixture(scope="module")
def found(trace):
    return attribute(trace, sae(1), 2, top=2)


def dense(found):
    """All features at the image positions that count, inactive ones too: [features, positions]."""
    positions = found.encoding.select("image")[1]
    return torch.stack([found.scores.of(feature) for feature in range(FEATURES)])[:, positions]


@pytest.mark.parametrize("pool", ["sum", "avg", "max"])
def test_the_features_are_the_largest_of_the_dense_table(found, tmp_path, pool):
    table = dense(found)
    scores = {"sum": table.sum(1), "avg": table.mean(1), "max": table.amax(1)}[pool]
    chosen = filters(found, tmp_path / "filters.json", pool, k=12)
    raised = [feature for feature in scores.argsort(descending=True).tolist() if scores[feature] > 0]
    assert chosen == raised[: len(chosen)]
    assert len(chosen) == min(12, len(raised)) > 3
    assert json.loads((tmp_path / "filters.json").read_text()) == {"model.layers.1": chosen}
    assert read_filters(tmp_path / "filters.json") == {1: chosen}


def test_features_that_lowered_the_word_are_no_filters(found, tmp_path):
    chosen = filters(found, tmp_path / "all.json", k=FEATURES)
    assert 0 < len(chosen) < FEATURES
    assert (dense(found).sum(1)[chosen] > 0).all()


def test_filters_of_the_reference_are_read(tmp_path):
    file = tmp_path / "filters_top_50_llava_model_layers_24.json"
    file.write_text('{"model.layers.24": [7, 131071], "language_model.model.layers.3": []}')
    assert read_filters(file) == {24: [7, 131071], 3: []}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("[1, 2]", "one JSON object"),
        ("{", "not JSON"),
        ('{"model.layers.2": [1.5]}', "must list whole numbers"),
        ('{"model.layers.2": [-1]}', "must list whole numbers"),
        ('{"model.layers.2": 3}', "must list whole numbers"),
        ('{"vision.blocks": [1]}', "must be a decoder block, such as model.layers.24"),
        ('{"model.layers.2": [1], "a.layers.2": [2]}', "name layer 2 twice"),
    ],
)
def test_other_json_is_no_filter(tmp_path, written, words):
    (tmp_path / "file.json").write_text(written)
    with pytest.raises(InterpError, match=words):
        read_filters(tmp_path / "file.json")


def test_scores_come_back_as_they_were_written(trace, found, tmp_path):
    file = tmp_path / "model_layers_1.safetensors"
    write_scores(found, file)
    with safe_open(file, framework="pt") as saved:  # as the reference opens it
        assert [*saved.keys()] == ["model.layers.1"]
        assert saved.get_tensor("model.layers.1").shape == (FEATURES, found.margin.row)  # one column less: BOS
    read = read_scores(file, found.sae)
    expected = torch.stack([found.scores.of(feature) for feature in range(FEATURES)])
    torch.testing.assert_close(read.scores, expected[:, 1 : found.margin.row + 1])
    assert (read.layer, read.about["baseline"], read.about["word"]) == (1, found.baseline, trace.tokens[found.token].text)
    assert read.about["sign"].startswith("effect of presence")
    assert read.tokens == tuple(token.text for token in trace.tokens[1 : found.token])


def test_scores_of_the_reference_are_read(tmp_path):
    values = torch.randn(FEATURES, 9).half()
    save_file({"model.layers.1": values}, tmp_path / "one.safetensors")
    read = read_scores(tmp_path / "one.safetensors", sae(1))
    assert torch.equal(read.scores, values.float())
    assert (read.about, read.tokens) == ({}, None)


def test_several_prompts_in_one_tensor_are_refused_by_name(tmp_path):
    mixed = torch.randn(FEATURES, 3, 9).flatten(0, 1)  # f0b0, f0b1, f0b2, f1b0 ...
    save_file({"model.layers.1": mixed}, tmp_path / "three.safetensors")
    with pytest.raises(InterpError, match="multimodal-sae wrote 3 prompts into it, mixed row by row"):
        read_scores(tmp_path / "three.safetensors", sae(1))


@pytest.mark.parametrize(
    ("tensors", "about", "words"),
    [
        ({"model.layers.1": torch.zeros(5, 2)}, None, "scores 5 features of layer 1; random has 96, of layer 1"),
        ({"model.layers.2": torch.zeros(FEATURES, 2)}, None, "96 features of layer 2"),
        ({"model.layers.1": torch.zeros(FEATURES)}, None, "has 1 dimensions"),
        ({"model.layers.1": torch.zeros(FEATURES, 2, dtype=torch.int32)}, None, "finite numbers"),
        ({"model.layers.1": torch.full((FEATURES, 2), torch.nan)}, None, "finite numbers"),
        ({"weights": torch.zeros(FEATURES, 2)}, None, "names the module 'weights'"),
        ({"model.layers.1": torch.zeros(1, 1), "model.layers.2": torch.zeros(1, 1)}, None, "holds 2 tensors"),
        ({"model.layers.1": torch.zeros(FEATURES, 2)}, {"tokens": '["a"]'}, "is damaged"),
        ({"model.layers.1": torch.zeros(FEATURES, 2)}, {"tokens": "["}, "is damaged"),
    ],
)
def test_other_tensors_are_no_scores(tmp_path, tensors, about, words):
    save_file(tensors, tmp_path / "file.safetensors", metadata=about)
    with pytest.raises(InterpError, match=words):
        read_scores(tmp_path / "file.safetensors", sae(1))


def test_what_cannot_be_written_or_read_is_refused(trace, found, tmp_path):
    with pytest.raises(InterpError, match="cannot be read"):
        read_filters(tmp_path / "nowhere")
    with pytest.raises(InterpError, match="cannot be read"):
        read_scores(tmp_path / "nowhere", sae(1))
    with pytest.raises(InterpError, match="nothing can be written"):
        write_scores(found, tmp_path / "no" / "where")
    with pytest.raises(InterpError, match="pool is 'mean'"):
        filters(found, tmp_path / "file", "mean")
    with pytest.raises(InterpError, match="k is 97"):
        filters(found, tmp_path / "file", k=97)
    embed = attribute(trace, sae(interp.EMBED), 0, top=1)
    with pytest.raises(InterpError, match="can only name decoder blocks"):
        filters(embed, tmp_path / "file")
