"""The endpoints that explain a word as a stranger uses them: a real app and real gradio_client."""

import json
from pathlib import Path

import pytest
from gradio_client import Client, handle_file

EXAMPLE = Path(__file__).parents[2] / "assets" / "examples" / "dog-and-pizza.webp"


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


def ask(client, **changes):
    return client.predict(**({"image": handle_file(EXAMPLE)} | changes), api_name="/attention")


def test_the_endpoint_is_documented(client):
    endpoint = client.view_api(return_format="dict")["named_endpoints"]["/attention"]
    parameters = {p["parameter_name"]: p for p in endpoint["parameters"]}
    assert list(parameters) == ["image", "prompt", "model", "token", "method", "layer", "head", "max_new_tokens"]
    assert [name for name, p in parameters.items() if not p["parameter_has_default"]] == ["image"]
    assert {name: parameters[name]["parameter_default"] for name in ("token", "method", "layer")} == {
        "token": "",
        "method": "attention",
        "layer": None,
    }
    assert parameters["layer"]["python_type"]["type"] == "int"
    assert parameters["token"]["python_type"]["type"] == "str | int"


def test_a_word_and_its_map(client):
    summary, file = ask(client, token="pizza", method="relevancy")
    assert summary["schema"] == "llava-microscope/attention-summary/1"
    assert summary["token"]["text"] == " pizza"
    grid = summary["map"][0]
    best = max((value, row, col) for row, values in enumerate(grid) for col, value in enumerate(values))
    assert best[1] in range(4, 8)
    assert best[2] in range(4, 8)
    assert summary["insertion"] > summary["random_insertion"]
    assert summary["deletion"] < summary["random_deletion"]
    assert "no proof" in summary["note"]
    everything = json.loads(Path(file).read_text())
    assert everything["schema"] == "llava-microscope/attention/1"
    assert [token["text"] for token in everything["tokens"]] == [token["text"] for token in summary["tokens"]]


def test_a_number_is_as_good_as_a_word_and_the_first_content_word_is_the_default(client):
    named, _ = ask(client, token="dog", layer=3, head=1)
    assert ask(client, token=1, layer=3, head=1)[0] == named
    assert ask(client, token=None, layer=3.0, head=1)[0] == named
    assert named["method"] == "attention, layer 3, head 1, without sinks"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "No picture"),
        ({"token": "giraffe"}, "'giraffe' is not a single token of the answer. Choose a token by its number: 0 'a', 1 'dog'"),
        ({"token": "a"}, "'a' is several tokens of the answer: 0, 3, 6"),
        ({"token": 11}, "Answer token 11 does not exist: the answer has 11 tokens, 0 to 10"),
        ({"token": -1}, "Answer token -1"),
        ({"token": [1]}, "Answer token"),
        ({"method": "gradient"}, "method is 'gradient'; it must be one of attention"),
        ({"layer": 8}, "Layer 8 is not here"),
        ({"layer": "first"}, "layer is 'first'"),
        ({"layer": 1, "head": 6}, "Head 6"),
        ({"method": "rollout", "layer": 2}, "rollout puts all layers and heads together"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
    ids=str,
)
def test_wrong_input_is_named(client, changes, message):
    with pytest.raises(Exception, match=message) as refused:
        ask(client, **changes)
    assert "Traceback" not in str(refused.value)


def cut(client, **changes):
    return client.predict(**({"image": handle_file(EXAMPLE), "sources": {"box": [1, 0, 4, 3]}} | changes), api_name="/knockout")


def test_the_knockout_is_documented(client):
    endpoint = client.view_api(return_format="dict")["named_endpoints"]["/knockout"]
    parameters = {p["parameter_name"]: p for p in endpoint["parameters"]}
    assert list(parameters) == ["image", "prompt", "model", "sources", "targets", "layers", "max_new_tokens"]
    assert [name for name, p in parameters.items() if not p["parameter_has_default"]] == ["image", "sources"]
    assert parameters["targets"]["parameter_default"] == "last"
    assert parameters["layers"]["python_type"]["type"].startswith("list[int]")


def test_without_the_dog_s_patches_the_answer_names_no_dog(client):
    found = cut(client, targets="all")
    assert found["schema"] == "llava-microscope/knockout/1"
    assert "dog" in found["plain"]
    assert "dog" not in found["answer"]
    plain, knocked = found["tokens"][1]["probability"]
    assert knocked < 0.1 < plain
    assert len(found["source_positions"]) == 16
    assert cut(client, targets="all", layers=[7])["layers"] == [7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "No picture"),
        ({"sources": None}, "sources is empty; it must name what cannot be read"),
        ({"sources": {"patches": []}}, "list of \\[row, column\\] pairs"),
        ({"sources": {"patches": [[8, 0]]}}, "row 8, column 0 does not exist"),
        ({"sources": "everything"}, "sources: where is 'everything'"),
        ({"sources": "all"}, "everything that row 74 .* can read in layer 0"),
        ({"targets": {"positions": [0]}}, "can read any of the sources"),
        ({"layers": [8]}, "Layer 8 does not exist"),
        ({"layers": []}, "layers"),
        ({"layers": "first"}, "layers"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
    ids=str,
)
def test_wrong_input_of_the_knockout_is_named(client, changes, message):
    with pytest.raises(Exception, match=message) as refused:
        cut(client, **changes)
    assert "Traceback" not in str(refused.value)
