"""Attribution for the page and the API: the package's own figures, computed once, and questions about them answered or refused."""

import pytest
import torch

import interp
from interp import InterpError
from interp.service import attribution_service as module
from interp.service.attribution_service import AttributionService
from interp.service.requests import MAX_ATTRIBUTED, AttributionRequest, TraceRequest
from interp.service.service import Service
from tests import tiny
from tests.ui.test_attribution_view import scores_of

PROMPT = "Describe the image."


@pytest.fixture(scope="module")
def attributing():
    return AttributionService(Service())


@pytest.fixture(scope="module")
def trace(attributing):
    return attributing.service.trace(TraceRequest(tiny.noise(96, 96), PROMPT, max_new_tokens=4))


@pytest.fixture(scope="module")
def key(attributing, trace):
    return attributing.service.remember(attributing.service.read(trace))


@pytest.fixture(scope="module")
def run(attributing, key):
    return attributing.payload(key, "")["run"]


def spec(token=1, baseline="", top=5):
    return {"token": token, "baseline": baseline, "top": top}


def test_it_is_the_package_s_own_attribution(attributing, trace):
    found = attributing.attribution(trace, AttributionRequest(token=1, baseline="whale", top_k=5))
    own = interp.attribute(trace, interp.load_sae("emoji-llava"), 1, "whale", top=5)
    assert [each.feature for each in found.features] == [each.feature for each in own.features]
    assert torch.allclose(
        torch.tensor([each.exact for each in found.features]), torch.tensor([each.exact for each in own.features]), atol=1e-4
    )
    assert found.baseline == " whale"


def test_a_word_is_attributed_once_for_an_sae(attributing, trace, run, monkeypatch):
    calls = []
    real = module.explained
    monkeypatch.setattr(module, "explained", lambda *args: calls.append(args) or real(*args))
    first = attributing.attribution(trace, AttributionRequest(token=2, top_k=3))
    assert attributing.attribution(trace, AttributionRequest("emoji-llava-sae", 2, "", 3)) is first
    attributing.attribute_word(run, spec(token=2, top=3))
    assert len(calls) == 1
    attributing.attribution(trace, AttributionRequest(token=2, top_k=4))
    assert len(calls) == 2


def test_its_memory_is_counted(attributing, trace):
    found = attributing.attribution(trace, AttributionRequest(token=1))
    assert found.nbytes > 20 * 2 * 4 * trace.length
    kept = attributing.service._derived.nbytes
    assert kept >= found.nbytes + found.encoding.nbytes + trace.nbytes


def test_the_view_opens_with_the_first_content_word_and_knows_what_else_could_be_said(attributing, trace, key):
    made = attributing.payload(key, "")
    (word,) = made["words"]
    assert word["spec"]["token"] == interp.tracing.select.content_word(trace)
    assert word["others"][0]["text"] == word["other"]
    chances = [other["probability"] for other in word["others"]]
    assert chances == sorted(chances, reverse=True)
    for other in word["others"][1:]:
        asked = attributing.attribute_word(made["run"], spec(word["spec"]["token"], other["text"], 1))
        assert asked["other"] == other["text"]


def test_one_feature_over_all_words_has_the_scores_of_each_word_s_attribution(attributing, trace, run):
    feature = attributing.attribution(trace, AttributionRequest(token=1)).features[0].feature
    made = attributing.feature_words(run, feature)
    assert [word["token"] for word in made["words"]] == list(range(len(trace.tokens) - trace.answer_start))
    for number, word in enumerate(made["words"]):
        found = attributing.attribution(trace, AttributionRequest(token=number, top_k=1))
        assert word["other"] == found.baseline
        assert torch.allclose(scores_of(word, trace.length), found.scores.of(feature), atol=1e-4)
    assert attributing.feature_words(run, feature) is made


def test_without_features_is_the_package_s_ablation(attributing, trace, run):
    features = [each.feature for each in attributing.attribution(trace, AttributionRequest(token=1)).features[:3]]
    made = attributing.without_features(run, {"token": 1, "features": features})
    own = interp.ablate_features(trace, interp.load_sae("emoji-llava"), features)
    assert made["plain"]["text"] == trace.answer
    assert made["changed"]["text"] == own.answer.text
    assert made["before"] == pytest.approx(float(own.probability[0][1]), abs=1e-5)
    assert made["after"] == pytest.approx(float(own.probability[1][1]), abs=1e-5)
    assert made["features"] == features


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda a, _: a.attribute_word("gone", spec()), "no longer keeps"),
        (lambda a, run: a.attribute_word(run, 3), "The request is 3"),
        (lambda a, run: a.attribute_word(run, spec(token=99)), "Answer token 99 does not exist"),
        (lambda a, run: a.attribute_word(run, spec(token="giraffe")), "not a single token of the answer"),
        (lambda a, run: a.attribute_word(run, spec(baseline="microscope slide")), "tokens"),
        (lambda a, run: a.attribute_word(run, spec(top=MAX_ATTRIBUTED + 1)), "top_k is 101"),
        (lambda a, run: a.feature_words(run, 2048), "Feature 2048 does not exist"),
        (lambda a, run: a.feature_words(run, "dog"), "'dog'"),
        (lambda a, run: a.without_features(run, {"token": 1, "features": []}), "features"),
        (lambda a, run: a.without_features(run, {"token": 1, "features": [2048]}), "Feature 2048"),
        (lambda a, run: a.without_features(run, {"token": 1, "features": list(range(101))}), "features has 101 entries"),
        (lambda a, run: a.without_features(run, {"features": [1]}), "Answer token"),
    ],
)
def test_wrong_questions_are_named(attributing, run, ask, message):
    with pytest.raises(InterpError, match=message):
        ask(attributing, run)


def test_an_sae_of_another_width_or_layer_is_refused(attributing, trace, monkeypatch):
    for layer, width, message in ((3, 64, "reads a residual stream of width 64"), (20, trace.states.shape[-1], "reads layer 20")):
        other = interp.Sae("other", "", layer, torch.ones(width, 4), torch.zeros(4), torch.ones(4, width), torch.zeros(width), "relu")
        monkeypatch.setattr(attributing.service.saes, "get", lambda *_, other=other: other)
        with pytest.raises(InterpError, match=message):
            attributing.attribution(trace, AttributionRequest("other", 1))


def test_a_model_without_an_sae_says_so(attributing, key, monkeypatch):
    monkeypatch.setattr(attributing.service.saes, "_sources", lambda _: {})
    with pytest.raises(InterpError, match="No SAE is known for"):
        attributing.payload(key, "")


def test_a_view_s_questions_are_about_its_own_trace_and_sae(attributing, key):
    made = attributing.payload(key, "emoji-llava-sae")
    assert made["run"] == f"{key} emoji-llava-sae"
    other = attributing.service.read(attributing.service.trace(TraceRequest(tiny.noise(96, 96, 1), PROMPT, max_new_tokens=4)))
    elsewhere = attributing.payload(attributing.service.remember(other), "emoji-llava-sae")
    assert attributing.attribute_word(made["run"], spec()) != attributing.attribute_word(elsewhere["run"], spec())
