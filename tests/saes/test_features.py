import csv
import dataclasses
import io
import json
import math
import threading
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import interp
from interp import EMBED, InterpError, PatchGrid, Sae
from interp.lens.directions import is_word, listed, promoted_words
from interp.saes import features as features_module
from interp.saes.features import RANKINGS, encode, top_features
from interp.saes.fit import ReconstructionFit
from interp.saes.labels.labels import Label, Labels
from interp.saes.sae import SaeMetrics
from interp.validation import shown
from interp.web.payloads.features import found_payload
from tests import tiny
from tests.conftest import PROMPT

LAYER, D, T = 1, 64, 32
BOS, IMAGE, TEXT, ANSWER = 0, [*range(4, 20)], [1, 2, 3, *range(20, 32)], [*range(27, 32)]
BACKGROUND = 63  # a direction that gives every token of a planted trace a norm of 10
WHERES = [
    pytest.param("image", IMAGE, id="image"),
    pytest.param("prompt", [i for i in TEXT if i < 27], id="prompt"),
    pytest.param("answer", ANSWER, id="answer"),
    pytest.param("all", [*range(1, 32)], id="all"),
    pytest.param({"patches": [[2, 1]]}, [13], id="a patch"),
    pytest.param({"patches": [[2, 1], [0, 0], [2, 1]]}, [13, 4], id="patches, one twice"),
    pytest.param({"box": [1, 0, 2, 1]}, [8, 9, 12, 13], id="a box"),
    pytest.param({"positions": [0, 31]}, [0, 31], id="positions, BOS too"),
]


def random_sae(d_sae=200, *, seed=0, bias=-0.5, **fields):
    """An SAE without a meaning whose features are active on some tokens and not on others."""
    make = torch.Generator().manual_seed(seed)
    encoder = F.normalize(torch.randn(D, d_sae, generator=make), dim=0)
    tensors = {
        "W_enc": encoder,
        "b_enc": torch.randn(d_sae, generator=make) + bias,
        "W_dec": encoder.T + 0.1 * torch.randn(d_sae, D, generator=make),
        "b_dec": 0.1 * torch.randn(D, generator=make),
    }
    if fields.get("activation") == "jumprelu":
        fields["threshold"] = torch.rand(d_sae, generator=make) * 2
    return Sae(**{"name": "random", "model_name": "", "layer": LAYER, "activation": "relu"} | tensors | fields)


def dense(sae, states):
    """What the SAE makes of some states, every feature of every token, in a few lines."""
    z = ((states - sae.b_dec) @ sae.W_enc + sae.b_enc).relu()
    if sae.activation == "jumprelu":
        z = z * (z > sae.threshold)
    if sae.activation == "topk":
        z = torch.zeros_like(z).scatter_(1, z.topk(sae.k).indices, z.topk(sae.k).values)
    return z


def basis(**fields):
    """An SAE that reads exactly what was planted: orthonormal directions, along the axes so that nothing is rounded; the last reads nothing."""
    make = torch.Generator().manual_seed(3)
    directions = torch.eye(D)[torch.randperm(D, generator=make)] * torch.randint(2, (D, 1), generator=make).mul(2).sub(1)
    deaf = torch.zeros(D).index_fill_(0, torch.tensor([BACKGROUND]), -1e9)
    tensors = {"W_enc": directions.T.contiguous(), "b_enc": deaf, "W_dec": directions.contiguous(), "b_dec": torch.zeros(D)}
    return Sae(**{"name": "basis", "model_name": "", "layer": LAYER, "activation": "relu"} | tensors | fields)


def planted(trace, sae, strengths, layer=LAYER):
    """The trace with a residual stream made of directions: {feature: {position: strength}}, on a background that no feature reads."""
    states = trace.states.clone()
    states[layer + 1] = 10 * sae.W_dec[BACKGROUND]
    for feature, places in strengths.items():
        for position, strength in places.items():
            states[layer + 1, position] += strength * sae.W_dec[feature]
    return dataclasses.replace(trace, states=states)


def with_states(trace, change):
    """The trace with its residual stream after `LAYER` changed in place."""
    states = trace.states.clone()
    change(states[LAYER + 1])
    return dataclasses.replace(trace, states=states)


def ranked(found):
    return [feature.feature for feature in found.features]


def statistics(found):
    return {f.feature: (f.mean, f.max, f.frequency) for f in found.features}


# What was planted is found


