"""The SAE endpoint as a stranger uses it: a real app and real gradio_client."""

from pathlib import Path

import pytest
from gradio_client import Client, handle_file

EXAMPLE = Path(__file__).parents[2] / "assets" / "examples" / "dog-and-pizza.webp"


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


def ask(client, **changes):
    return client.predict(**({"image": handle_file(EXAMPLE)} | changes), api_name="/sae_features")


def test_the_endpoint_is_documented(client):
    endpoint = client.view_api(return_format="dict")["named_endpoints"]["/sae_features"]
    parameters = {p["parameter_name"]: p for p in endpoint["parameters"]}
    assert list(parameters) == ["image", "prompt", "model", "sae", "where", "rank_by", "top_k", "max_new_tokens"]
    assert [name for name, p in parameters.items() if not p["parameter_has_default"]] == ["image"]
    assert {name: parameters[name]["parameter_default"] for name in ("where", "rank_by", "top_k")} == {
        "where": "image",
        "rank_by": "mean",
        "top_k": 10,
    }


def test_the_features_of_a_picture(client):
    found = ask(client, top_k=40)
    assert found["schema"] == "llava-microscope/sae-features/1"
    assert found["sae"]["name"] == "emoji-llava-sae"
    assert found["sae"]["layer"] == 3
    assert found["sae"]["notes"] == []
    assert found["left_out"] == [0]
    assert len(found["features"]) == 40 <= found["active"]
    scores = [feature["score"] for feature in found["features"]]
    assert scores == sorted(scores, reverse=True)
    assert found["quality"]["image"]["explained_variance"] > 0.85
    assert found["quality"]["image"]["trained"]["explained_variance"] > 0.9
    by_label = {feature["label"]: feature for feature in found["features"]}
    assert {"dog", "pizza", "blue"} <= set(by_label)
    for name, row, col in (("dog", 2, 2), ("pizza", 5, 5)):  # the patches in the middle of each
        feature = by_label[name]
        assert feature["map"][0][row][col] > 0.3 * feature["max"]
        assert "AUROC" in feature["label_source"]
    assert by_label["dog"]["map"][0][0][7] == 0  # the corner far from it


@pytest.mark.parametrize(
    ("where", "looked_at", "label"),
    [
        ("image", 64, None),
        ("all", 84, None),
        ("answer", 10, None),
        ({"patches": [[2, 2]]}, 1, "dog"),
        ({"box": [5, 5, 6, 6], "grid": 0}, 4, "pizza"),
        ({"positions": [4, 5]}, 2, None),
    ],
    ids=str,
)
def test_where(client, where, looked_at, label):
    found = ask(client, where=where)
    assert found["tokens_looked_at"] == looked_at
    assert label is None or label in [feature["label"] for feature in found["features"][:3]]


@pytest.mark.parametrize("rank_by", ["mean", "max", "frequency"])
def test_rank_by(client, rank_by):
    found = ask(client, rank_by=rank_by)
    assert [feature["score"] for feature in found["features"]] == [feature[rank_by] for feature in found["features"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "No picture"),
        ({"prompt": ""}, "prompt is empty"),
        ({"sae": "no-such-sae"}, "'no-such-sae' is not a known SAE"),
        ({"sae": "/no/such/folder"}, "no folder"),
        ({"sae": str(EXAMPLE.parent)}, "holds no SAE"),
        ({"model": "no-such-model"}, "neither a known model nor a folder"),
        ({"where": "everywhere"}, "where is 'everywhere'; it must be one of image, prompt, answer, all"),
        ({"where": {"patch": [1, 1]}}, "in one of three ways"),
        ({"where": {"patches": [[8, 0]]}}, "row 8, column 0 does not exist"),
        ({"where": {"patches": []}}, "list of \\[row, column\\] pairs"),
        ({"where": {"box": [3, 3, 1, 1]}}, "box is"),
        ({"where": {"positions": [1000]}}, "Position 1000 does not exist"),
        ({"where": {"patches": [[0, 0]], "grid": 3}}, "Grid 3 does not exist"),
        ({"where": [1, 2]}, "where is"),
        ({"rank_by": "median"}, "rank_by is 'median'"),
        ({"top_k": 0}, "top_k is 0; it must be a whole number from 1 to 200"),
        ({"top_k": 201}, "top_k is 201"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
    ids=str,
)
def test_wrong_input_is_named(client, changes, message):
    with pytest.raises(Exception, match=message) as refused:
        ask(client, **changes)
    assert "Traceback" not in str(refused.value)


def test_empty_values_mean_the_defaults(client):
    plain = ask(client)
    assert ask(client, sae="", model="emoji-llava", where=None) == plain


def test_whole_numbers_are_integers_and_where_is_a_word_or_an_object(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    types = {(name, p["parameter_name"]): p["python_type"]["type"] for name in endpoints for p in endpoints[name]["parameters"]}
    for (name, parameter), kind in types.items():
        if parameter in {"top_k", "max_new_tokens", "seed", "feature"}:
            assert kind == "int"
        if parameter == "where" and name != "/learn_concepts":  # there it may be any word of the answer
            assert kind.startswith("Literal['image', 'prompt', 'answer', 'all'] | dict(")
    assert types["/steer", "temperature"] == "float"
