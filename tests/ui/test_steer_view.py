"""The Python side of the steer view: payloads of real runs, what goes into the component and what it hands to the page."""

from __future__ import annotations

import json
import zlib

import gradio as gr
import pytest
import torch

import interp
from interp.errors import InterpError
from interp.steering.edit_hooks import EditEffect
from interp.steering.generation import Answer
from interp.ui.components.steer_view import SteerView
from interp.web.payloads.steer import place, running_payload, running_sweep, steer_payload, sweep_payload, text_diff
from tests import tiny
from tests.web import steer_payload as made_up
from tests.web.feature_payload import payload as feature_payload

PROMPT = "Describe the image."
SETTINGS = {"max_new_tokens": 8, "temperature": 0, "seed": 3}
VALUES = [0.3, -0.3, 0.0]
NOTHING = interp.Edit(vector=torch.ones(4), layer=0, strength=0.1)


@pytest.fixture(scope="module")
def sae():
    return interp.load_sae("emoji-llava")


@pytest.fixture(scope="module")
def edits(sae):
    return [interp.Edit(sae=sae, feature=5, strength=0.4), interp.Edit(vector=sae.W_dec[9].clone(), layer=2, amount=3.0, where="image")]


@pytest.fixture(scope="module")
def ran(emoji_vlm, edits):
    """A steered pair and the texts it showed on the way."""
    texts = []
    result = interp.steer(emoji_vlm, tiny.noise(96, 96), PROMPT, edits, words=["dog", "pizza"], on_text=texts.append, max_new_tokens=8)
    return result, texts


@pytest.fixture(scope="module")
def swept(emoji_vlm, edits):
    texts = []
    picture = tiny.noise(96, 96)
    sweep = interp.steer_sweep(
        emoji_vlm, picture, PROMPT, edits[0], VALUES, others=edits[1:], words=["dog"], on_text=texts.append, max_new_tokens=8
    )
    return sweep, texts


def sides(diff, side):
    return "".join(piece[side] for piece in diff)


def strict(payload):
    return json.loads(json.dumps(payload, allow_nan=False))


def test_a_real_pair_is_told_in_full(ran, sae):
    result, _ = ran
    payload = steer_payload(result, {**SETTINGS, "more": "is left out"}, {(sae.name, 5): "five"}, run="r1")
    assert strict(payload) == payload
    assert [payload[key] for key in ("schema", "run", "state", "model", "prompt", "settings", "sweep")] == [
        "llava-microscope/steer-view/1",
        "r1",
        "done",
        "emoji-llava",
        PROMPT,
        SETTINGS,
        None,
    ]
    assert payload["plain"] == {"text": result.plain, "finished": result.plain_answer.finished}
    assert payload["steered"] == {"text": result.steered, "finished": result.steered_answer.finished}
    assert payload["tokens"] == list(result.plain_answer.tokens)
    assert payload["kl"] == pytest.approx(result.kl, rel=1e-4)
    assert [word["word"] for word in payload["words"]] == ["dog", "pizza"]
    for word in payload["words"]:
        assert word["plain"] == pytest.approx(result.words[word["word"]][0], rel=1e-4)
        assert word["steered"] == pytest.approx(result.words[word["word"]][1], rel=1e-4)
    feature, vector = payload["edits"]
    first, second = result.applied
    assert feature == {
        "label": "five",
        "feature": 5,
        "sae": sae.name,
        "layer": sae.layer,
        "unit": "strength",
        "value": 0.4,
        "where": "everywhere except BOS and attention sinks",
        "fired": first.fired,
        "absolute": pytest.approx(first.absolute, rel=1e-4),
        "relative": pytest.approx(first.relative, rel=1e-4),
    }
    assert [vector[key] for key in ("label", "feature", "sae", "layer", "unit", "value", "where", "fired")] == [
        "a vector at layer 2",
        None,
        None,
        2,
        "amount",
        3.0,
        "image tokens",
        second.fired,
    ]


def test_a_feature_without_a_name_has_none(ran, sae):
    result, _ = ran
    assert steer_payload(result, SETTINGS, {(sae.name, 6): "six", ("another", 5): "no"})["edits"][0]["label"] == ""