def test_planted_features_are_recovered_exactly(trace):
    sae = basis()
    found = top_features(planted(trace, sae, {7: {5: 2.0, 6: 4.0}, 20: dict.fromkeys(IMAGE, 1.0), 33: {10: 8.0}, 50: {22: 3.0}}), sae, k=10)
    assert found.where == "image tokens"
    assert found.positions == tuple(IMAGE)
    assert (ranked(found), found.active) == ([20, 33, 7], 3)
    assert statistics(found) == {20: (1, 1, 1), 33: (8 / 16, 8, 1 / 16), 7: (6 / 16, 4, 2 / 16)}
    everywhere, pizza, dog = found.features
    assert torch.equal(everywhere.map(), torch.ones(4, 4))
    expected = torch.zeros(4, 4)
    expected[1, 2] = 8
    assert torch.equal(pizza.map(0), expected)
    expected = torch.zeros(4, 4)
    expected[0, 1], expected[0, 2] = 2, 4
    assert torch.equal(dog.map(), expected)
    assert dog.activations.shape == (T,)
    assert dog.activations.nonzero().flatten().tolist() == [5, 6]
    assert [f.feature for f in top_features(planted(trace, sae, {50: {22: 3.0}}), sae, where="prompt").features] == [50]


@pytest.mark.parametrize(("rank_by", "order"), [("mean", [20, 33, 7]), ("max", [33, 7, 20]), ("frequency", [20, 7, 33])])
def test_each_ranking_has_its_own_order(trace, rank_by, order):
    sae = basis()
    found = encode(planted(trace, sae, {7: {5: 2.0, 6: 4.0}, 20: dict.fromkeys(IMAGE, 1.0), 33: {10: 8.0}}), sae).top(3, rank_by=rank_by)
    assert ranked(found) == order
    assert found.rank_by == rank_by
    assert [f.score for f in found.features] == [getattr(f, rank_by) for f in found.features]


def test_three_ways_to_rank(trace):
    """(a) one fixed position, (b) the mean of what ReLU lets pass over all patches, (c) ours, which thresholds before it averages."""
    dog, pizza, hum, word = 7, 33, 20, 50
    sae = basis(activation="topk", k=1)
    strengths = {
        dog: dict.fromkeys(IMAGE[:8], 1.0),
        pizza: dict.fromkeys(IMAGE[8:], 1.2),
        hum: dict.fromkeys([*IMAGE, 22], 0.9),  # everywhere, and nowhere the strongest
        word: {22: 2.0},
    }
    here = planted(trace, sae, strengths)
    activations = ((here.residual(LAYER) - sae.b_dec) @ sae.W_enc + sae.b_enc).relu()
    at_one_position = activations[22].topk(2).indices.tolist()
    without_topk = activations[IMAGE].mean(0).topk(3).indices.tolist()
    found = top_features(here, sae, k=3)
    assert at_one_position == [word, hum], "(a) sees neither of the objects, which lie on other tokens"
    assert without_topk == [hum, pizza, dog], "(b) puts first what TopK keeps nowhere"
    assert ranked(found) == [pizza, dog], "(c) finds both objects, and nothing else"
    assert statistics(found) == {pizza: pytest.approx((0.6, 1.2, 0.5), abs=1e-5), dog: pytest.approx((0.5, 1.0, 0.5), abs=1e-5)}
    assert not encode(here, sae).some([hum])[0].activations.any()


@pytest.mark.parametrize("layer", [EMBED, 0, 2])
def test_every_layer_of_a_trace_can_be_read(trace, layer):
    sae = basis(layer=layer, activation="topk", k=1)
    assert ranked(top_features(planted(trace, sae, {9: {12: 1.0}}, layer), sae)) == [9]


# Against the dense computation


@pytest.mark.parametrize(
    "kind",
    [{}, {"activation": "topk", "k": 12}, {"activation": "jumprelu"}, {"bias": -9.0}],
    ids=["relu", "topk", "jumprelu", "mostly silent"],
)
@pytest.mark.parametrize(("where", "positions"), WHERES)
def test_statistics_equal_the_dense_ones(trace, kind, where, positions):
    sae = random_sae(**kind)
    z = dense(sae, trace.residual(LAYER))
    chosen = z[positions]
    expected = {"mean": chosen.mean(0), "max": chosen.amax(0), "frequency": (chosen > 0).float().mean(0)}
    encoding = encode(trace, sae)
    active = set((chosen > 0).any(0).nonzero().flatten().tolist())
    for rank_by in RANKINGS:
        found = encoding.top(sae.d_sae, where, rank_by)
        assert found.positions == tuple(positions)
        assert (set(ranked(found)), found.active) == (active, len(active))
        assert [f.score for f in found.features] == sorted((f.score for f in found.features), reverse=True)
        for f in found.features:
            assert f.score == getattr(f, rank_by)
            for name, values in expected.items():
                assert getattr(f, name) == pytest.approx(values[f.feature].item(), abs=2e-5), name
            torch.testing.assert_close(f.activations, z[:, f.feature], atol=2e-5, rtol=1e-5)
            assert torch.equal(f.map(), f.activations[trace.grids[0].positions])
        few = encoding.top(3, where, rank_by)
        assert ranked(few) == ranked(found)[:3]
        assert few.active == len(active)


