"""What page and API ask of steering, without either."""

import shutil
import threading
from types import SimpleNamespace

import gradio as gr
import pytest

import interp
from interp import InterpError
from interp.presets import ASSETS
from interp.service.edit_requests import MAX_EDITS
from interp.service.questions import Questions
from interp.service.requests import LensRequest, Ranking, SteerRequest, TraceRequest
from interp.service.service import Service
from interp.service.steer_service import SteerRun, SteerService
from interp.ui.tabs.steer_listeners import SteerListeners, sweep_values
from interp.web.payloads.edits import SCHEMA, chip, found_chips, requests
from tests import tiny

PROMPT = "Describe the image."
OFF = [{"feature": 3, "target": 0}]


@pytest.fixture(scope="module")
def service():
    return Service()


@pytest.fixture(scope="module")
def steering(service):
    return SteerService(service)


@pytest.fixture(scope="module")
def trace(service):
    return service.trace(TraceRequest(tiny.noise(96, 96), PROMPT, max_new_tokens=4))


def test_the_editor_of_a_trace_knows_where_features_are_active(service, steering, trace):
    payload = steering.editor(trace, "key", None, None)
    assert payload["schema"] == SCHEMA
    assert payload["edits"] == []
    assert payload["sae"]["features"] == 2048
    assert payload["scene"]["grids"][0]["rows"] == 8
    encoding = service.features(trace, Ranking(where="all", top_k=1)).encoding
    feature = encoding.top(1, "image", "max").features[0]
    (found,) = found_chips(encoding, [feature.feature])
    assert found["max"] == pytest.approx(feature.max)
    assert found["active"] == feature.map(0).nonzero().tolist()
    moved = [{**found, "active": [], "max": None, "value": 2.5}, chip("another", 1, 7, "x")]
    payload = steering.editor(trace, "other", None, {**payload, "edits": moved, "swept": 1})
    assert payload["edits"] == [{**found, "value": 2.5}, moved[1]]
    assert payload["swept"] == 1


def test_the_edits_of_another_model_are_dropped(steering, trace):
    current = {"edits": [chip("a", 1, 2, "x")], "model": "another", "swept": 0}
    assert steering.editor(trace, "key", None, current)["edits"] == []


def test_features_are_found_by_number_and_by_name(service, steering, trace):
    key = service.remember(service.lens(LensRequest(tiny.noise(96, 96), PROMPT, max_new_tokens=4)))
    assert [c["feature"] for c in steering.steerable(key, "17")["features"]] == [17]
    found = steering.steerable(key, "blue")
    assert found["features"]
    assert "match 'blue'" in found["note"]
    largest = [c["max"] or 0 for c in found["features"]]
    assert largest == sorted(largest, reverse=True)
    together = found["all"]
    assert sorted(c["feature"] for c in together) == interp.load_sae("emoji-llava").labels.named("blue")
    assert {(c["unit"], c["value"], c["where"], c["on"]) for c in together} == {("target", 0.0, "image", True)}
    assert [c["max"] for c in together] == sorted((c["max"] for c in together), reverse=True)
    assert len(steering.steerable(key, "objects")["all"]) == 32
    assert steering.steerable(key, "17")["all"] == []
    with pytest.raises(InterpError, match="Feature 99999 does not exist"):
        steering.steerable(key, "99999")
    with pytest.raises(InterpError, match="1 to 80 characters"):
        steering.steerable(key, " ")


def test_only_chips_that_are_switched_on_are_asked_for():
    chips = [chip("s", 1, 2, "a", unit="target", value=0.0, where="image"), chip("s", 1, 3, "b", on=False)]
    assert requests(chips) == [{"sae": "s", "feature": 2, "target": 0.0, "where": "image"}]


def test_a_link_makes_the_same_chips(steering):
    made = chip("emoji-llava-sae", None, 5, "?", unit="amount", value=2.5, where={"patches": [[1, 1]]}, on=False)
    (again,) = steering.linked_editor({"edits": [made], "swept": 0})["edits"]
    assert {k: again[k] for k in ("sae", "feature", "unit", "value", "where", "on")} == {
        k: made[k] for k in ("sae", "feature", "unit", "value", "where", "on")
    }
    assert again["label"] != "?"  # a name from the SAE, not from the link


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"edits": ["x"]}, "must be an object with a feature"),
        ({"edits": [{"feature": 5, "unit": "push", "value": 1}]}, "An edit has the unknown key 'push'"),
        ({"edits": [{"feature": 5, "unit": "target", "value": float("nan")}]}, "finite number"),
        ({"edits": [{"feature": 99999, "unit": "target", "value": 0}]}, "Feature 99999"),
        ({"edits": [], "swept": 3}, "swept is 3"),
    ],
    ids=str,
)
def test_a_link_with_edits_that_cannot_be_is_refused(steering, state, message):
    with pytest.raises(InterpError, match=message):
        steering.linked_editor(state)


def test_a_link_for_another_model_is_refused_where_none_can_be_chosen():
    with pytest.raises(InterpError, match="this server runs only emoji-llava"):
        SteerService(Service(shared=True)).linked_editor({"model": "other", "edits": []})