def test_the_diff_of_a_real_pair_reads_as_the_answers_do(ran, swept):
    for result in (ran[0], *swept[0].runs):
        diff = text_diff(result)
        assert sides(diff, "plain") == result.plain
        assert sides(diff, "steered") == result.steered
        assert any(piece["op"] != "equal" for piece in diff) == (result.plain != result.steered)


def test_a_real_sweep_is_told_in_full(swept, sae):
    sweep, _ = swept
    payload = sweep_payload(sweep, {(sae.name, 5): "five"}, current=-0.3)
    assert strict(payload) == payload
    points = payload.pop("points")
    assert payload == {
        "state": "done",
        "unit": "strength",
        "label": "five",
        "feature": 5,
        "sae": sae.name,
        "layer": sae.layer,
        "others": 1,
        "current": -0.3,
    }
    assert [point["value"] for point in points] == VALUES
    for point, told, run in zip(points, sweep.to_list(), sweep.runs, strict=True):
        assert [point["answer"], point["finished"]] == [told["answer"], run.steered_answer.finished]
        assert [point["kl"], point["relative"]] == pytest.approx([told["kl"], told["relative"]], rel=1e-3)
        assert sides(point["diff"], "steered") == run.steered


def test_what_runs_has_the_same_fields_and_the_texts_so_far(ran, swept, sae, edits):
    result, texts = ran
    payloads = [running_payload("emoji-llava", PROMPT, SETTINGS, *text, run="r1") for text in texts]
    assert len(payloads) > 1
    done = steer_payload(result, SETTINGS, {}, run="r1")
    assert all(payload.keys() == done.keys() for payload in payloads)
    assert [payloads[-1][side]["text"] for side in ("plain", "steered")] == [result.plain, result.steered]
    assert {payload["state"] for payload in payloads} == {"running"}
    assert {payload["kl"] for payload in payloads} == {None}
    sweep, texts = swept
    strip = running_sweep(edits[0], VALUES, texts[-1][1:], {(sae.name, 5): "five"}, others=1, current=-0.3)
    whole = sweep_payload(sweep, {(sae.name, 5): "five"}, current=-0.3)
    assert {**strip, "state": "done", "points": None} == {**whole, "points": None}
    assert [point.keys() for point in strip["points"]] == [point.keys() for point in whole["points"]]
    assert [point["answer"] for point in strip["points"]] == [run.steered for run in sweep.runs]
    beside = running_payload("emoji-llava", PROMPT, SETTINGS, "a", "", stopped=True, sweep=strip)
    assert (beside["state"], beside["sweep"]) == ("stopped", strip)
    assert running_sweep(edits[0], VALUES, ["", "", ""], {}, stopped=True)["state"] == "stopped"
    with pytest.raises(ValueError, match="shorter"):
        running_sweep(edits[0], VALUES, ["only one"], {})


def test_the_payloads_of_the_tests_have_the_fields_of_real_ones(ran, swept):
    pair, sweep = steer_payload(ran[0], SETTINGS, {}), sweep_payload(swept[0], {})
    assert made_up.payload().keys() == pair.keys() == made_up.running("", "").keys()
    assert made_up.edit().keys() == pair["edits"][0].keys()
    assert made_up.payload()["words"][0].keys() == pair["words"][0].keys()
    assert made_up.sweep().keys() == sweep.keys()
    assert made_up.sweep()["points"][0].keys() == sweep["points"][0].keys()


def answer(text, tokens, end="</s>"):
    ids = tuple(zlib.crc32(token.encode()) for token in tokens)
    return Answer(text, ids, tuple(tokens), bool(tokens) and tokens[-1] == end)


def pair(plain, steered, kl=None, words=None):
    applied = (EditEffect(NOTHING, 3, 1.0, 0.1),)
    return interp.SteeringResult("model", PROMPT, plain, steered, applied, kl or (0.1,) * len(plain.tokens), words or {})


def ops(diff):
    return [(piece["op"], piece["plain"], piece["steered"]) for piece in diff]


DOG = answer("a dog.", [" a", " dog", ".", "</s>"])