def test_ties_go_by_mean_and_then_by_number(trace):
    sae = basis()
    twin = sae.W_enc.clone()
    twin[:, 40], twin[:, 41] = twin[:, 9], twin[:, 3]  # fire wherever 9 and 3 do, exactly as much
    sae = dataclasses.replace(sae, W_enc=twin)
    encoding = encode(planted(trace, basis(), {9: {5: 1.0, 6: 3.0}, 3: {7: 2.0, 8: 3.0}, 12: {9: 1.0, 10: 1.0}, 60: {11: 9.0}}), sae)
    assert ranked(encoding.top(rank_by="frequency")) == [3, 41, 9, 40, 12, 60]
    assert ranked(encoding.top(rank_by="mean")) == [60, 3, 41, 9, 40, 12]
    assert ranked(encoding.top(rank_by="mean", k=2)) == [60, 3]


def test_equal_peaks_go_by_mean(trace):
    sae = basis()
    encoding = encode(planted(trace, sae, {}), sae)
    acts = dataclasses.replace(
        encoding.acts,
        offsets=torch.tensor([0, 0, 0, 0, 0, 2, 3, *[3] * 26], dtype=torch.int32),
        features=torch.tensor([4, 9, 9], dtype=torch.int32),
        values=torch.tensor([2.0, 2.0, 1.0]),
    )
    found = dataclasses.replace(encoding, acts=acts).top(rank_by="max")
    assert statistics(found) == {9: (3 / 16, 2.0, 2 / 16), 4: (2 / 16, 2.0, 1 / 16)}
    assert ranked(found) == [9, 4]


def test_nothing_active(trace):
    sae = random_sae(bias=-1e3)
    found = top_features(trace, sae, k=5)
    assert (found.features, found.active) == ((), 0)
    image = found.quality["image"]
    assert (image.l0, image.active_share) == (0, 0)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["features"] == []
    assert len(found.to_csv().splitlines()) == 1


def test_no_tokens_to_look_at(vlm, picture):
    found = top_features(vlm.trace(picture, PROMPT, max_new_tokens=1), random_sae(), where="answer")
    assert (found.where, found.positions, found.features, found.active) == ("answer tokens", (), (), 0)
    json.dumps(found.to_dict(), allow_nan=False)
    silent = found.encoding.some([3], "answer")[0]
    assert (silent.mean, silent.max, silent.frequency) == (0, 0, 0)


def test_two_grids(trace):
    whole = trace.grids[0]
    tile = PatchGrid("upper half", whole.positions[:2].flip(1), whole.boxes[:2])
    sae = basis(activation="topk", k=1)
    here = dataclasses.replace(planted(trace, sae, {9: {4: 1.0}, 8: {14: 2.0, 25: 3.0}}), grids=(whole, tile), views=trace.views * 2)
    found = top_features(here, sae, where={"patches": [[0, 3]], "grid": 1})
    assert (found.where, ranked(found)) == ("patch row 0, column 3 of upper half", [9])
    assert found.features[0].map(1).shape == (2, 4)
    assert found.features[0].map(1)[0, 3] == found.features[0].map(0)[0, 0] == pytest.approx(1)
    data = encode(here, sae).some([8])[0].to_dict()
    assert [len(rows) for rows in data["map"]] == [4, 2]
    assert data["activations"] == {"25": pytest.approx(3)}
    for wrong in (2, -1, True, "0", None):
        with pytest.raises(InterpError, match=r"Grid .* does not exist; there are 2"):
            found.features[0].map(wrong)


# Chosen features


def test_chosen_features_active_or_not(trace):
    sae = basis(activation="topk", k=1, density=torch.linspace(0, 1, D))
    encoding = encode(planted(trace, sae, {9: {5: 2.0}, 8: {22: 3.0}}), sae)
    found = encoding.some([60, 8, 9, 60, 0])
    assert [f.feature for f in found] == [60, 8, 9, 0]
    assert [f.mean for f in found] == pytest.approx([0, 0, 2 / 16, 0])
    assert found[1].activations[22] == pytest.approx(3), "active, though on no patch"
    assert not found[0].activations.any()
    assert not found[0].map().any()
    assert found[0].dense
    assert all(len(f.top_tokens) == len(f.bottom_tokens) == 8 for f in found)
    prompt = encoding.some((8, 9), "prompt", "max")
    assert [f.score for f in prompt] == pytest.approx([3, 0])
    assert encoding.some([]) == ()


