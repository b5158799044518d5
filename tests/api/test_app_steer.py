"""The steering endpoints as a stranger uses them: a real app and real gradio_client."""

import json
from pathlib import Path

import pytest
from gradio_client import Client, handle_file

from interp.steering.published import KNOWN_STEERING

EXAMPLE = Path(__file__).parents[2] / "assets" / "examples" / "dog-and-pizza.webp"
OFF = [{"feature": 1, "target": 0}]
PLAIN = "a dog and a pizza on a blue background."


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


def steer(client, **changes):
    return client.predict(**({"image": handle_file(EXAMPLE), "edits": OFF} | changes), api_name="/steer")


def sweep(client, **changes):
    return client.predict(**({"image": handle_file(EXAMPLE), "feature": 1} | changes), api_name="/steer_sweep")


@pytest.mark.parametrize(
    ("endpoint", "names", "required"),
    [
        ("/steer", ["image", "prompt", "model", "sae", "edits", "max_new_tokens", "temperature", "seed", "words"], ["image", "edits"]),
        (
            "/steer_sweep",
            ["image", "prompt", "model", "sae", "feature", "where", "strengths", "max_new_tokens", "unit", "temperature", "seed"],
            ["image", "feature"],
        ),
    ],
)
def test_the_endpoints_are_documented(client, endpoint, names, required):
    parameters = {p["parameter_name"]: p for p in client.view_api(return_format="dict")["named_endpoints"][endpoint]["parameters"]}
    assert list(parameters) == names
    assert [name for name, p in parameters.items() if not p["parameter_has_default"]] == required


def test_a_strength_of_nothing_changes_nothing(client):
    result = steer(client, edits=[{"feature": 1, "strength": 0}], words="dog, pizza")
    assert result["plain"] == result["steered"] == PLAIN
    assert len(result["kl"]) == len(result["tokens"])
    assert max(result["kl"]) < 1e-5
    assert max(result["words"]["dog"]["plain"]) > 0.9
    assert result["words"]["dog"]["plain"] == pytest.approx(result["words"]["dog"]["steered"], abs=1e-5)
    assert result["edits"][0] | {"fired": 0} == {
        "sae": "emoji-llava-sae",
        "feature": 1,
        "layer": result["edits"][0]["layer"],
        "strength": 0,
        "where": "all",
        "fired": 0,
        "absolute": 0,
        "relative": 0,
    }


@pytest.mark.parametrize("known", [k for k in KNOWN_STEERING if k.model == "emoji-llava"], ids=lambda known: known.name)
def test_the_presets_of_the_embedded_model_change_the_answer(client, known):
    edits = [{"feature": edit.feature, edit.unit: edit.value, "where": edit.where} for edit in known.edits]
    result = steer(client, edits=edits)
    assert result["plain"] == PLAIN
    named = {"No pizza": (1, 0), "No dog": (0, 1), "Everything is pizza": (0, 2)}[known.name]
    assert (result["steered"].count("dog"), result["steered"].count("pizza")) == named
    assert result["steered"].endswith("on a blue background.")
    assert max(result["kl"]) > 0.3
    assert "".join(piece["steered"] for piece in result["diff"]).removesuffix("</s>").strip() == result["steered"]


def test_a_sweep_holds_the_single_answers(client):
    strengths = [-1, 0, 1]
    points = sweep(client, strengths=strengths, where="image")
    assert [point["strength"] for point in points] == strengths
    for point in points:
        single = steer(client, edits=[{"feature": 1, "strength": point["strength"], "where": "image"}])
        assert point["answer"] == single["steered"]
        assert point["kl"] == pytest.approx(sum(single["kl"]) / len(single["kl"]), rel=1e-3, abs=1e-5)
    assert sweep(client, strengths=[0, 4], unit="target")[1]["target"] == 4
    assert len(sweep(client)) == 7  # its own strengths


def test_places_and_whole_numbers_written_as_decimals(client):
    result = steer(client, edits=[{"feature": 1.0, "amount": 3, "where": {"patches": [[0, 0], [0, 1]]}}], max_new_tokens=4.0, seed=0.0)
    assert result["edits"][0]["fired"] == 2
    assert result["plain_finished"] is False


def test_temperature_is_reproducible_and_shared(client):
    first = steer(client, edits=[{"feature": 1, "strength": 0}], temperature=1.5, seed=3)
    assert first["plain"] == first["steered"]
    assert steer(client, edits=[{"feature": 1, "strength": 0}], temperature=1.5, seed=3)["plain"] == first["plain"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edits": []}, "edits is \\[\\]; it must be a list of at least one edit"),
        ({"edits": {"feature": 1, "target": 0}}, "it must be a list of at least one edit"),
        ({"edits": [{"feature": 1}]}, "exactly one of strength, amount and target; none was given"),
        ({"edits": [{"feature": 1, "target": 0, "strength": 1}]}, "strength and target was given"),
        ({"edits": [{"feature": 99999, "target": 0}]}, "Feature 99999 does not exist: emoji-llava-sae has features 0 to 2047"),
        ({"edits": [{"feature": "dog", "target": 0}]}, "feature is 'dog'; it must be a whole number"),
        ({"edits": [{"feature": 1, "target": "much"}]}, "target is 'much'; it must be a finite number"),
        ({"edits": [{"feature": 1, "strength": 1e38}]}, "not finite at token 0 of the answer. Push less"),
        (
            {"edits": [{"feature": 1, "push": 3}]},
            "An edit has the unknown key 'push'; the keys are feature, strength, amount, target, where, sae",
        ),
        ({"edits": [{"feature": 1, "target": 0, "where": "nowhere"}]}, "where is 'nowhere'; it must be one of image, prompt, answer, all"),
        ({"edits": [{"feature": 1, "target": 0, "where": {"patches": [[8, 0]]}}]}, "Patch row 8, column 0 does not exist"),
        ({"edits": [{"feature": 1, "target": 0, "sae": "no/such"}]}, "no/such"),
        ({"edits": ["dog"]}, "An edit is 'dog'; it must be an object with a feature"),
        ({"sae": "no/such"}, "no/such"),
        ({"temperature": -1}, "temperature is -1; it must be a finite number of at least 0"),
        ({"seed": -1}, "seed is -1; it must be a whole number"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"words": "dog, unheard-of thing"}, "tokens for this model|no piece"),
        ({"prompt": " "}, "The prompt is empty"),
        ({"image": None}, "No picture"),
    ],
)
def test_wrong_input_gets_a_named_error(client, changes, message):
    with pytest.raises(Exception, match=message):
        steer(client, **changes)


def test_a_request_after_wrong_ones_is_whole(client):
    assert steer(client)["plain"] == PLAIN


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strengths": []}, "strengths is \\[\\]; it must be a list of 1 to 16 numbers"),
        ({"strengths": [0, "x"]}, "strength is 'x'; it must be a finite number"),
        ({"strengths": [0] * 17}, "strengths has 17 entries; it must have at most 16"),
        ({"strengths": 3}, "1 to 16 numbers"),
        ({"unit": "push"}, "unit is 'push'; it must be one of strength, amount, target"),
        ({"feature": -1}, "Feature -1 does not exist"),
    ],
)
def test_wrong_sweeps_get_a_named_error(client, changes, message):
    with pytest.raises(Exception, match=message):
        sweep(client, **changes)


def test_edits_survive_json(client):
    """What the snippet on the page prints is what the endpoint takes."""
    edits = json.loads(json.dumps([{"sae": "emoji-llava-sae", "feature": 1, "target": 0.0, "where": "image"}]))
    assert steer(client, edits=edits)["edits"][0]["where"] == "image"
