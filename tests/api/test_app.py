"""The API as a stranger uses it: a real app, real gradio_client, and raw HTTP for what the client would not send."""

import json
import struct
import threading
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import pytest
from gradio_client import Client, handle_file

EXAMPLE = Path(__file__).parents[2] / "assets" / "examples" / "dog-and-pizza.webp"
OTHER = EXAMPLE.with_name("one-owl.webp")


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


def lens(client, **changes):
    return client.predict(**({"image": handle_file(EXAMPLE)} | changes), api_name="/logit_lens")


def post(url, data):
    """(status or event, body) of one raw call of /logit_lens."""
    request = urllib.request.Request(
        f"{url}/gradio_api/call/logit_lens", json.dumps({"data": data}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{url}/gradio_api/call/logit_lens/{event}") as answer:
        kind, _, body = answer.read().decode().partition("\n")
    return kind.removeprefix("event: "), body


def test_only_the_documented_endpoints_are_public(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {
        "/models",
        "/logit_lens",
        "/attention",
        "/knockout",
        "/sae_features",
        "/attribution",
        "/concepts",
        "/concept_shift",
        "/feature",
        "/find_features",
        "/learn_concepts",
        "/steer",
        "/steer_sweep",
    }
    parameters = {p["parameter_name"]: p for p in endpoints["/logit_lens"]["parameters"]}
    assert list(parameters) == ["image", "prompt", "model", "top_k", "max_new_tokens", "layers", "method"]
    assert [p for p in parameters.values() if not p["parameter_has_default"]] == [parameters["image"]]
    assert parameters["top_k"]["parameter_default"] == 5
    assert parameters["max_new_tokens"]["parameter_default"] == 32


def test_models(client):
    lens(client)  # at the very start the model may still be loading
    models = {model["name"]: model for model in client.predict(api_name="/models")}
    assert models["emoji-llava"]["loaded"]
    assert models["emoji-llava"]["fits"]
    assert models["emoji-llava"]["layers"] == 8
    assert [(sae["name"], sae["layer"]) for sae in models["emoji-llava"]["saes"]] == [("emoji-llava-sae", 3)]
    assert models["llava-interleave-0.5b"]["proved"] == "shape"
    assert not models["llava-interleave-0.5b"]["loaded"]


def test_the_lens_of_a_picture(client):
    summary, html, everything = lens(client)
    assert summary["model"] == "emoji-llava"
    assert summary["layers"] == [-1, 0, 1, 2, 3, 4, 5, 6, 7]
    words = summary["patch_words"][0]
    assert (len(words), len(words[0])) == (summary["grids"][0]["rows"], summary["grids"][0]["cols"]) == (8, 8)
    assert "a dog and a pizza on a blue background" in summary["answer"]
    assert {" dog", " pizza", " blue"} <= {cell["word"] for row in words for cell in row}
    full = json.loads(Path(everything).read_text(encoding="utf-8"))
    assert full["schema"] == "llava-microscope/logit-lens/1"
    axis = full["layers"].index(summary["default_layer"])
    top = full["ids"][axis][full["grids"][0]["positions"][0][0]][0]
    assert full["vocabulary"][str(top)] == words[0][0]["word"]
    assert Path(html).read_text(encoding="utf-8").startswith("<!doctype html>")


def test_another_lens_of_a_picture(client):
    summary, html, everything = lens(client, method="embedding")
    assert (summary["method"], summary["reads"], summary["score"]) == ("embedding", "here", "cosine similarity")
    cell = summary["patch_words"][0][0][0]
    full = json.loads(Path(everything).read_text(encoding="utf-8"))
    axis = full["layers"].index(summary["default_layer"])
    first = full["grids"][0]["positions"][0][0]
    assert cell["similarity"] == full["probs"][axis][first][0]
    assert full["vocabulary"][str(full["ids"][axis][first][0])] == cell["word"]
    assert (Path(html).name, Path(everything).name) == ("embedding-lens-emoji-llava.html", "embedding-lens-emoji-llava.json")


def test_the_answer_is_cut_where_asked(client):
    summary, *_ = lens(client, max_new_tokens=2)
    assert not summary["finished"]
    assert summary["answer"] == "a dog"


def huge_png(folder):
    """A few bytes whose header claims 30 000 x 30 000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b""))
    )
    file = folder / "huge.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return file


def broken_png(folder):
    file = folder / "broken.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"not a chunk" * 20)
    return file


def text_png(folder):
    file = folder / "text.png"
    file.write_text("I am no picture.", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "No picture"),
        ({"image": huge_png}, "too large.*limit is 50 million"),
        ({"image": broken_png}, "picture"),
        ({"image": text_png}, "not a picture"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n "}, "prompt is empty"),
        ({"prompt": "What is <image> here?"}, "'<image>'"),
        ({"prompt": "word " * 600}, "has a context of 512"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": -3}, "top_k is -3"),
        ({"top_k": 10**6}, "top_k is 1000000"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 10**9}, "max_new_tokens is"),
        ({"method": "magic"}, "method is 'magic'; emoji-llava has these lenses: logit, "),
        ({"model": "no-such-model"}, "neither a known model nor a folder"),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else " ".join(f"{key}={getattr(x, '__name__', x)!r}"[:40] for key, x in value.items())
    ),
)
def test_wrong_input_is_named(client, tmp_path, changes, message):
    if callable(changes.get("image")):
        changes = {"image": handle_file(changes["image"](tmp_path))}
    with pytest.raises(Exception, match=message) as refused:
        lens(client, **changes)
    assert "Traceback" not in str(refused.value)


def test_numbers_that_json_should_not_hold(url):
    uploaded = lens_file(url)
    kind, body = post(url, [uploaded, "Describe the image.", "emoji-llava", float("nan"), 32, "auto", "logit"])
    assert kind == "error"
    assert "top_k is nan" in body


def lens_file(url):
    """The example, uploaded by raw HTTP."""
    edge = "----edge"
    body = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="a.webp"\r\n\r\n'.encode() + EXAMPLE.read_bytes()
    request = urllib.request.Request(
        f"{url}/gradio_api/upload", body + f"\r\n--{edge}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={edge}"}
    )
    with urllib.request.urlopen(request) as answer:
        return {"path": json.load(answer)[0], "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize(
    "picture",
    [str(EXAMPLE), {"path": str(EXAMPLE)}, {"path": str(EXAMPLE), "meta": {"_type": "gradio.FileData"}}, {"path": "/etc/hostname"}],
    ids=["text", "dictionary", "file dictionary", "system file"],
)
def test_a_path_on_the_server_is_refused(url, picture):
    kind, body = post(url, [picture, "Describe the image.", "emoji-llava", 5, 32, "auto", "logit"])
    assert kind == "error"
    assert "patch_words" not in body


def test_an_uploaded_file_is_accepted_by_raw_http(url):
    kind, _ = post(url, [lens_file(url), "Describe the image.", "emoji-llava", 5, 32, "auto", "logit"])
    assert kind == "complete"


def test_two_clients_at_once_get_what_they_get_alone(url):
    alone = [lens(Client(url, verbose=False), image=handle_file(file))[0] for file in (EXAMPLE, OTHER)]
    together: dict[int, list] = {0: [], 1: []}

    def ask(which, file):
        mine = Client(url, verbose=False)
        for turn in range(3):
            together[which].append(lens(mine, image=handle_file(file), prompt="Describe the image." + " " * turn)[0])

    threads = [threading.Thread(target=ask, args=(i, file)) for i, file in enumerate((EXAMPLE, OTHER))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which in (0, 1):
        assert together[which][0] == alone[which]
        assert len(together[which]) == 3


def status(url, path, **headers):
    request = urllib.request.Request(f"{url}/{path}", headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers)


def test_only_uploads_and_examples_can_be_fetched(url):
    mine = Path(lens_file(url)["path"])
    assert status(url, f"gradio_api/file={mine}")[0] == 200
    with urllib.request.urlopen(f"{url}/config") as answer:
        shown = [part["props"]["value"] for part in json.load(answer)["components"] if part["props"].get("elem_id") == "picture"]
    assert status(url, f"gradio_api/file={shown[0]['path']}")[0] == 200
    uploads = mine.parents[1]
    hidden = [
        "/etc/hostname",
        EXAMPLE,
        EXAMPLE.parents[2] / "app.py",
        EXAMPLE.parents[1] / "emoji-llava" / "config.json",
        uploads,  # no list of what others sent
        uploads / "*",
        uploads / ("0" * len(mine.parent.name)) / mine.name,
        mine.parent / ".." / ".." / ".." / "etc" / "hostname",
        f"{url}/config",  # nor what the server can reach
    ]
    assert {
        str(path): status(url, f"gradio_api/file={path}")[0] for path in hidden if status(url, f"gradio_api/file={path}")[0] == 200
    } == {}


def test_other_pages_cannot_use_a_visitors_server(url):
    for origin in ("https://elsewhere.example", "null"):
        allowed = {name.lower(): value for name, value in status(url, "config", Origin=origin)[1].items()}
        assert allowed.get("access-control-allow-origin") not in {origin, "*"}
    own = {name.lower(): value for name, value in status(url, "config", Origin=url)[1].items()}
    assert own.get("access-control-allow-origin") == url


def test_no_run_is_kept_in_the_browser(url):
    with urllib.request.urlopen(f"{url}/config") as answer:
        assert json.load(answer)["run_history"] is False


def test_a_file_that_is_too_large_is_not_taken(url):
    edge = b"--edge\r\n"
    body = edge + b'Content-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(31 << 20) + b"\r\n--edge--\r\n"
    request = urllib.request.Request(f"{url}/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=edge"})
    with pytest.raises((urllib.error.HTTPError, ConnectionError)) as refused:
        urllib.request.urlopen(request)
    assert getattr(refused.value, "code", 413) == 413
