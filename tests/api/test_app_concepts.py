"""The endpoints of concepts as a stranger uses them: a real app and real gradio_client."""

import dataclasses
import json
import zipfile
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


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A zip of the example pictures."""
    file = tmp_path_factory.mktemp("zip") / "pictures.zip"
    with zipfile.ZipFile(file, "w") as made:
        for picture in sorted(EXAMPLE.parent.glob("*.webp")):
            made.write(picture, picture.name)
    return file


def test_a_dictionary_is_learned_from_a_zip_used_and_taken_away(client, pictures, tmp_path):
    learned, file = client.predict(pictures=handle_file(pictures), n=3, max_new_tokens=4, api_name="/learn_concepts")
    assert (learned["method"], learned["layer"], len(learned["concepts"])) == ("k-means", KNOWN.layer, 3)
    assert 0 < learned["fit"]["fvu_zero"] < learned["fit"]["fvu"] < 1
    found, _ = ask(client, dictionary=learned["dictionary"])
    assert [each["words"] for each in found["concepts"]] == [each["words"] for each in learned["concepts"]]
    with zipfile.ZipFile(file) as packed:
        packed.extractall(tmp_path)
    (folder,) = tmp_path.iterdir()
    loaded = Concepts.load(folder).to_dict()
    assert {name: loaded[name] for name in ("fit", "where", "objective", "states")} == {
        name: learned[name] for name in ("fit", "where", "objective", "states")
    }
    assert [each["sample"] for concept in loaded["concepts"] for each in concept["examples"]] == [
        each["sample"] for concept in learned["concepts"] for each in concept["examples"]
    ]
    again, _ = ask(client, dictionary=str(folder))
    assert again["concepts"] == found["concepts"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "Learning needs a zip of pictures, or a folder: neither was given"),
        ({"pictures": EXAMPLE}, "no zip, or a damaged one"),
        ({"folder": "/nowhere"}, "no such folder"),
        ({"folder": str(EXAMPLE.parent), "n": 1000}, "n is 1000"),
        ({"folder": str(EXAMPLE.parent), "where": "zebra", "max_new_tokens": 1}, "no sample had the state"),
        ({"folder": str(EXAMPLE.parent), "method": "magic"}, "method is 'magic'"),
    ],
    ids=str,
)
def test_what_cannot_be_learned_is_named(client, asked, message):
    if "pictures" in asked:
        asked = {"pictures": handle_file(asked["pictures"])}
    with pytest.raises(Exception, match=message) as refused:
        client.predict(**asked, api_name="/learn_concepts")
    assert "Traceback" not in str(refused.value)


def test_a_path_of_the_server_is_no_zip(client, pictures):
    with pytest.raises(Exception, match="Send the zip as a file"):
        client.predict(pictures=str(pictures), api_name="/learn_concepts")


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
