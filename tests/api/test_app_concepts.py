"""The endpoints of concepts as a stranger uses them: a real app and real gradio_client."""

import dataclasses
import json
from pathlib import Path

import pytest
from gradio_client import Client, handle_file

from interp.concepts.concepts import Concepts
from interp.presets import PRESETS

EXAMPLE = Path(__file__).parents[2] / "assets" / "examples" / "dog-and-pizza.webp"
(KNOWN, *_) = PRESETS["emoji-llava"].concepts


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


def ask(client, **changes):
    return client.predict(**({"image": handle_file(EXAMPLE)} | changes), api_name="/concepts")


def test_the_endpoints_are_documented(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    parameters = {p["parameter_name"]: p for p in endpoints["/concepts"]["parameters"]}
    assert list(parameters) == ["image", "prompt", "model", "dictionary", "max_new_tokens"]
    assert [name for name, p in parameters.items() if not p["parameter_has_default"]] == ["image"]
    parameters = {p["parameter_name"]: p for p in endpoints["/concept_shift"]["parameters"]}
    assert list(parameters) == ["model", "adapter", "other", "dictionary"]
    assert all(p["parameter_has_default"] for p in parameters.values())


def test_the_concepts_of_a_picture(client):
    found, file = ask(client)
    concepts = Concepts.load(KNOWN.source)
    assert found["schema"] == "llava-microscope/concepts-here/1"
    assert found["answer"] == "a dog and a pizza on a blue background."
    assert (found["layer"], len(found["concepts"])) == (KNOWN.layer, len(concepts))
    for k, each in enumerate(found["concepts"]):
        assert (each["concept"], tuple(each["words"])) == (k, concepts.words[k])
        assert (len(each["map"][0]), len(each["map"][0][0])) == (8, 8)
        assert each["activation"] == pytest.approx(max(map(max, each["map"][0])))
    assert sorted(row for each in found["concepts"] for row in each["places"]) == sorted(
        {row for each in found["concepts"] for row in each["places"]}
    )
    full = json.loads(Path(file).read_text(encoding="utf-8"))
    assert full["concepts"] == found["concepts"]
    assert full["dictionary"]["concepts"][0]["examples"]
    assert ask(client, dictionary=KNOWN.name)[0] == ask(client, dictionary=None)[0] == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "No picture"),
        ({"dictionary": "no-such-dictionary"}, f"it must be one of {KNOWN.name}, or empty for the first"),
        ({"dictionary": 3}, "dictionary is 3"),
        ({"model": "smol-llava", "dictionary": ""}, "No dictionary of concepts is known for 'smol-llava'. Choose a model that has one"),
        ({"prompt": ""}, "prompt is empty"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
    ids=str,
)
def test_wrong_input_is_named(client, changes, message):
    with pytest.raises(Exception, match=message) as refused:
        ask(client, **changes)
    assert "Traceback" not in str(refused.value)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "Name the fine-tune of 'emoji-llava' as adapter or as other, neither was given"),
        ({"adapter": "a", "other": "b"}, "both were given"),
        ({"adapter": "no-such-adapter"}, "no-such-adapter"),
        ({"adapter": 3}, "adapter is 3"),
        ({"adapter": "a", "dictionary": "no-such-dictionary"}, f"it must be one of {KNOWN.name}, or empty for the first"),
    ],
    ids=str,
)
def test_a_fine_tune_that_cannot_be_compared_is_named(client, asked, message):
    with pytest.raises(Exception, match=message) as refused:
        client.predict(**asked, api_name="/concept_shift")
    assert "Traceback" not in str(refused.value)


def test_a_model_beside_itself_has_not_moved(client, tmp_path):
    concepts = Concepts.load(KNOWN.source)
    few = [examples[:1] if k < 8 else () for k, examples in enumerate(concepts.examples)]
    dataclasses.replace(concepts, examples=tuple(few)).save(tmp_path)
    shift = client.predict(other=str(PRESETS["emoji-llava"].checkpoint), dictionary=str(tmp_path), api_name="/concept_shift")
    assert shift["schema"] == "llava-microscope/concept-shift/1"
    assert len(shift["concepts"]) == len(concepts)
    assert max(one["relative"] for one in shift["concepts"]) < 1e-5
    assert all(pair["before"] == pair["after"] for one in shift["concepts"] for pair in one["answers"])
