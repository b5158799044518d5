"""What no honest client sends: each input gets an error in words, none a traceback in the log, and the next call is unharmed."""

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from gradio_client import Client, handle_file

from interp.presets import ASSETS

EXAMPLE = ASSETS / "examples" / "dog-and-pizza.webp"
PROMPT, MODEL = "Describe the image.", "emoji-llava"
LONG = 10**40
FILE = {"_type": "gradio.FileData"}
A_FILE = "Send the picture as a file"
WEB = httpx.Client(timeout=60)
UPLOADED = object()  # in its place comes the example, uploaded

LENS = {"image": UPLOADED, "prompt": PROMPT, "model": MODEL, "top_k": 5, "max_new_tokens": 4, "layers": "auto", "method": "logit"}
FEATURES = {
    **{name: LENS[name] for name in ("image", "prompt", "model")},
    "sae": "",
    "where": "image",
    "rank_by": "mean",
    "top_k": 5,
    "max_new_tokens": 4,
}
STEER = {
    **{name: LENS[name] for name in ("image", "prompt", "model")},
    "sae": "",
    "edits": [{"feature": 1, "target": 0}],
    "max_new_tokens": 4,
    "temperature": 0,
    "seed": 0,
    "words": "",
}
SWEEP = {
    **{name: LENS[name] for name in ("image", "prompt", "model")},
    "sae": "",
    "feature": 1,
    "where": "all",
    "strengths": [0],
    "max_new_tokens": 4,
    "unit": "strength",
    "temperature": 0,
    "seed": 0,
}
USUAL = {"logit_lens": LENS, "sae_features": FEATURES, "steer": STEER, "steer_sweep": SWEEP}

WRONG = [
    *(("steer_sweep", {"feature": value}, "feature is") for value in (float("nan"), float("inf"), "dog", [1], {"a": 1}, None, 1.5, True)),
    ("steer_sweep", {"feature": LONG}, "does not exist"),
    ("steer_sweep", {"unit": {}}, "unit is"),
    ("steer_sweep", {"strengths": [10**400]}, "strength is"),
    ("steer_sweep", {"strengths": {"a": 1}}, "strengths is"),
    ("steer_sweep", {"where": "\ud800"}, "where is"),
    ("steer_sweep", {"where": {"positions": [LONG]}}, "does not exist"),
    *(("logit_lens", {"top_k": value}, "top_k is") for value in (LONG, 10**400, "5", [5], None, True)),
    ("logit_lens", {"max_new_tokens": LONG}, "max_new_tokens is"),
    ("steer", {"seed": LONG}, "seed is"),
    ("steer", {"temperature": {}}, "temperature is"),
    ("logit_lens", {"prompt": "a \ud800"}, "prompt holds half of a character"),
    ("logit_lens", {"prompt": ["a"]}, "prompt is"),
    ("logit_lens", {"prompt": {"path": "/etc/hostname", "meta": FILE}}, "prompt takes no file"),
    ("logit_lens", {"model": "\ud800"}, "model holds half of a character"),
    ("sae_features", {"sae": ["x"]}, "sae is"),
    ("sae_features", {"sae": "\udfff"}, "sae holds half of a character"),
    ("sae_features", {"rank_by": ["mean"]}, "rank_by is"),
    ("steer", {"words": "dog, \ud800"}, "words holds half of a character"),
    ("steer", {"words": 5}, "words is"),
    ("steer", {"edits": [{"path": "/etc/hostname", "meta": FILE}]}, "edits takes no file"),
    ("steer", {"edits": [{"feature": "\ud800", "target": 0}]}, "feature is"),
    ("steer", {"edits": [[[[[]]]]]}, "An edit is"),
    *(
        ("logit_lens", {"image": value}, A_FILE)
        for value in (
            "/etc/hostname",
            "{url}/config",
            5,
            True,
            [1, 2],
            [UPLOADED],
            {},
            {"path": "/etc/hostname"},
            {"path": "/etc/hostname", "meta": FILE},
            {"path": "/etc/hostname", "is_stream": True, "meta": FILE},
            {"path": "{url}/config", "meta": FILE},
            {"url": "{url}/config", "path": "picture.png"},
            {"path": None, "meta": FILE},
            {"path": 5, "meta": FILE},
            {"path": "\ud800", "meta": FILE},
            {"path": "a\0b", "meta": FILE},
            {"path": UPLOADED, "meta": FILE},
        )
    ),
]


