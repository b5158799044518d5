"""What page and API call, without either: what is kept, what is computed once, what a shared server refuses."""

import base64
import dataclasses
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from interp import Features, InterpError, Lens
from interp.presets import PRESETS, KnownLens
from interp.service import catalogue, lens_shelf, sae_shelf
from interp.service import service as module
from interp.service.questions import Questions
from interp.service.requests import LensRequest, Ranking, TraceRequest
from interp.service.service import Service
from interp.web.payloads.lens import lens_payload, lens_reading
from interp.web.payloads.lens_texts import WHY_DEFAULT
from tests import tiny

PROMPT = "Describe the image."


@pytest.fixture(scope="module")
def service():
    return Service()


@pytest.fixture(scope="module")
def questions(service):
    return Questions(service)


@pytest.fixture(scope="module")
def trace(service):
    return service.trace(TraceRequest(tiny.noise(96, 96), PROMPT, max_new_tokens=4))


def counted(monkeypatch, name, module=module):
    calls = []
    real = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **kwargs: calls.append(args) or real(*args, **kwargs))
    return calls


def test_ranking_again_runs_and_encodes_nothing(service, trace, monkeypatch):
    service.features(trace)
    encoded = counted(monkeypatch, "encode")
    monkeypatch.setattr(service.vlm().model, "generate", lambda **_: pytest.fail("a second forward"))
    again = service.trace(TraceRequest(tiny.noise(96, 96), PROMPT, max_new_tokens=4))
    assert again is trace
    first = service.features(again, Ranking(rank_by="max", where="answer", top_k=3))
    second = service.features(again, Ranking(rank_by="frequency"))
    assert encoded == []
    assert first.encoding is second.encoding


def test_the_sae_is_loaded_once_by_threads_that_ask_together(monkeypatch):
    fresh = Service()
    loaded = counted(monkeypatch, "load_sae", sae_shelf)
    threads = [threading.Thread(target=fresh.saes.get, args=("", "emoji-llava")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 1
    assert fresh.saes.holds("emoji-llava-sae", "emoji-llava")
    assert fresh.saes.holds(None, "emoji-llava")
    assert not fresh.saes.holds("another", "emoji-llava")


def test_what_the_view_asks(service, questions, trace):
    run = service.remember(service.features(trace, Ranking(top_k=5)))
    there = questions.features_at(run, {"patches": [[0, 0]], "grid": 0})
    assert there["looked_at"] == 1
    assert there["active"] >= len(there["features"]) > 0
    number = there["features"][0]["feature"]
    found = questions.find_features(run, f" {number} ")
    assert [feature["feature"] for feature in found["features"]] == [number]
    near = questions.feature_details(run, number)["neighbours"]
    assert len(near) == 5
    assert all(isinstance(one["label"], str) and -1 <= one["cosine"] <= 1 for one in near)
    named = questions.find_features(run, "dog")
    assert "dog" in [feature["label"] for feature in named["features"]]
    assert "features match 'dog'" in named["note"]
    scores = [feature["score"] for feature in named["features"]]
    assert scores == sorted(scores, reverse=True)


def test_each_sae_gets_its_own_encoding_of_a_trace(service, trace):
    real = service.saes.get(None, "emoji-llava")
    other = dataclasses.replace(real, name="another", b_enc=real.b_enc - 1)
    first = service.features(trace)
    service.saes._held = {"another": other}
    second = service.features(trace, Ranking("another"))
    service.saes._held = {real.name: real}
    assert second.encoding.sae is other
    assert second.encoding is not first.encoding
    assert service.features(trace).encoding is first.encoding


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda s, run: s.features_at(run, "nowhere"), "where is 'nowhere'"),
        (lambda s, _: s.features_at("gone", "image"), "Press Run and try again"),
        (lambda s, _: s.features_at(None, "image"), "Press Run and try again"),
        (lambda s, _: s.features_at(["x"], "image"), "Press Run and try again"),
        (lambda s, run: s.find_features(run, ""), "1 to 80 characters"),
        (lambda s, run: s.find_features(run, "x" * 81), "1 to 80 characters"),
        (lambda s, run: s.find_features(run, 5), "1 to 80 characters"),
        (lambda s, run: s.find_features(run, "999999999"), "Feature 999999999 does not exist"),
        (lambda s, run: s.feature_details(run, -1), "feature is -1"),
        (lambda s, run: s.feature_details(run, "7"), "feature is '7'"),
        (lambda s, run: s.find_word(run, "dog"), "Press Run and try again"),  # the key of features is none of a lens
    ],
)
def test_wrong_questions_are_named(service, questions, trace, ask, message):
    run = service.remember(service.features(trace, Ranking(top_k=2)))
    with pytest.raises(InterpError, match=message):
        ask(questions, run)


