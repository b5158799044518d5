"""The Python side of the attribution view: its payload from real attributions, its component, its standalone page."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch

import interp
from interp.errors import InterpError
from interp.ui.components.attribution_view import AttributionView
from interp.web.payloads.attribution import SCHEMA, attribution_payload, word_attribution, word_score
from interp.web.standalone import standalone_html
from tests.ui.test_lens_view import unpack
from tests.web.attribution_payload import payload

SPEC = {"token": 1, "baseline": "", "top": 5}


@pytest.fixture(scope="module")
def found(trace):
    make = torch.Generator().manual_seed(0)
    encoder, decoder = torch.randn(64, 24, generator=make), torch.randn(24, 64, generator=make)
    sae = interp.Sae("random", "", 1, encoder, torch.zeros(24), decoder, torch.zeros(64), "relu")
    return interp.attribute(trace, sae, 1, top=5)


def scores_of(item, length):
    out = np.zeros(length, dtype=np.float32)
    rows = np.frombuffer(base64.b64decode(item["rows"]), "<u2")
    out[rows] = np.frombuffer(base64.b64decode(item["values"]), "<f4")
    return torch.from_numpy(out)


def test_a_word_s_features_come_with_their_signs_places_and_exact_effects(found, trace):
    made = word_attribution(found, SPEC, [])
    assert [item["feature"] for item in made["features"]] == [each.feature for each in found.features]
    for item, each in zip(made["features"], found.features, strict=True):
        assert (item["score"], item["exact"]) == (each.score, each.exact)
        assert torch.equal(scores_of(item, trace.length), each.scores)
        counted = scores_of(item, trace.length)[list(found.positions)]
        assert float(counted.double().sum()) == pytest.approx(each.score, rel=1e-4, abs=1e-5)
    assert made["total"] == {"score": found.total.score, "exact": found.total.exact}


def test_what_the_sae_misses_counts_where_features_do(found, trace):
    made = word_attribution(found, SPEC, [])
    missed = scores_of(made["missed"], trace.length)
    assert float(missed.double().sum()) == pytest.approx(made["all_missed"]["score"], rel=1e-4, abs=1e-5)
    assert not missed[list(found.encoding.left_out)].any()


def test_the_payload_names_the_sae_and_what_is_left_out(found, trace):
    made = attribution_payload([word_attribution(found, SPEC, [])], found.encoding, run="key")
    assert made["schema"] == SCHEMA
    assert made["sae"]["name"] == "random"
    assert made["left_out"] == list(found.encoding.left_out)
    assert made["start"] == trace.answer_start


def test_positions_left_out_keep_their_score_but_do_not_count():
    made = word_score(3, " cat", torch.tensor([8.0, 1.0, 0.0, -0.25]), [0])
    assert made["score"] == 0.75
    assert scores_of(made, 4).tolist() == [8.0, 1.0, 0.0, -0.25]


def test_the_standalone_file_carries_the_payload_and_asks_for_nothing():
    made = payload()
    page = standalone_html(made)
    assert unpack(page) == made
    assert "<title>Attribution: emoji-llava</title>" in page
    assert "default-src 'none'" in page


def test_the_component_refuses_other_payloads():
    view = AttributionView()
    assert view.postprocess(payload())["schema"] == SCHEMA
    with pytest.raises(InterpError, match="The attribution view reads"):
        view.postprocess({"schema": "llava-microscope/lens-view/2"})