@pytest.mark.parametrize("feature", [-1, D, True, 1.5, "3", None, 10**5000], ids=shown)
def test_features_that_do_not_exist(trace, feature):
    encoding = encode(trace, basis())
    with pytest.raises(InterpError, match=r"Feature .* does not exist: basis has features 0 to 63"):
        encoding.some([0, feature])
    with pytest.raises(InterpError, match=r"does not exist"):
        encoding.label(feature)


# BOS and sinks


def test_bos_and_sinks_are_left_out_and_said(trace):
    sae = basis(activation="topk", k=1)
    strengths = {9: dict.fromkeys(IMAGE, 1.0), 8: dict.fromkeys(TEXT, 1.0), 5: {BOS: 900.0, 12: 900.0}, 6: {25: 900.0}}
    encoding = encode(planted(trace, sae, strengths), sae)
    assert encoding.left_out == (0, 12, 25)
    for where, expected, tokens in (("image", [9], 15), ("prompt", [8], 9), ("all", [9, 8], 29)):
        found = encoding.top(where=where)
        assert ranked(found) == expected
        assert len(found.positions) == tokens
        assert found.features[0].mean == pytest.approx(found.features[0].frequency)
    assert found.to_dict()["left_out"] == [0, 12, 25]
    assert {kind: quality.tokens for kind, quality in encoding.quality.items()} == {"image": 15, "text": 14}
    assert ranked(encoding.top(where={"positions": [0]})) == [5], "unless asked for"
    assert ranked(encoding.top(where={"patches": [[2, 0]]})) == [5]
    assert encoding.some([5])[0].map()[2, 0] == pytest.approx(900), "a map shows all of the picture"
    assert encoding.notes == []


# Features that fire on everything


def test_dense_features_are_marked_and_kept(trace):
    density = torch.zeros(D)
    density[9], density[8] = 0.62, 0.5
    strengths = {9: {5: 2.0}, 8: {6: 1.0}, 7: dict.fromkeys(range(1, 30), 3.0), 6: dict.fromkeys(range(1, 28), 4.0)}
    sae = basis(density=density)
    found = top_features(planted(trace, sae, strengths), sae)
    assert {f.feature: f.dense for f in found.features} == {
        6: "",
        7: "fires on 94% of the tokens of this input",
        9: "fires on 62% of the reference tokens",
        8: "",
    }
    assert {f.feature: f.density for f in found.features} == {6: 0, 7: 0, 9: pytest.approx(0.62), 8: 0.5}


def test_no_density_is_known(trace):
    sae = basis()
    (found,) = top_features(planted(trace, sae, {7: dict.fromkeys(range(1, 32), 3.0)}), sae).features
    assert (found.density, found.dense) == (None, "fires on 100% of the tokens of this input")


# ReconstructionFit


@pytest.mark.parametrize("kind", [{}, {"activation": "topk", "k": 12}], ids=["relu", "topk"])
def test_quality_equals_its_formula(trace, kind):
    sae = random_sae(**kind)
    quality = encode(trace, sae).quality
    assert list(quality) == ["image", "text"]
    for name, rows in (("image", IMAGE), ("text", TEXT)):
        x = trace.residual(LAYER)[rows].double()
        z = dense(sae, trace.residual(LAYER))[rows]
        error = x - (z @ sae.W_dec + sae.b_dec).double()
        expected = 1 - error.pow(2).sum() / (x - x.mean(0)).pow(2).sum()
        assert quality[name].explained_variance == pytest.approx(expected.item(), abs=1e-4)
        assert quality[name].l0 == pytest.approx((z > 0).sum(1).float().mean().item())
        assert quality[name].active_share == pytest.approx((z > 0).any(0).float().mean().item())
        assert (quality[name].tokens, quality[name].trained) == (len(rows), None)


@pytest.mark.parametrize(
    ("scale", "own", "sentence"),
    [
        (1.0, {}, ""),
        (1.0, {"all": SaeMetrics(0.99, 12.0)}, ""),
        (0.0, {"image": SaeMetrics(0.9, 3.0), "text": SaeMetrics(0.9)}, "explains only"),
        (2.5, {}, "does worse than their mean: do not trust"),
        (0.4, {"all": SaeMetrics(None, 30.0)}, ""),
        (0.4, {"all": SaeMetrics(0.8, 30.0)}, ""),
        (0.4, {"all": SaeMetrics(0.95, 30.0)}, "well below the 95% of its training data: this input is unlike it."),
    ],
)
def test_a_poor_fit_is_said_in_words(trace, scale, own, sentence):
    """With the mean as its bias and `scale` of what differs from it, an SAE explains 1 - (1 - scale)^2."""
    sae = basis()
    here = planted(trace, sae, {f: dict.fromkeys(IMAGE[f::4] + TEXT[f::4], 1.0) for f in range(4)})
    for kind, rows in (("image", IMAGE), ("text", TEXT)):
        mean = here.residual(LAYER)[rows].mean(0)
        # Features 2f and 2f + 1 read a direction and its opposite, so that nothing is lost to the ReLU.
        directions = torch.stack([sae.W_dec, -sae.W_dec], 1).flatten(0, 1)
        fitted = dataclasses.replace(sae, W_enc=directions.T, b_enc=torch.zeros(2 * D), W_dec=scale * directions, b_dec=mean, trained=own)
        quality = encode(here, fitted).quality[kind]
        assert quality.explained_variance == pytest.approx(1 - (1 - scale) ** 2, abs=1e-4)
        if sentence:
            assert sentence in quality.verdict
            assert f"these {kind} tokens" in quality.verdict
        else:
            assert quality.verdict == ""
        assert quality.trained == (own.get(kind) or own.get("all"))
        assert len(rows) == quality.tokens


