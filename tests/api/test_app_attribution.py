"""The attribution endpoint as a stranger uses it: a real app and real gradio_client."""

import json
from pathlib import Path

import pytest
from gradio_client import Client, handle_file

EXAMPLE = Path(__file__).parents[2] / "assets" / "examples" / "dog-and-pizza.webp"


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


def ask(client, **changes):
    return client.predict(**({"image": handle_file(EXAMPLE), "top_k": 5} | changes), api_name="/attribution")


def test_the_endpoint_is_documented(client):
    endpoint = client.view_api(return_format="dict")["named_endpoints"]["/attribution"]
    parameters = {p["parameter_name"]: p for p in endpoint["parameters"]}
    assert list(parameters) == ["image", "prompt", "model", "sae", "token", "baseline", "top_k", "max_new_tokens"]
    assert [name for name, p in parameters.items() if not p["parameter_has_default"]] == ["image"]
    assert {name: parameters[name]["parameter_default"] for name in ("token", "baseline", "top_k")} == {
        "token": "",
        "baseline": "",
        "top_k": 20,
    }
    assert parameters["token"]["python_type"]["type"] == "str | int"
    assert parameters["top_k"]["python_type"]["type"] == "int"


def test_the_features_that_carried_a_word(client):
    found, file = ask(client, token="pizza", baseline="cake")
    assert found["schema"] == "llava-microscope/attribution/1"
    assert (found["word"], found["index"], found["baseline"]) == (" pizza", 4, " cake")
    assert found["metric"] > 0
    scores = [feature["score"] for feature in found["features"]]
    assert scores == sorted(scores, key=lambda score: -abs(score))
    pizza = next(feature for feature in found["features"] if feature["label"] == "pizza")
    assert pizza["exact"] > 0
    best = max((value, row, col) for row, values in enumerate(pizza["map"][0]) for col, value in enumerate(values))
    assert best[1] in range(4, 8)
    assert best[2] in range(4, 8)
    assert len(found["error"]) == len(found["tokens"]) - 1
    ((module, chosen),) = json.loads(Path(file).read_text()).items()
    assert module.endswith("layers.3")
    assert pizza["feature"] in chosen


def test_a_number_is_as_good_as_a_word_and_the_first_content_word_is_the_default(client):
    named, _ = ask(client, token="dog")
    assert ask(client, token=1)[0] == named
    assert ask(client, token=None, baseline=None, sae=None)[0] == named


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "No picture"),
        ({"token": "giraffe"}, "'giraffe' is not a single token of the answer. Choose a token by its number: 0 'a', 1 'dog'"),
        ({"token": "a"}, "'a' is several tokens of the answer: 0, 3, 6"),
        ({"token": 11}, "Answer token 11 does not exist: the answer has 11 tokens, 0 to 10"),
        ({"token": -1}, "Answer token -1"),
        ({"token": {"word": "dog"}}, "Answer token"),
        ({"token": "dog", "baseline": "horizon"}, "'horizon' is [0-9]+ tokens for this model"),
        ({"token": "dog", "baseline": "dog"}, "baseline 'dog' is the token itself"),
        ({"baseline": 3}, "baseline is 3"),
        ({"sae": "no-such-sae"}, "'no-such-sae' is not a known SAE"),
        ({"top_k": 0}, "top_k is 0; it must be a whole number from 1 to 100"),
        ({"top_k": 101}, "top_k is 101"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
    ids=str,
)
def test_wrong_input_is_named(client, changes, message):
    with pytest.raises(Exception, match=message) as refused:
        ask(client, **changes)
    assert "Traceback" not in str(refused.value)
