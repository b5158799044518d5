"""The endpoints of studies as a stranger uses them: a real app and real gradio_client."""

import pytest
from gradio_client import Client

from tests.study.made_index import DEAD, DOG, EVIL, HOSTILE


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


def test_the_endpoints_are_documented(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    for name, first in (("/feature", "feature"), ("/find_features", "text")):
        parameters = {p["parameter_name"]: p for p in endpoints[name]["parameters"]}
        assert list(parameters) == [first, "study"]
        assert [each for each, p in parameters.items() if not p["parameter_has_default"]] == [first]


def test_a_feature(client):
    found = client.predict(feature=DOG, api_name="/feature")
    assert (found["schema"], found["study"]["name"], found["feature"], found["label"]) == (
        "llava-microscope/feature/1",
        "made-up",
        DOG,
        "dog",
    )
    assert found["top"][0]["active"] == [[0, 0, 32, 32, 4], [32, 0, 64, 32, 2]]
    assert client.predict(feature=float(DOG), study="made-up", api_name="/feature") == found
    assert client.predict(feature=EVIL, api_name="/feature")["scores"] == {HOSTILE: {"score": None, HOSTILE: 0.5}}


def test_search(client):
    found = client.predict(text="dog", api_name="/find_features")
    assert [each["feature"] for each in found["features"]] == [DOG, DEAD]


@pytest.mark.parametrize(
    ("endpoint", "asked", "message"),
    [
        ("/feature", {"feature": 2048}, "Feature 2048 does not exist: the study made-up has features 0 to 2047"),
        ("/feature", {"feature": "dog"}, "does not exist"),
        ("/feature", {"feature": None}, "does not exist"),
        ("/feature", {"feature": DOG, "study": "nope"}, "study is 'nope'; it must be one of made-up"),
        ("/find_features", {"text": ""}, "1 to 80 characters"),
        ("/find_features", {"text": 7}, "1 to 80 characters"),
    ],
)
def test_wrong_requests_are_answered_in_words(client, endpoint, asked, message):
    with pytest.raises(Exception, match=message):
        client.predict(**asked, api_name=endpoint)