@pytest.mark.parametrize(
    ("plain", "steered", "wanted"),
    [
        (DOG, DOG, [("equal", "a dog.", "a dog.")]),
        (DOG, answer("a cat.", [" a", " cat", ".", "</s>"]), [("equal", "a", "a"), ("replace", " dog", " cat"), ("equal", ".", ".")]),
        # one of the two was cut: its missing end is no word that was removed
        (DOG, answer("a dog.", [" a", " dog", "."]), [("equal", "a dog.", "a dog.")]),
        (DOG, answer("a dog. a", [" a", " dog", ".", " a"]), [("equal", "a dog.", "a dog."), ("insert", "", " a")]),
        (DOG, answer("", ["</s>"]), [("delete", "a dog.", "")]),
        (answer("", ["</s>"]), DOG, [("insert", "", "a dog.")]),
        (answer("", ["</s>"]), answer("", ["</s>"]), []),
        (DOG, answer("big dog.", [" big", " dog", ".", "</s>"]), [("replace", "a", "big"), ("equal", " dog.", " dog.")]),
        # the pieces of a character, or a special token on the way, do not read as the answer does
        (
            answer("a 🐶.", [" a", " ", "<0xF0>", "<0x9F>", "<0x90>", "<0xB6>", ".", "</s>"]),
            answer("a 🐱.", [" a", " ", "<0xF0>", "<0x9F>", "<0x90>", "<0xB1>", ".", "</s>"]),
            [("equal", "a", "a"), ("replace", " 🐶.", " 🐱.")],
        ),
        (DOG, answer("a dog dog", [" a", " dog", "<pad>", " dog"]), [("equal", "a", "a"), ("replace", " dog.", " dog dog")]),
    ],
)
def test_diffs_read_as_the_answers_do(plain, steered, wanted):
    diff = text_diff(pair(plain, steered))
    assert ops(diff) == wanted
    assert sides(diff, "plain") == plain.text
    assert sides(diff, "steered") == steered.text


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_figures_that_are_not_finite_are_refused(broken):
    kl = (0.1, broken, 0.1, 0.1)
    with pytest.raises(InterpError, match=r"KL is (nan|inf) at token 1 of the plain answer"):
        steer_payload(pair(DOG, DOG, kl), SETTINGS, {})
    with pytest.raises(InterpError, match="KL is"):
        sweep_payload(interp.Sweep((0.1,), NOTHING, (pair(DOG, DOG, kl),)), {})
    with pytest.raises(InterpError, match="probability of 'dog' is"):
        steer_payload(pair(DOG, DOG, words={"dog": ((0.1,) * 4, kl)}), SETTINGS, {})


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("all", "everywhere except BOS and attention sinks"),
        ("image", "image tokens"),
        ("prompt", "prompt tokens"),
        ("answer", "the answer and the position before it"),
        ({"patches": [[0, 2]]}, "patch row 1, column 3"),
        ({"patches": [[0, 2], [1, 1]], "grid": 0}, "2 patches"),
        ({"patches": [[0, 2], [1, 1]], "grid": 1}, "2 patches of grid 2"),
        ({"box": [0, 1, 3, 4]}, "patches of rows 1 to 4, columns 2 to 5"),
        ({"positions": [7]}, "position 7"),
        ({"positions": [1, 2, 3]}, "3 positions: 1, 2, 3"),
        ({"positions": range(9)}, "9 positions: 0, 1, 2, 3, 4, 5, …"),
    ],
)
def test_places_in_words(where, words):
    assert place(where) == words


def test_component_passes_payloads_and_nothing():
    made = made_up.payload()
    assert SteerView().postprocess(None) is None
    assert SteerView().postprocess(made) == made
    assert SteerView(made).get_config()["value"] == made
    assert SteerView().preprocess(made) == made
    assert SteerView().preprocess(None) is None
    assert SteerView().api_info()["type"] == "object"


@pytest.mark.parametrize("value", [{}, {"schema": "llava-microscope/steer-view/2"}, "text", ["list"], feature_payload()])
def test_another_kind_of_value_is_refused_by_name(value):
    with pytest.raises(InterpError, match=r"steer view reads .llava-microscope/steer-view/1"):
        SteerView().postprocess(value)


def test_component_builds_inside_blocks_and_its_select_is_an_event():
    with gr.Blocks() as demo:
        view = SteerView()
        gr.Button().click(lambda: None, outputs=view, api_name="look")
        view.select(lambda: None)
    returned = demo.get_api_info()["named_endpoints"]["/look"]["returns"][0]
    assert returned["type"]["type"] == "object"
    assert [view._id, "select"] in [list(target) for made in demo.config["dependencies"] for target in made["targets"]]
