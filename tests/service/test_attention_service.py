"""Maps of a word for the page and the API: computed once, checked, scored beside random maps."""

import pytest
import torch

import interp
from interp import InterpError
from interp.service import attention_service as module
from interp.service.attention_service import HEADS, AttentionService
from interp.service.attention_summary import summary
from interp.service.requests import METHODS, LensRequest, MapRequest, TraceRequest
from interp.service.service import Service
from tests import tiny

PROMPT = "Describe the image."


@pytest.fixture(scope="module")
def explaining():
    return AttentionService(Service())


@pytest.fixture(scope="module")
def trace(explaining):
    return explaining.service.trace(TraceRequest(tiny.noise(96, 96), PROMPT, max_new_tokens=3))


@pytest.fixture(scope="module")
def run(explaining):
    return explaining.service.remember(explaining.service.lens(LensRequest(tiny.noise(96, 96), PROMPT, max_new_tokens=3)))


def counted(monkeypatch, name):
    calls = []
    real = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **kwargs: calls.append(args) or real(*args, **kwargs))
    return calls


def spec(method, **fields):
    return {"method": method, "token": 1, "layer": None, "head": None, "over": "mean", "sinks": True} | fields


def test_attention_is_read_once_for_a_run_and_is_the_package_s_own(explaining, trace):
    found = explaining.attention(trace)
    assert explaining.attention(trace) is found
    assert torch.equal(found.weights, interp.attention(trace).weights)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_map_that_says_what_it_does_not_show(explaining, trace, method):
    found = explaining.patch_map(trace, MapRequest(1, method))
    assert found.token == trace.answer_start + 1
    assert found.values.shape == (trace.length,)
    assert found.note.endswith(".")


def test_maps_are_computed_once_for_a_word(explaining, trace, monkeypatch):
    calls = counted(monkeypatch, "rollout")
    first = explaining.patch_map(trace, MapRequest(2, "rollout"))
    assert explaining.patch_map(trace, MapRequest(2, "rollout")) is first
    explaining.patch_map(trace, MapRequest(2, "rollout", sinks=True))
    assert len(calls) == 2  # with and without sinks are two


def test_without_sinks_a_map_is_0_there_and_the_kept_one_stays(explaining, trace):
    sinks = list(explaining.attention(trace).sinks.all)
    with_them = explaining.patch_map(trace, MapRequest(1, "relevancy", sinks=True))
    without = explaining.patch_map(trace, MapRequest(1, "relevancy"))
    assert sinks
    assert not without.values[sinks].any()
    assert with_them.values[sinks].any()
    others = [i for i in range(trace.length) if i not in sinks]
    assert torch.equal(without.values[others], with_them.values[others])


def test_one_head_and_one_layer(explaining, trace):
    found = explaining.attention(trace)
    asked = MapRequest(1, layer=3, head=2, sinks=True)
    assert torch.equal(explaining.patch_map(trace, asked).values, found.weights[3, 2, 1])
    assert torch.allclose(explaining.patch_map(trace, MapRequest(1, layer=3, sinks=True)).values, found.weights[3, :, 1].mean(0))


def test_a_score_has_that_of_random_maps_beside_it_which_all_methods_share(explaining, trace, monkeypatch):
    calls = counted(monkeypatch, "faithfulness")
    score = explaining.score(trace, MapRequest(0, "activation_map", sinks=True))
    own = interp.faithfulness(interp.activation_map(trace, 0))
    assert (score["insertion"], score["deletion"]) == (own.insertion, own.deletion)
    assert 0 <= score["random_insertion"] <= 1
    other = explaining.score(trace, MapRequest(0, "attention", sinks=True))
    assert other["random_insertion"] == score["random_insertion"]
    assert len(calls) == 1 + module._RANDOM + 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"token": "giraffe"}, "'giraffe' is not a single token of the answer"),
        ({"token": 99}, "Answer token 99 does not exist"),
        ({"token": [1]}, "Answer token"),
        ({"method": "gradient"}, "method is 'gradient'; it must be one of attention"),
        ({"layer": 99}, "Layer 99"),
        ({"layer": -1}, "layer is -1"),
        ({"layer": 1, "head": 99}, "Head 99"),
        ({"method": "relevancy", "layer": 1}, "relevancy puts all layers and heads together"),
        ({"over": "median"}, "over is 'median'"),
        ({"sinks": "yes"}, "sinks"),
    ],
    ids=str,
)
def test_wrong_requests_are_named(explaining, trace, fields, message):
    with pytest.raises(InterpError, match=message):
        explaining.patch_map(trace, MapRequest.of({"token": 0} | fields))


def test_what_the_view_asks_for_is_in_the_file_without_a_server(explaining, run, trace):
    assert explaining.kept_payload(trace)["maps"] == []
    made = explaining.word_map(run, spec("rollout"))
    scored = explaining.test_map(run, spec("attention", sinks=False))
    kept = {item["spec"]["method"]: item for item in explaining.kept_payload(trace)["maps"]}
    assert kept["rollout"]["map"] == made
    assert kept["rollout"]["score"] is None
    assert kept["attention"]["score"] == scored
    assert kept["attention"]["spec"]["sinks"] is False


def test_requests_from_a_page_that_are_no_requests_and_runs_that_are_gone(explaining, run):
    for wrong in (None, 7, "attention", []):
        with pytest.raises(InterpError, match="it must be an object"):
            explaining.word_map(run, wrong)
    with pytest.raises(InterpError, match="Press Run"):
        explaining.word_map("gone", spec("attention"))


def test_the_view_opens_on_the_first_content_word_and_knows_which_methods_have_heads(explaining, trace):
    payload = explaining.payload(trace)
    assert payload["token"] == 1
    assert payload["quick"]
    assert {method["key"]: method["heads"] for method in payload["methods"]} == {method: method in HEADS for method in METHODS}
    assert all(method["note"] for method in payload["methods"] if method["heads"])


def test_the_summary_of_a_word(explaining, trace):
    asked = MapRequest(1, sinks=True)
    made = summary(explaining.attention(trace), explaining.patch_map(trace, asked), explaining.score(trace, asked))
    assert made["token"] == {"index": 1, "text": trace.tokens[trace.answer_start + 1].text, "position": trace.answer_start + 1}
    assert torch.tensor(made["map"][0]).shape == (8, 8)
    assert sum(made["shares"][kind][0] for kind in made["shares"]) == pytest.approx(1, abs=2e-3)
    row, col = made["readers"]["patch"]
    assert made["map"][0][row][col] == max(max(values) for values in made["map"][0])
    assert len(made["readers"]["read_by"]) == len(made["tokens"])