@pytest.mark.parametrize(
    ("explained", "own", "verdict"),
    [
        (-0.2, 0.9, "On these image tokens the SAE does worse than their mean: do not trust its features here."),
        (0.0, None, "The SAE explains only 0% of the variance of these image tokens: treat its features as hints."),
        (0.42, 0.95, "The SAE explains only 42% of the variance of these image tokens: treat its features as hints."),
        (0.6, 0.9, "The SAE explains 60% of these image tokens, well below the 90% of its training data: this input is unlike it."),
        (0.6, 0.75, ""),
        (0.6, None, ""),
        (0.99, 0.9, ""),
        (None, 0.9, ""),
    ],
)
def test_verdicts(explained, own, verdict):
    figures = None if own is None else SaeMetrics(own, 30.0)
    quality = ReconstructionFit("image", 9, explained, 12.0, 0.1, figures)
    assert quality.verdict == verdict
    assert quality.to_dict() == {
        "tokens": 9,
        "explained_variance": explained,
        "l0": 12.0,
        "active_share": 0.1,
        "trained": None if own is None else {"explained_variance": own, "l0": 30.0},
        "verdict": verdict,
    }


def test_own_figures_by_kind_before_those_for_all(trace):
    sae = random_sae(trained={"image": SaeMetrics(0.8, 20.0), "all": SaeMetrics(0.9)})
    quality = encode(trace, sae).quality
    assert quality["image"].trained == SaeMetrics(0.8, 20.0)
    assert quality["text"].trained == SaeMetrics(0.9)


def test_variance_of_one_token_or_of_equal_ones_is_unknown(trace):
    one = dataclasses.replace(
        trace,
        tokens=tuple(dataclasses.replace(t, kind="special" if t.kind == "image" and i > 4 else t.kind) for i, t in enumerate(trace.tokens)),
    )
    quality = encode(one, random_sae()).quality["image"]
    assert (quality.tokens, quality.explained_variance, quality.verdict) == (1, None, "")
    for seed in range(3):
        same = torch.randn(D, generator=torch.Generator().manual_seed(seed))  # the mean of fifteen of which is rounded
        equal = with_states(trace, lambda states, same=same: states[1:].copy_(same.expand(31, D)))
        assert [q.explained_variance for q in encode(equal, random_sae()).quality.values()] == [None, None]
    none = dataclasses.replace(
        trace, tokens=tuple(dataclasses.replace(t, kind="special" if t.kind == "image" else t.kind) for t in trace.tokens)
    )
    assert list(encode(none, random_sae()).quality) == ["text"]


# Names and words


def test_labels_and_links(trace):
    labels = Labels({9: Label("pizza", "emoji scenes", 0.93)}, "Names: 1 of 64 features")
    sae = basis(activation="topk", k=1, labels=labels, neuronpedia_id="gemma-2b/12-res-jb")
    encoding = encode(planted(trace, sae, {9: {5: 2.0}, 8: {6: 1.0}}), sae)
    named, unnamed = encoding.top().features
    assert (named.label, named.label_source, named.label_score) == ("pizza", "emoji scenes", 0.93)
    assert named.link == "https://neuronpedia.org/gemma-2b/12-res-jb/9"
    if all(is_word(word) for word in unnamed.top_tokens[:3]):
        assert unnamed.label == ", ".join(word.strip() for word in unnamed.top_tokens[:3])
        assert (unnamed.label_source, unnamed.label_score) == ("the words it promotes", None)
    else:
        assert (unnamed.label, unnamed.label_source, unnamed.label_score) == ("unnamed", "it promotes no words", None)
    assert [encoding.label(f) for f in (9, 8)] == [named.label, unnamed.label]
    assert encode(trace, basis()).some([1])[0].link is None


