"""The Python side of the view that explains a word: what is in its payload, and its standalone file."""

import base64

import numpy as np
import pytest
import torch

import interp
from interp import InterpError
from interp.ui.components.attention_view import AttentionView
from interp.web.payloads.attention import SCHEMA, SHARES, attention_payload
from interp.web.standalone import standalone_html
from tests.ui.test_lens_view import unpack
from tests.web.attention_payload import payload

METHODS = [{"key": "attention", "name": "Attention", "about": "", "note": "", "heads": True}]


@pytest.fixture(scope="module")
def attention(trace):
    return interp.attention(trace)


def array(text, kind, *shape):
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), kind).copy()).reshape(shape)


def test_rows_are_within_half_a_step_of_the_weights(attention, trace):
    made = attention_payload(attention, 0, METHODS)
    keys = trace.positions("image")
    shape = (*attention.weights.shape[:3], len(keys))
    scale = array(made["row_scale"], "<f4", *shape[:3], 1)
    found = array(made["rows"], "u1", *shape).float() / 255 * scale
    assert (made["row_layers"], made["row_heads"]) == shape[:2]
    assert array(made["keys"], "<u2", len(keys)).tolist() == keys
    assert ((found - attention.weights[..., keys]).abs() <= scale / 509).all()


@pytest.mark.parametrize(("most", "kept"), [(1, (1, 1)), (None, None)])
def test_rows_that_would_be_too_large_are_means(attention, trace, most, kept):
    layers, _, queries = attention.weights.shape[:3]
    keys = trace.positions("image")
    made = attention_payload(attention, 0, METHODS, most=most or layers * queries * len(keys))
    shape = kept or (layers, 1)
    assert (made["row_layers"], made["row_heads"]) == shape
    mean = attention.weights[..., keys].mean(1, keepdim=True)
    mean = mean.mean(0, keepdim=True) if kept else mean
    scale = array(made["row_scale"], "<f4", *shape, queries, 1)
    found = array(made["rows"], "u1", *shape, queries, len(keys)).float() / 255 * scale
    assert torch.allclose(found, mean, atol=float(scale.max()) / 500)
    assert made["norms"] == ""


def test_shares_and_their_curves(attention):
    made = attention_payload(attention, 0, METHODS)
    layers, heads, queries = attention.weights.shape[:3]
    shares = (array(made["shares"], "u1", 4, layers, heads, queries).float() / 255) ** 2
    curves = array(made["curves"], "<f4", 4, layers, queries)
    for kind, name in enumerate(SHARES):
        assert torch.allclose(shares[kind], attention.share(name), atol=0.005)
        assert torch.allclose(curves[kind], attention.share(name).mean(1), atol=1e-6)


def test_the_standalone_file_carries_the_payload_and_asks_for_nothing():
    made = payload()
    page = standalone_html(made)
    assert unpack(page) == made
    assert "<title>Why this word: emoji-llava</title>" in page
    assert "default-src 'none'" in page


def test_the_component_refuses_other_payloads():
    view = AttentionView()
    assert view.postprocess(payload())["schema"] == SCHEMA
    with pytest.raises(InterpError, match="The attention view reads"):
        view.postprocess({"schema": "llava-microscope/lens-view/2"})
