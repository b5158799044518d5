"""Changed runs for the page and the API: the answer without some patches, and information flow."""

import pytest

import interp
from interp import InterpError
from interp.attention import evidence
from interp.service import whatif_service as module
from interp.service.requests import KnockoutRequest, LensRequest
from interp.service.service import Service
from interp.service.whatif_service import WAYS, WhatIfService
from tests import tiny

PROMPT = "Describe the image."


@pytest.fixture(scope="module")
def changing():
    return WhatIfService(Service())


@pytest.fixture(scope="module")
def lens(changing):
    return changing.service.lens(LensRequest(tiny.noise(96, 96), PROMPT, max_new_tokens=3))


@pytest.fixture(scope="module")
def run(changing, lens):
    return changing.service.remember(lens)


def patches(lens, count=3):
    return lens.trace.grids[0].positions.flatten()[:count].tolist()


@pytest.mark.parametrize("how", WAYS)
def test_the_answer_without_some_patches(changing, lens, run, how):
    chosen = patches(lens)
    found = changing.what_if(run, {"positions": chosen, "how": how})
    where = {"positions": chosen}
    own = interp.knockout(lens.trace, where, "all") if how == "knockout" else interp.ablate(lens.trace, where, how)
    assert found["plain"]["text"] == lens.trace.answer
    assert found["changed"] == {"text": own.answer.text, "finished": own.answer.finished}
    assert found["after"] == own.probability[1].tolist()
    assert found["kl"] == own.kl.tolist()
    assert "".join(piece["plain"] for piece in found["diff"]) == lens.trace.answer
    assert found["about"] == WAYS[how]


def test_the_fewest_patches_are_those_of_the_package(changing, lens, run, monkeypatch):
    monkeypatch.setattr(evidence, "_MOST", 2)  # each takes a run for every patch that is left
    found, own = changing.fewest_patches(run, 1), interp.smallest_evidence(lens.trace, 1)
    assert found["positions"] == list(own.patches)
    assert (found["flipped"], found["instead"], found["tried"]) == (own.flipped, own.instead, own.forwards)
    assert changing.fewest_patches(run, 1.0) == found
    with pytest.raises(InterpError, match="Answer token 99"):
        changing.fewest_patches(run, 99)


def test_a_search_that_takes_minutes_is_refused(changing, run, monkeypatch):
    monkeypatch.setattr(type(changing.service), "affordable", lambda _self, _vlm, positions: positions < 1000)
    with pytest.raises(InterpError, match=r"about 640 runs, too many for a page. Search from Python: interp.smallest_evidence\(trace, 1\)"):
        changing.fewest_patches(run, 1)


def test_flow_is_that_of_the_package_and_computed_once(changing, lens, run, monkeypatch):
    calls = []
    real = module.information_flow
    monkeypatch.setattr(module, "information_flow", lambda *args, **kwargs: calls.append(args) or real(*args, **kwargs))
    asked = {"token": 1, "window": 2, "positions": patches(lens)}
    found = changing.word_flow(run, asked)
    assert changing.word_flow(run, asked) == found
    assert len(calls) == 1
    own = interp.information_flow(lens.trace, 1, window=2, object={"positions": patches(lens)})
    assert {block["name"]: block["change"] for block in found["blocks"]} == dict(zip(own.blocks, own.change.tolist(), strict=True))
    assert found["centres"] == list(range(lens.trace.n_layers))
    assert not any("object" in block["name"] for block in changing.word_flow(run, asked | {"positions": []})["blocks"])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (None, "The request is None; it must be an object"),
        ({"how": "blur", "positions": [5]}, "how is 'blur'; it must be one of knockout, mean, zero"),
        ({"how": "knockout", "positions": []}, "positions"),
        ({"how": "mean", "positions": [0]}, "Choose image tokens only"),
        ({"how": "knockout", "positions": [9999]}, "Position 9999 does not exist"),
        ({"how": "mean"}, "positions"),
    ],
    ids=str,
)
def test_wrong_requests_of_a_page(changing, run, request_, message):
    with pytest.raises(InterpError, match=message):
        changing.what_if(run, request_)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"token": 99}, "Answer token 99"),
        ({"window": 0}, "window is 0"),
        ({"window": 99}, "window is 99"),
        ({"positions": [0]}, "object is"),
    ],
    ids=str,
)
def test_wrong_requests_for_flow(changing, run, fields, message):
    with pytest.raises(InterpError, match=message):
        changing.word_flow(run, {"token": 0, "window": 1, "positions": []} | fields)


def test_a_knockout_without_sources_is_refused_before_the_model_runs(changing):
    with pytest.raises(InterpError, match="sources is empty"):
        changing.knockout(KnockoutRequest(tiny.noise(96, 96), PROMPT))