@pytest.mark.parametrize(
    ("promoted", "label"),
    [
        ((" dog", "Hunde", "собака", "\x0e"), "dog, Hunde, собака"),
        ((" ice-cream", " don't", "犬"), "ice-cream, don't, 犬"),
        (("हिन्दी", " über", "ok"), "हिन्दी, über, ok"),
        (("'\x0e", " V", " i"), "unnamed"),
        ((" dog", " cat", "<0x9B>"), "unnamed"),
        ((" dog", " cat", "</s>"), "unnamed"),
        ((" dog", " cat", " "), "unnamed"),
        ((" dog", " cat", "-"), "unnamed"),
        ((" dog", " cat", "2"), "unnamed"),
    ],
)
def test_a_feature_without_a_label_is_named_by_words_or_not_at_all(trace, monkeypatch, promoted, label):
    monkeypatch.setattr(features_module, "promoted_words", lambda _vlm, directions: [(promoted, ())] * len(directions))
    sae = basis()
    encoding = encode(planted(trace, sae, {9: {5: 2.0}}), sae)
    (feature,) = encoding.top().features
    assert (feature.label, encoding.label(9)) == (label, label)
    assert feature.top_tokens == promoted


def test_the_view_lists_unnamed_features_after_named_ones_of_like_score(trace):
    """9, 8 and 7 are within a tenth of 9, and so is 6 of 7 but not of 9; scores and the ranking itself stay as they are."""
    labels = Labels({f: Label("unnamed" if f in {9, 6} else f"name {f}", "a test") for f in (9, 8, 7, 6, 5)}, "")
    sae = basis(labels=labels)
    found = encode(planted(trace, sae, {9: {5: 10.0}, 8: {5: 9.5}, 7: {5: 9.25}, 6: {5: 8.5}, 5: {5: 8.0}}), sae).top(5, rank_by="max")
    assert [feature.feature for feature in found.features] == [9, 8, 7, 6, 5]
    listed_in_view = found_payload(found)["features"]
    assert [feature["feature"] for feature in listed_in_view] == [8, 7, 9, 5, 6]
    assert {f["feature"]: f["score"] for f in listed_in_view} == {f.feature: f.score for f in found.features}


def test_invisible_words_are_spelled_out():
    assert listed((" dog", "\n", " ", "cat")) == "dog, '\\n', ' ', cat"