@pytest.fixture(scope="module")
def uploaded(url):
    """The example as gradio describes it after its upload."""
    answer = WEB.post(f"{url}/gradio_api/upload", files={"files": ("a.webp", EXAMPLE.read_bytes())})
    return {"path": answer.json()[0], "meta": FILE}


@pytest.fixture
def untroubled(served):
    """The log holds no traceback of what the test sent."""
    before = len(served.log())
    yield
    assert "Traceback" not in served.log()[before:]


def filled(value, url, uploaded):
    if value is UPLOADED:
        return uploaded
    if isinstance(value, dict):
        return {key: filled(inner, url, uploaded) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, url, uploaded) for inner in value]
    return value.replace("{url}", url) if isinstance(value, str) else value


def call(url, endpoint, data):
    """(kind of event, its data) of one raw call."""
    posted = WEB.post(f"{url}/gradio_api/call/{endpoint}", content=json.dumps({"data": data}), headers={"Content-Type": "application/json"})
    assert posted.status_code == 200, posted.text
    answer = WEB.get(f"{url}/gradio_api/call/{endpoint}/{posted.json()['event_id']}").text
    kind, _, body = answer.strip().partition("\n")
    return kind.removeprefix("event: "), json.loads(body.removeprefix("data: "))


def test_every_wrong_input_is_named_and_the_next_call_is_whole(url, uploaded, untroubled):
    def ask(wrong):
        endpoint, changes, words = wrong
        kind, body = call(url, endpoint, filled([*(USUAL[endpoint] | changes).values()], url, uploaded))
        named = kind == "error" and words in str(body["error"])
        return [] if named else [(endpoint, changes, kind, body)]

    before = call(url, "logit_lens", filled([*LENS.values()], url, uploaded))[1][0]
    with ThreadPoolExecutor(8) as pool:
        assert [failure for failures in pool.map(ask, WRONG) for failure in failures] == []
    assert call(url, "logit_lens", filled([*LENS.values()], url, uploaded))[1][0] == before
    assert "a dog" in before["answer"]


@pytest.mark.parametrize("endpoint", list(USUAL))
def test_too_few_arguments_are_counted_and_named(url, untroubled, endpoint):
    for given in ([], [None]):
        kind, body = call(url, endpoint, given)
        assert kind == "error"
        assert f"{len(given)} arguments were sent; {endpoint} takes {len(USUAL[endpoint])}: image, prompt, model" in body["error"]


def test_an_endpoint_that_does_not_exist_is_a_404_that_lists_those_that_do(url, untroubled):
    for path, body in (
        ("call/nothing_here", {"data": []}),
        ("call/v2/nothing_here", {}),
        ("run/nothing_here", {"data": []}),
        ("queue/join", {"data": [], "fn_index": 9999, "session_hash": "x"}),
    ):
        answer = WEB.post(f"{url}/gradio_api/{path}", json=body)
        assert answer.status_code == 404, path
        assert "/logit_lens, /models, /sae_features, /steer, /steer_sweep" in answer.json()["detail"]


def test_the_result_of_an_unknown_call_is_a_404(url, uploaded, untroubled):
    for event in ("0" * 32, "nothing"):
        answer = WEB.get(f"{url}/gradio_api/call/logit_lens/{event}")
        assert answer.status_code == 404
        assert f"No call has the event id '{event}'" in answer.json()["detail"]
    assert call(url, "logit_lens", filled([*LENS.values()], url, uploaded))[0] == "complete"


def test_missing_and_unknown_named_arguments_are_a_422(url, untroubled):
    for body, words in (({}, "required argument: image"), ({"image": None, "no_such": 1}, "no_such")):
        answer = WEB.post(f"{url}/gradio_api/call/v2/logit_lens", json=body)
        assert answer.status_code == 422
        assert words in answer.json()["detail"]


def test_gradio_client_gets_the_same_words(url, untroubled):
    client = Client(url, verbose=False)
    with pytest.raises(Exception, match="feature is 'dog'; it must be a whole number"):
        client.predict(image=handle_file(EXAMPLE), feature="dog", api_name="/steer_sweep")
    with pytest.raises(Exception, match=A_FILE):
        client.predict(image="/etc/hostname", api_name="/logit_lens")
    assert client.predict(image=handle_file(EXAMPLE), max_new_tokens=4, api_name="/logit_lens")[0]["answer"]