def test_results_are_told_apart_and_old_ones_let_go(service, trace):
    found = service.features(trace, Ranking(top_k=2))
    run = service.remember(found)
    assert service.remembered(run, Features) is found
    with pytest.raises(InterpError, match="no longer keeps"):
        service.remembered(run, Lens)
    for _ in range(3 * module._REMEMBERED):
        service.remember(found)
    with pytest.raises(InterpError, match="no longer keeps"):
        service.remembered(run, Features)


def test_a_shared_server_takes_the_presets_saes_only():
    with pytest.raises(InterpError, match=r"on this server it must be one of emoji-llava-sae"):
        Service(shared=True).saes.get("gemma-2b-res-jb/blocks.12.hook_resid_post", "emoji-llava")
    with pytest.raises(InterpError, match=r"No SAE is known for 'llava-interleave-0\.5b'"):
        Service(model="llava-interleave-0.5b", shared=True).saes.get(None, "llava-interleave-0.5b")


def test_the_slow_import_waits_for_a_quiet_moment(monkeypatch):
    fresh = Service()
    monkeypatch.setattr(module, "_QUIET", 0.05)
    loaded = counted(monkeypatch, "load_sae", sae_shelf)
    ahead = threading.Thread(target=fresh.prepare_saes, daemon=True)
    ahead.start()
    ahead.join(0.3)
    assert ahead.is_alive()  # nobody was served yet
    assert loaded == []
    fresh.lens(LensRequest(tiny.noise(96, 96), PROMPT, max_new_tokens=2))
    ahead.join(60)
    assert not ahead.is_alive()
    assert len(loaded) == 1
    assert fresh.saes.holds(None, "emoji-llava")


def test_what_fits_counts_the_room_of_the_loaded_model(service, trace, monkeypatch):
    monkeypatch.setattr(catalogue, "free_bytes", lambda _device: 0)
    monkeypatch.setattr(type(service._slot), "nbytes", property(lambda _self: 10**12))
    assert all(model["fits"] for model in service.models())
    monkeypatch.setattr(type(service._slot), "nbytes", property(lambda _self: 0))
    assert not any(model["fits"] for model in service.models())
    assert [model["name"] for model in service.models() if model["loaded"]] == ["emoji-llava"]


def test_the_view_says_why_it_opens_where_it_does(service, trace, monkeypatch):
    view = lens_payload(service.read(trace))
    assert view["layers"][view["default"]] == 7
    assert view["why_default"] == PRESETS["emoji-llava"].default_layer_note
    monkeypatch.setattr(trace.vlm, "name", "another")
    view = lens_payload(service.read(dataclasses.replace(trace, model_name="another")))
    assert view["layers"][view["default"]] == 5
    assert view["why_default"] == WHY_DEFAULT["next"]


def test_each_lens_of_a_run_is_read_once_and_by_the_model_never(service, questions, trace, monkeypatch):
    run = service.remember(service.read(trace))
    monkeypatch.setattr(service.vlm().model, "generate", lambda **_: pytest.fail("a second forward"))
    reading = questions.read_lens(run, "embedding")
    assert (reading["method"], reading["reads"], reading["score"]) == ("embedding", "here", "cosine similarity")
    assert reading["layers"] == list(range(-1, 8))
    assert (reading["entropy"], reading["first"]) == ("", "")
    again = counted(monkeypatch, "on_gpu", lens_shelf)
    assert questions.read_lens(run, "embedding") == reading
    assert questions.read_lens(run, "")["method"] == "logit"
    assert again == []