@pytest.mark.parametrize("name", ["crop", "padded", "interleave", "capped", "ignored cap"])
def test_promoted_words_equal_a_naive_reading(load, name):
    vlm = load(name)
    directions = 3 * torch.randn(70, D, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        logits = vlm.head(vlm.norm(directions))
        if name == "capped":
            logits = torch.tanh(logits / tiny.SOFT_CAP) * tiny.SOFT_CAP
    undecodable = list(vlm.vocabulary.undecodable)
    assert bool(undecodable) == (name in ("padded", "interleave"))
    if undecodable:
        assert all(set(logits.topk(5, largest=largest).indices.flatten().tolist()) & set(undecodable) for largest in (True, False))
    texts = vlm.vocabulary.texts
    for k in (1, 8):
        words = promoted_words(vlm, directions, k)
        assert len(words) == 70
        for end, sign in ((0, 1), (1, -1)):
            shown = (sign * logits).index_fill(1, torch.tensor(undecodable, dtype=torch.long), -math.inf)
            best = shown.topk(k).indices.tolist()
            assert [pair[end] for pair in words] == [tuple(texts[i] for i in row) for row in best]
    every = promoted_words(vlm, directions[:1], 10_000)[0]
    assert len(every[0]) == len(every[1]) == len(texts) - len(undecodable)


def test_words_are_those_of_the_decoder_direction_and_read_once(trace, monkeypatch):
    sae = basis(activation="topk", k=1, W_dec=3 * torch.randn(D, D, generator=torch.Generator().manual_seed(1)))
    expected = promoted_words(trace.vlm, sae.W_dec)
    encoding = encode(planted(trace, basis(), {9: {5: 2.0}, 8: {6: 1.0}}), sae)
    assert [(f.top_tokens, f.bottom_tokens) for f in encoding.top().features] == [expected[9], expected[8]]
    asked = []
    monkeypatch.setattr(
        "interp.saes.features.promoted_words", lambda vlm, directions: asked.append(len(directions)) or promoted_words(vlm, directions)
    )
    again = encoding.some([8, 30, 9])
    assert [(f.top_tokens, f.bottom_tokens) for f in again] == [expected[8], expected[30], expected[9]]
    assert asked == [1]


# Notes


@pytest.mark.parametrize(
    ("trained_on", "fits"),
    [
        ("", True),
        ("tiny-llava", True),
        ("Somewhere/Tiny-LLaVA", True),
        ("a/b/tiny-llava/", True),
        ("llava", False),
        ("tiny-llava-2", False),
    ],
)
def test_an_sae_of_another_model_is_noted(trace, trained_on, fits):
    here = dataclasses.replace(trace, model_name="hub/tiny-llava")
    sae = random_sae(model_name=trained_on, notes=("its own note",))
    assert encode(here, sae).notes == ["its own note", *([] if fits else [f"trained on another model: {trained_on}"])]


def test_the_checkpoint_behind_a_preset_counts_as_its_name(trace):
    checkpoint = Path(trace.vlm.model.config.name_or_path).name
    here = dataclasses.replace(trace, model_name="a preset")
    assert encode(here, random_sae(model_name=f"hub/{checkpoint.upper()}")).notes == []


# Wrong input


def test_an_sae_of_another_width(trace):
    sae = basis()
    narrow = dataclasses.replace(sae, W_enc=sae.W_enc[:32], W_dec=sae.W_dec[:, :32], b_dec=sae.b_dec[:32])
    with pytest.raises(InterpError, match=r"basis reads a residual stream of width 32; .* has width 64. Choose an SAE made for this model"):
        encode(trace, narrow)


@pytest.mark.parametrize("layer", [3, 12])
def test_an_sae_of_a_layer_that_the_model_lacks(trace, layer):
    with pytest.raises(InterpError, match=rf"basis reads layer {layer}; .* has layers 0 to 2"):
        encode(trace, basis(layer=layer))


@pytest.mark.parametrize("k", [0, -1, D + 1, True, 2.5, "3", None, math.nan])
def test_wrong_k(trace, k):
    with pytest.raises(InterpError, match=r"k is .*; it must be a whole number from 1 to 64, the number of features of basis"):
        top_features(trace, basis(), k=k)
    assert top_features(trace, basis(), k=D).features


@pytest.mark.parametrize("rank_by", ["Mean", "sum", "", None, 0, ["mean"], {}])
def test_wrong_ranking(trace, rank_by):
    encoding = encode(trace, basis())
    for ask in (encoding.top, lambda **options: encoding.some([1], **options)):
        with pytest.raises(InterpError, match=r"rank_by is .*; it must be one of mean, max, frequency"):
            ask(rank_by=rank_by)


@pytest.mark.parametrize("where", ["pictures", {"patches": [[9, 9]]}, {"positions": [T]}, None])
def test_wrong_tokens(trace, where):
    encoding = encode(trace, basis())
    for ask in (lambda: encoding.top(where=where), lambda: encoding.some([1], where), lambda: top_features(trace, basis(), where=where)):
        with pytest.raises(InterpError):
            ask()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_residual_stream_that_overflowed(trace, value):
    broken = with_states(trace, lambda states: states[9, 5:7].fill_(value))
    with pytest.raises(InterpError, match=r"After layer 1 the residual stream of .* is not finite at position 9 and 0 others"):
        encode(broken, basis())
    encode(broken, basis(layer=0))


def test_a_trace_without_its_model(trace, tmp_path):
    trace.save(tmp_path / "trace.safetensors")
    alone = interp.Trace.load(tmp_path / "trace.safetensors")
    with pytest.raises(InterpError, match="was loaded without its model"):
        encode(alone, basis())
    again = interp.Trace.load(tmp_path / "trace.safetensors", vlm=trace.vlm)
    assert statistics(top_features(again, random_sae())) == statistics(top_features(trace, random_sae()))


# Files


def test_json_holds_what_was_found(trace, tmp_path):
    sae = random_sae(activation="topk", k=12, density=torch.rand(200), trained={"all": SaeMetrics(0.9, None)}, notes=("a note",))
    found = top_features(trace, sae, k=4, where="all", rank_by="max")
    found.to_json(tmp_path / "features.json")
    data = json.loads((tmp_path / "features.json").read_text(encoding="utf-8"))
    assert data == json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["schema"] == "llava-microscope/sae-features/1"
    assert (data["model"], data["prompt"], data["answer"]) == (trace.model_name, trace.prompt, trace.answer)
    assert data["sae"] == {"name": "random", "layer": LAYER, "features": 200, "notes": ["a note"], "labels": ""}
    assert (data["where"], data["rank_by"], data["tokens_looked_at"], data["left_out"]) == ("all tokens", "max", 31, [0])
    assert (data["active"], len(data["features"])) == (found.active, 4)
    assert data["quality"]["image"]["explained_variance"] == found.quality["image"].explained_variance
    assert data["quality"]["text"]["trained"] == {"explained_variance": 0.9, "l0": None}
    assert [(token["text"], token["kind"]) for token in data["tokens"]] == [(token.text, token.kind) for token in trace.tokens]
    for entry, feature in zip(data["features"], found.features, strict=True):
        assert entry["feature"] == feature.feature
        assert (entry["label"], entry["top_tokens"], entry["bottom_tokens"]) == (
            feature.label,
            list(feature.top_tokens),
            list(feature.bottom_tokens),
        )
        for name in ("score", "mean", "max", "frequency", "density"):
            assert entry[name] == pytest.approx(getattr(feature, name), rel=1e-4)
        torch.testing.assert_close(torch.tensor(entry["map"][0]), feature.map(), rtol=1e-4, atol=0)
        off_grid = {i: a for i, a in enumerate(feature.activations.tolist()) if a and i not in IMAGE}
        assert {int(i): a for i, a in entry["activations"].items()} == pytest.approx(off_grid, rel=1e-4)
    assert any(entry["activations"] for entry in data["features"])


def test_small_activations_are_not_rounded_away(trace):
    sae = basis(activation="topk", k=1)
    data = top_features(planted(trace, sae, {9: {5: 3e-7}}), sae).to_dict()["features"][0]
    assert data["map"][0][0][1] == data["max"] == pytest.approx(3e-7, rel=1e-3)


def test_csv_parses_back_and_no_cell_is_a_formula(trace):
    attacks = ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", " =1", "\t=1", 'plain, "quoted"', "two\nlines"]
    labels = Labels({f: Label(text, "-a method", 0.5) for f, text in enumerate(attacks)}, "")
    sae = basis(activation="topk", k=1, labels=labels, density=torch.rand(D))
    found = top_features(planted(trace, sae, {f: {4 + f: 2.0 + f} for f in range(9)}), sae, k=20)
    assert len(found.features) == 9
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert len(rows) == 9
    for row, feature in zip(rows, found.features, strict=True):
        assert int(row["feature"]) == feature.feature
        for name in ("score", "mean", "max", "frequency", "density"):
            assert float(row[name]) == getattr(feature, name)
        assert row["label"].removeprefix("'") == feature.label
        assert row["label"].startswith("'") == (feature.feature < 6 or feature.label.startswith(("=", "+", "-", "@")))
        assert row["label_source"].removeprefix("'") == feature.label_source
        assert row["top_tokens"].removeprefix("'") == listed(feature.top_tokens)
        assert row["bottom_tokens"].removeprefix("'") == listed(feature.bottom_tokens)
        assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in row.values())
    assert {row["link"] for row in rows} == {""}