HUGE = 10**5000  # too long for Python to write out


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (HUGE, "edits is"),
        ([HUGE], "An edit is"),
        ([{"feature": HUGE, "target": 0}], "Feature"),
        ([{"feature": 1, HUGE: 1, "x": 1}], "unknown key"),
        ([{"feature": 1, "target": 0, "sae": HUGE}], "sae of an edit is"),
        ([{"feature": 1, "target": HUGE}], "target is"),
        ([{"feature": 1, "target": 0, "where": HUGE}], "where is"),
    ],
    ids=["edits", "edit", "feature", "key", "sae", "target", "where"],
)
def test_a_huge_number_in_edits_is_a_named_error(steering, items, message):
    with pytest.raises(InterpError, match=f"{message}.*digits"):
        steering.edits(items)


@pytest.mark.parametrize(
    ("values", "message"), [(HUGE, "strengths is"), ([0] * 17, "has 17 entries"), ([], r"strengths is \[\]")], ids=["huge", "many", "none"]
)
def test_wrong_strengths_of_a_sweep_are_named(steering, values, message):
    with pytest.raises(InterpError, match=message):
        steering.sweep(SteerRequest(tiny.noise(96, 96), PROMPT), steering.edits(OFF)[0], values)


def test_too_many_edits_are_refused(steering):
    with pytest.raises(InterpError, match=f"at most {MAX_EDITS}"):
        steering.edits(OFF * (MAX_EDITS + 1))


def test_both_traces_of_a_steered_answer(service, steering, trace):
    made = steering.edits([{"feature": 3, "strength": 0.5, "where": "image"}])
    steered = steering.steer(SteerRequest(tiny.noise(96, 96), PROMPT, max_new_tokens=4), made)
    plain, other = steering.both_traces(service.remember(SteerRun(steered, TraceRequest(tiny.noise(96, 96), PROMPT, max_new_tokens=4))))
    layer = made[0].at
    assert plain is trace
    rows = trace.positions("prompt")
    assert other.residual(layer)[rows].equal(plain.residual(layer)[rows])
    image = trace.positions("image")
    assert not other.residual(layer)[image].equal(plain.residual(layer)[image])


def test_words_to_watch(steering):
    assert steering.watchable("emoji-llava", ["dog", "sailboat, snail", "pizza", "dog", "cat", "owl"]) == "dog, pizza, cat"
    made = steering.edits(OFF)
    with pytest.raises(InterpError, match="at most 8"):
        steering.steer(SteerRequest(tiny.noise(8, 8), PROMPT, words=",".join("abcdefghi")), made)


def test_a_visitor_stops_only_its_own_run(steering):
    with steering.runs.running("one") as one, steering.runs.running("two") as two:
        steering.runs.stop("one")
        steering.runs.stop("nobody")
        assert one.is_set()
        assert not two.is_set()
        with steering.runs.running("two") as newer:
            steering.runs.stop("two")
            assert newer.is_set()
    assert two.is_set()  # what is left goes on for no one


def test_a_stopped_run_says_so(steering):
    stop = threading.Event()
    made = steering.edits(OFF)
    with pytest.raises(InterpError, match="stopped"):
        steering.steer(SteerRequest(tiny.noise(96, 96), PROMPT), made, on_text=lambda _: stop.set(), stop=stop)


@pytest.mark.parametrize(
    ("made", "values"),
    [
        ({"unit": "strength", "value": 0.3}, [-0.5, -0.25, -0.125, 0, 0.125, 0.25, 0.3, 0.5]),
        ({"unit": "strength", "value": -2.0}, [-2, -1, -0.5, 0, 0.5, 1, 2]),
        ({"unit": "amount", "value": 0.0, "max": 4.0}, [-4, -2, -1, 0, 1, 2, 4]),
        ({"unit": "target", "value": 0.0, "max": 8.0}, [-8, -4, 0, 4, 8, 12, 16]),
        ({"unit": "target", "value": -3.0}, [-10, -5, -3, 0, 5, 10, 15, 20]),
    ],
    ids=str,
)
def test_the_values_of_a_sweep(made, values):
    assert sweep_values(chip("s", 1, 2, "x", **made)) == pytest.approx(values)


def test_the_editor_follows_the_sae_that_is_chosen(tmp_path):
    other = shutil.copytree(ASSETS / "emoji-llava-sae", tmp_path / "other")
    service = Service(sae=str(other))
    steering = SteerService(service)
    with gr.Blocks():
        run_key, sae_box, edits, told = gr.State(), gr.Dropdown(), gr.State(), gr.HTML()
    parts = SimpleNamespace(run_key=run_key, sae=sae_box, edits=edits, message=told)
    listeners = SteerListeners(service, steering, Questions(service), parts)
    run = service.remember(service.lens(LensRequest(tiny.noise(96, 96), PROMPT, max_new_tokens=4)))

    def look(sae, editor):
        *_, updates = listeners.look({run_key: run, sae_box: sae, edits: editor})
        assert updates[told] == ""
        return updates.get(edits)

    editor = look(None, None)
    assert editor["sae"]["name"] == "other"
    assert look("other", editor) is look("", editor) is None
    assert look("emoji-llava-sae", editor)["sae"]["name"] == "emoji-llava-sae"
    (found,) = steering.steerable(run, "17", "emoji-llava-sae")["features"]
    assert found["sae"] == "emoji-llava-sae"