def test_similarities_reach_the_view_with_their_range_and_a_scale_of_the_patches(service, questions, trace):
    run = service.remember(service.read(trace))
    lens = service.read_again(service.read(trace), "embedding")
    reading = lens_reading(lens)
    low, high = reading["range"]
    stored = low + np.frombuffer(base64.b64decode(reading["probs"]), np.uint8) / 255 * (high - low)
    np.testing.assert_allclose(stored, lens.probs.flatten().numpy(), atol=(high - low) / 500)
    top = lens.probs[:, trace.positions("image"), 0]
    assert top.max() < high  # text at the input is its own embedding
    for at, (least, most) in enumerate(reading["scale"]):
        assert top[at].min() <= least < most <= top[at].max()
    found = questions.find_word(run, "dog", "embedding")
    (low, high), values = found["range"], np.frombuffer(base64.b64decode(found["values"]), np.uint8)
    expected = lens.probability("dog").flatten().numpy()
    np.testing.assert_allclose(low + values / 255 * (high - low), expected, atol=(high - low) / 500)


def test_a_lens_that_a_model_lacks_is_named_with_those_it_has(service, questions, trace, monkeypatch):
    monkeypatch.setitem(PRESETS, "emoji-llava", dataclasses.replace(PRESETS["emoji-llava"], lenses=()))
    run = service.remember(service.read(trace))
    for method in ("magic", "tuned"):
        with pytest.raises(InterpError, match=f"method is '{method}'; emoji-llava has these lenses: logit, embedding"):
            service.lens(LensRequest(tiny.noise(96, 96), PROMPT, max_new_tokens=4, method=method))
        with pytest.raises(InterpError, match="has these lenses"):
            questions.read_lens(run, method)


def test_a_model_opens_with_the_lens_that_its_preset_names(service, trace, monkeypatch):
    best = KnownLens("embedding", "", "", "own noun on 60 % of patches", layer=2)
    preset = dataclasses.replace(PRESETS["emoji-llava"], opens_with="embedding", lenses=(best,))
    monkeypatch.setitem(PRESETS, "emoji-llava", preset)
    lens = service.lens(LensRequest(tiny.noise(96, 96), PROMPT, max_new_tokens=4))
    view = lens_payload(lens)
    assert (view["method"], view["layers"][view["default"]], view["best"]) == ("embedding", 2, view["default"])
    assert "Measured on this model: own noun on 60 % of patches." in view["methods"][0]["about"]
    assert lens_payload(lens, layer=5, locked=3)["layers"][6] == 5
    assert (lens_payload(lens, layer=5, locked=3)["default"], lens_payload(lens, locked=10**6)["locked"]) == (6, None)
    monkeypatch.setitem(PRESETS, "emoji-llava", dataclasses.replace(preset, opens_with="tuned"))
    assert service.lens_shelf.meant("", trace.vlm) == "logit"  # it is not there


def test_a_lens_that_would_take_long_reads_some_layers_unless_all_are_asked_for(service, trace, monkeypatch):
    monkeypatch.setitem(PRESETS, "emoji-llava", dataclasses.replace(PRESETS["emoji-llava"], lenses=()))
    picture = tiny.noise(96, 96)
    assert service.lens(LensRequest(picture, PROMPT, max_new_tokens=4)).layers == tuple(range(-1, 8))
    assert "states were read" not in str(lens_payload(service.read(trace))["notes"])
    monkeypatch.setattr(module, "_TFLOP", dict.fromkeys(module._TFLOP, 0.0))
    some = service.lens(LensRequest(picture, PROMPT, max_new_tokens=4))
    assert some.layers == (-1, 7)
    assert lens_payload(some)["notes"][-1] == "2 of 9 states were read."
    assert service.lens(LensRequest(picture, PROMPT, max_new_tokens=4, layers="all")).layers == tuple(range(-1, 8))
    with pytest.raises(InterpError, match="layers is 'five'; it must be one of auto, all"):
        LensRequest.of({"image": picture, "prompt": PROMPT, "layers": "five"})


def test_a_model_beside_another_is_loaded_as_that_one_is(checkpoint, monkeypatch):
    """Else a comparison would show what 4 bit change."""
    asked = []
    ready = SimpleNamespace(load=lambda _tell: None)
    monkeypatch.setattr(module, "fetch", lambda _name, *, quantize, **_: asked.append(quantize) or ready)
    service = Service(checkpoint("crop"), device="cpu")
    for model in (SimpleNamespace(is_loaded_in_4bit=True), SimpleNamespace()):
        service.beside(SimpleNamespace(model=model), "another")
    assert asked == ["4bit", "none"]