# Threads


def test_two_threads_get_what_each_gets_alone(trace, vlm, picture):
    saes = [random_sae(activation="topk", k=12), random_sae(300, seed=1)]
    alone = [statistics(top_features(trace, sae, k=50, where="all")) for sae in saes]
    wanted, results, answers = 8, [[], []], []
    start = threading.Barrier(3)

    def rank(which):
        start.wait()
        for _ in range(wanted):
            results[which].append(statistics(top_features(trace, saes[which], k=50, where="all")))

    def look():
        start.wait()
        answers.extend(vlm.trace(picture, PROMPT, max_new_tokens=6).answer for _ in range(wanted))

    threads = [threading.Thread(target=rank, args=(which,)) for which in (0, 1)] + [threading.Thread(target=look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [trace.answer] * wanted
    for which in (0, 1):
        assert results[which] == [alone[which]] * wanted


# The embedded model and a half-precision stream


def test_half_precision_states_and_weights(trace):
    sae = random_sae(activation="topk", k=12)
    half = dataclasses.replace(trace, states=trace.states.bfloat16())
    exact = top_features(dataclasses.replace(trace, states=half.states.float()), sae, k=50, where="all")
    assert statistics(top_features(half, sae, k=50, where="all")) == statistics(exact)
    packed = dataclasses.replace(sae, W_enc=sae.W_enc.bfloat16(), W_dec=sae.W_dec.bfloat16())
    same = dataclasses.replace(sae, W_enc=packed.W_enc.float(), W_dec=packed.W_dec.float())
    found, expected = (top_features(trace, one, k=50) for one in (packed, same))
    assert ranked(found) == ranked(expected)
    assert found.quality["image"].explained_variance == pytest.approx(expected.quality["image"].explained_variance, abs=1e-4)


def test_the_embedded_model(emoji_vlm, picture):
    trace = emoji_vlm.trace(picture, PROMPT, max_new_tokens=4)
    width = trace.states.shape[-1]
    directions = F.normalize(torch.randn(400, width, generator=torch.Generator().manual_seed(0)), dim=1)
    sae = Sae("random", "emoji-llava", 2, directions.T, torch.zeros(400), directions, torch.zeros(width), "topk", k=16)
    found = top_features(trace, sae)
    assert found.encoding.notes == []
    assert len(found.features) == 10
    assert found.features[0].map().shape == trace.grids[0].positions.shape
    assert len(promoted_words(emoji_vlm, directions[:3])) == 3
