"""Names of features, against a server on this machine with the layout of Neuronpedia's bucket and of the Hub."""

import contextlib
import gzip
import http.server
import io
import json
import re
import socket
import struct
import threading
import time
import urllib.parse

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interp.errors import InterpError
from interp.saes.labels import downloads, labels, published
from interp.saes.labels.labels import Label, Labels, labels_from_file, neuronpedia_link, write_labels
from interp.saes.labels.published import explanation_labels, neuronpedia_labels

ID = "gemma-2b/12-res-jb"
FOLDER = f"v1/{ID}/explanations"
INSTEAD = "features show their top words"
PATIENCE = 60  # seconds, which only a server that is slow on purpose takes


def row(index, description, model="gpt-4o-mini", **more):
    return {
        "modelId": "gemma-2b",
        "layer": "12-res-jb",
        "index": str(index),
        "description": description,
        "explanationModelName": model,
        **more,
    }


def batch(*rows):
    return gzip.compress("".join(json.dumps(entry) + "\n" for entry in rows).encode())


class Server:
    """Files by key, as a bucket and as a data set of the Hub; `spoil` maps a key, or "" for the listing, to what happens instead."""

    def __init__(self):
        self.files, self.spoil, self.asked, self.page, self.sent = {}, {}, [], 1000, 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                with contextlib.suppress(ConnectionError):
                    outer.answer(self)

            def log_message(self, *_args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def stop(self):
        self.http.shutdown()
        self.http.server_close()

    def answer(self, request):
        url = urllib.parse.urlsplit(request.path)
        key, query = urllib.parse.unquote(url.path.lstrip("/")), dict(urllib.parse.parse_qsl(url.query))
        self.asked.append(key)
        if spoil := self.spoil.get(key):
            spoil(request, self.files.get(key, b""))
        elif not key:
            self.send(request, self.listing(query["prefix"], int(query.get("continuation-token", "&0")[1:])))
        elif found := re.fullmatch(r"api/datasets/(lab/names)/(revision|tree)/main", key):
            files = [{"type": "file", "path": path.split("/main/")[1], "size": len(data), "oid": "0"} for path, data in self.files.items()]
            self.send(
                request, json.dumps(files if found[2] == "tree" else {"id": found[1], "sha": "0" * 40}).encode(), type_="application/json"
            )
        elif key in self.files:
            data = self.files[key]
            part = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
            data = data[int(part[1]) : int(part[2]) + 1] if part else data
            self.sent += len(data)
            self.send(request, data, 206 if part else 200)
        else:
            unknown = {"X-Error-Code": "RepoNotFound"} if key.startswith("api/") else {}
            self.send(request, b"<Error><Code>NoSuchKey</Code></Error>", 404, **unknown)

    def listing(self, prefix, start):
        keys = sorted(key for key in self.files if key.startswith(prefix))  # as S3 does: batch-10 before batch-2
        entries = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified><ETag>&quot;0&quot;</ETag>"
            f"<Size>{len(self.files[key])}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key in keys[start : start + self.page]
        )
        more = start + self.page < len(keys)
        token = f"<NextContinuationToken>&amp;{start + self.page}</NextContinuationToken>" if more else ""
        truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        return f'<?xml version="1.0"?>\n<ListBucketResult xmlns="x"><Name>b</Name>{truncated}{entries}{token}</ListBucketResult>'.encode()

    def send(self, request, data, status=200, *, length=None, type_="binary/octet-stream", **headers):
        request.send_response(status)
        for name, value in {"Content-Type": type_, "Content-Length": str(len(data) if length is None else length), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(data)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def ask(server, tmp_path, monkeypatch):
    """Ask for names as a fresh process would: with what is on the disk and nothing else."""

    def ask(neuronpedia_id=ID, *, again=False, **options):
        if not again:
            monkeypatch.setattr(downloads, "_RECENT", {})
        return neuronpedia_labels(neuronpedia_id, **{"base_url": server.url, "cache": tmp_path / "cache", "timeout": PATIENCE, **options})

    return ask


def texts(found):
    return {feature: label.text for feature, label in found.names.items()}


def none_named(found, *words):
    assert not found.names
    assert INSTEAD in found.about
    assert "\n" not in found.about
    assert all(word in found.about for word in words), found.about


# --- the names themselves


def test_search_puts_whole_words_before_beginnings_before_parts():
    names = {9: "the dog", 2: "hot-dog stand", 5: "doghouse", 1: "underdogs", 7: "Dog", 3: "dogma and a DOG", 4: "a cat", 8: "big  dog"}
    found = Labels({feature: Label(text, "") for feature, text in names.items()}, "")
    assert found.search("dOg") == [2, 3, 7, 8, 9, 5, 1]
    assert found.search(" dog ", limit=2) == [2, 3]
    assert found.search("the  DOG") == [9]
    assert found.search("do.") == found.search("  ") == []
    assert found.search("straße") == []
    with pytest.raises(InterpError, match="limit is 0"):
        found.search("dog", limit=0)
    assert found.get(9) == Label("the dog", "", None)
    assert found.get(0) is None


def test_search_ignores_case_in_other_scripts():
    found = Labels({1: Label("die STRASSE", ""), 2: Label("ΣΊΣΥΦΟΣ", ""), 3: Label("(bracket)", "")}, "")
    assert found.search("straße") == [1]
    assert found.search("σίσυφος") == [2]
    assert found.search("(bra") == [3]


def test_link():
    assert neuronpedia_link(ID, 7) == "https://neuronpedia.org/gemma-2b/12-res-jb/7"
    with pytest.raises(InterpError, match="not a Neuronpedia id"):
        neuronpedia_link("javascript:alert(1)", 7)


# --- labels.json

NAMES = {12: Label("dog", "detects the noun, AUROC 0.998", 0.998), 3: Label("„Straße“ 🏳️‍🌈 犬", "x"), 100: Label("a" * 300, "b", 1)}


def test_file_round_trip(tmp_path):
    path = tmp_path / "labels.json"
    write_labels(path, NAMES, "Nouns of scenes.")
    first = path.read_bytes()
    write_labels(path, dict(reversed(NAMES.items())), "Nouns of scenes.")
    assert path.read_bytes() == first
    found = labels_from_file(path, 512)
    assert found.names == NAMES
    assert found.about == "Names: 3 of 512 features, Nouns of scenes."
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(first)["labels"]["12"] == {"text": "dog", "source": "detects the noun, AUROC 0.998", "score": 0.998}


def test_missing_file(tmp_path):
    assert labels_from_file(tmp_path / "labels.json") == Labels({}, "This SAE ships no names; features show their top words.")


def entry(**changes):
    return {"schema": labels.SCHEMA, "method": "m", "labels": {"12": {"text": "dog", "source": "s", "score": 0.5} | changes}}


def keyed(key):
    return {"schema": labels.SCHEMA, "method": "m", "labels": {key: {"text": "dog", "source": "s"}}}


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff\xfe{}", "JSON"),
        (b"[" * 100_000, "JSON"),
        ([], "schema"),
        ({**entry(), "schema": "llava-microscope/labels/2"}, "schema"),
        ({**entry(), "method": None}, "method"),
        ({**entry(), "labels": []}, "labels"),
        (keyed("dog"), "'dog'"),
        (keyed("-1"), "'-1'"),
        (keyed("1.0"), "'1.0'"),
        (keyed("٣"), "feature"),
        (keyed("0" + "1"), "'01'"),
        (keyed("9" * 6000), "feature"),
        (keyed("512"), "'512'"),
        ({**entry(), "labels": {"12": "dog"}}, "feature 12"),
        (entry(text=7), "feature 12"),
        (entry(text=""), "feature 12"),
        (entry(text="x" * 301), "300 characters"),
        (entry(text="two\nlines"), "one line"),
        (entry(text="bell\x07"), "characters"),
        (entry(text="\u202eright to left"), "characters"),
        (entry(text="half \ud800"), "characters"),
        (entry(source="x" * 301), "source"),
        (entry(source=None), "source"),
        (entry(score="high"), "score"),
        (entry(score=True), "score"),
        (entry(score=float("nan")), "score"),
        (entry(score=float("inf")), "score"),
    ],
)
def test_damaged_files(tmp_path, data, word):
    path = tmp_path / "labels.json"
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    none_named(labels_from_file(path, 512), "labels.json", word)


def test_file_that_is_a_folder_or_too_large(tmp_path, monkeypatch):
    none_named(labels_from_file(tmp_path))
    write_labels(tmp_path / "labels.json", NAMES, "m")
    monkeypatch.setattr(labels, "MAX_UNPACKED", 1)
    none_named(labels_from_file(tmp_path / "labels.json"), "MB")


@pytest.mark.parametrize(
    ("names", "method", "message"),
    [
        ({-1: Label("x", "y")}, "m", "Feature -1"),
        ({True: Label("x", "y")}, "m", "Feature True"),
        ({"1": Label("x", "y")}, "m", "Feature '1'"),
        ({1: Label("x" * 301, "y")}, "m", "feature 1 .* text"),
        ({1: Label("x", "y\n")}, "m", "feature 1 .* source"),
        ({1: Label("x", "y", float("nan"))}, "m", "score"),
        ({}, " ", "method"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(tmp_path, names, method, message):
    with pytest.raises(InterpError, match=message):
        write_labels(tmp_path / "labels.json", names, method)
    assert not list(tmp_path.iterdir())


# --- Neuronpedia


def test_names_are_downloaded_once_and_kept(server, ask, tmp_path):
    server.files[f"{FOLDER}/batch-0.jsonl.gz"] = batch(
        row(0, "dogs"), row(10, " two\nlines\x00 \u202e"), row(11, "", note=1), row(12, None)
    )
    server.files[f"{FOLDER}/batch-2.jsonl.gz"] = batch(row(7, "日本語 & <b>", None), row(8, "x" * 400))  # numbers may have gaps
    server.files[f"v1/{ID}/explanations-o4/batch-0.jsonl.gz"] = batch(row(0, "another model's", "o4"))
    server.files[f"{FOLDER}/README.md"] = b"no batch"
    found = ask(features=16384)
    assert texts(found) == {0: "dogs", 10: "two lines", 7: "日本語 & <b>", 8: "x" * 299 + "…"}
    assert found.names[0].source == "Neuronpedia, explained by gpt-4o-mini"
    assert found.names[7].source == "Neuronpedia"
    assert found.names[0].score is None
    assert found.about == "Names: 4 of 16 384 features, Neuronpedia gemma-2b/12-res-jb"
    assert len(server.asked) == 3
    server.stop()
    assert ask(features=16384) == found
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["12-res-jb.json"]
    assert texts(ask(features=8)) == {0: "dogs", 7: "日本語 & <b>"}  # rows beyond the dictionary belong to another


def test_only_a_folder_of_another_model(server, ask):
    server.files[f"v1/{ID}/explanations-o4/batch-0.jsonl.gz"] = batch(row(0, "by o4", "o4"))
    server.files[f"v1/{ID}/explanations-p5/batch-0.jsonl.gz"] = batch(row(0, "by p5", "p5"))
    assert texts(ask()) == {0: "by o4"}


def test_the_first_of_several_explanations_counts(server, ask):
    server.files[f"{FOLDER}/batch-2.jsonl.gz"] = batch(row(1, "first"), row(1, "second"), row(2, "", "x"), row(2, "not empty"))
    server.files[f"{FOLDER}/batch-10.jsonl.gz"] = batch(row(1, "tenth"))
    assert texts(ask()) == texts(ask()) == {1: "first", 2: "not empty"}


def test_long_listings_come_in_pages(server, ask):
    server.page = 2
    server.files |= {f"{FOLDER}/batch-{i}.jsonl.gz": batch(row(i, f"name {i}")) for i in range(5)}
    assert len(ask().names) == 5


def truncate(request, data):
    Server.send(None, request, data[: len(data) // 2], length=len(data))


def cut_to_nothing(request, data):
    Server.send(None, request, b"", length=len(data))


def reset(request, _data):
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()  # sends a reset instead of an answer


def page_of_html(request, _data):
    Server.send(None, request, b"<html>Please log in to the hotel's network</html>")


def drip(request, data):
    Server.send(None, request, b"", length=len(data))
    with contextlib.suppress(OSError):
        for i in range(min(len(data), 200)):
            request.wfile.write(data[i : i + 1])
            time.sleep(0.02)


def drip_headers(request, _data):
    with contextlib.suppress(OSError):
        for i in range(100):
            request.wfile.write(b"HTTP/1.1 200 OK\r\n"[i : i + 1] or b"X")
            time.sleep(0.02)


def endless(request, _data):
    request.send_response(200)
    request.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(1000):
            request.wfile.write(bytes(1 << 20))


def status(code):
    return lambda request, _data: Server.send(None, request, b"no", code)


def redirect(target):
    return lambda request, _data: Server.send(None, request, b"", 302, Location=target)


SPOILT = [
    (truncate, "damaged"),
    (cut_to_nothing, "damaged"),
    (reset, "damaged"),
    (page_of_html, ""),
    (drip, "too slow"),
    (drip_headers, "too slow"),
    (endless, "larger"),
    (status(403), "403"),
    (status(404), "404"),
    (status(500), "500"),
    (redirect("ftp://127.0.0.1/x"), "302"),
    (redirect("file:///etc/hostname"), "302"),
    (lambda request, _data: redirect(f"http://{request.headers['Host']}/elsewhere")(request, b""), "302"),
]


@pytest.mark.parametrize(("spoil", "word"), SPOILT)
def test_a_spoilt_batch_costs_its_names_and_is_asked_for_again(server, ask, spoil, word):
    server.files["elsewhere"] = batch(row(5, "a stranger's"))
    server.files[f"{FOLDER}/batch-0.jsonl.gz"] = batch(row(0, "dogs"))
    server.files[bad := f"{FOLDER}/batch-1.jsonl.gz"] = batch(*(row(i, f"name {i} " + "x" * i) for i in range(1, 30)))
    server.spoil[bad] = spoil
    started = time.monotonic()
    found = ask(timeout=1 if word == "too slow" else PATIENCE)
    assert time.monotonic() - started < 3 or word != "too slow"
    assert texts(found) == {0: "dogs"}
    assert found.about.startswith(f"Names: 1 features, Neuronpedia {ID}; incomplete (")
    assert word in found.about
    assert INSTEAD in found.about
    asked = list(server.asked)
    if spoil is drip:  # which goes on for seconds; the reader does not
        while any(thread.name == "names of features" for thread in threading.enumerate()):
            assert time.monotonic() - started < 3
            time.sleep(0.01)
    assert ask(again=True) == found  # not every click waits
    assert server.asked == asked
    server.spoil.clear()
    server.asked.clear()
    assert len(ask().names) == 30
    assert server.asked == ["", bad]  # what arrived whole was kept
    assert "incomplete" not in ask().about
    assert len(server.asked) == 2


@pytest.mark.parametrize(("spoil", "word"), [*SPOILT[2:], (truncate, "damaged")])
def test_a_spoilt_listing(server, ask, tmp_path, spoil, word):
    server.files[f"{FOLDER}/batch-0.jsonl.gz"] = batch(row(0, "dogs"))
    if spoil in (truncate, drip):
        server.spoil[""] = lambda request, _data: spoil(request, server.listing(FOLDER, 0))
    else:
        server.spoil[""] = spoil
    none_named(ask(timeout=0.5 if word == "too slow" else PATIENCE), "could not be fetched", word)
    assert not list(tmp_path.rglob("*.json*"))
    server.spoil.clear()
    assert texts(ask()) == {0: "dogs"}


def test_damaged_lines_cost_themselves(server, ask):
    lines = [json.dumps(row(1, "one")), "{", "[]", "7", json.dumps(row(-1, "x")), json.dumps(row("a", "x")), json.dumps({"index": "4"})]
    lines += [json.dumps(row(5, 5)), json.dumps(row(6, "x", ["list"])), "[" * 50_000, json.dumps(row(2, "two")), "", '{"index": "3", "des']
    server.files[f"{FOLDER}/batch-0.jsonl.gz"] = gzip.compress("\n".join(lines).encode())
    found = ask()
    assert texts(found) == {1: "one", 2: "two"}
    assert "batch-0.jsonl.gz holds 10 damaged lines" in found.about
    server.files[f"{FOLDER}/batch-0.jsonl.gz"] = batch(row(1, "one"), row(3, "three"))
    assert texts(ask()) == {1: "one", 3: "three"}


def test_a_bomb_is_not_unpacked(server, ask, monkeypatch):
    monkeypatch.setattr(published, "MAX_UNPACKED", 1 << 20)
    server.files[f"{FOLDER}/batch-0.jsonl.gz"] = gzip.compress(bytes(8 << 20))
    none_named(ask(), "batch-0.jsonl.gz unpacks to more than 1 MB")


def test_too_much_is_not_even_begun(server, ask, monkeypatch):
    monkeypatch.setattr(published, "MAX_BYTES", 100)
    server.files |= {f"{FOLDER}/batch-{i}.jsonl.gz": batch(row(i, "name")) for i in range(2)}
    none_named(ask(), "more than the 0 MB")
    assert server.asked == [""]


def test_a_source_without_explanations(ask):
    none_named(ask(), "Neuronpedia has no explanations")


def test_no_connection(server, ask, explain):
    server.stop()
    none_named(ask(), "cannot be reached")
    none_named(explain(), "cannot be reached")


def test_offline_asks_nobody(server, ask, monkeypatch):
    server.files[f"{FOLDER}/batch-0.jsonl.gz"] = batch(row(0, "dogs"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    none_named(ask(), "HF_HUB_OFFLINE")
    assert not server.asked
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert texts(ask(again=True)) == {0: "dogs"}
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB" not in ask().about  # what is here needs no network


def test_two_at_once_download_once(server, ask):
    server.files |= {f"{FOLDER}/batch-{i}.jsonl.gz": batch(row(i, f"name {i}")) for i in range(3)}
    found = []
    threads = [threading.Thread(target=lambda: found.append(ask(again=True))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 4
    assert len(found) == 8
    assert all(names == found[0] and len(names.names) == 3 for names in found)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"schema": "llava-microscope/fetched-names/1", "complete": true, "files": {"a": [[1]]}}']
)
def test_a_damaged_cache_is_fetched_anew(server, ask, tmp_path, damage):
    server.files[f"{FOLDER}/batch-0.jsonl.gz"] = batch(row(0, "dogs"))
    ask()
    (tmp_path / "cache" / "neuronpedia" / f"{ID}.json").write_bytes(damage)
    assert texts(ask()) == {0: "dogs"}
    server.stop()
    assert texts(ask()) == {0: "dogs"}


def test_a_cache_that_cannot_be_written(server, ask, tmp_path):
    server.files[f"{FOLDER}/batch-0.jsonl.gz"] = batch(row(0, "dogs"))
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    assert texts(ask()) == texts(ask(again=True)) == {0: "dogs"}
    assert len(server.asked) == 2  # nor does that cost a download a click


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "gemma-2b",
        "a/b/c",
        "../b",
        "a/..",
        "a/b..c",
        "/b",
        "a/",
        "https://x/y",
        "a/b?c",
        "a/b#c",
        "a/b c",
        "a/b%2e",
        "a/b\n",
        "ä/b",
        None,
        7,
    ],
)
def test_bad_ids_reach_neither_address_nor_folder(server, ask, tmp_path, bad):
    none_named(ask(bad), "not a Neuronpedia id")
    none_named(explanation_labels(bad, cache=tmp_path / "cache"), "not a data set id")
    assert not server.asked
    assert not list(tmp_path.iterdir())


def test_wrong_arguments(tmp_path):
    with pytest.raises(InterpError, match="base_url is 'ftp://x'"):
        neuronpedia_labels(ID, base_url="ftp://x", cache=tmp_path)
    with pytest.raises(InterpError, match="timeout is 0"):
        neuronpedia_labels(ID, timeout=0, cache=tmp_path)
    for name in ("module", "folder", "revision"):
        with pytest.raises(InterpError, match=f"{name} is '../x'"):
            explanation_labels(**{name: "../x"}, cache=tmp_path)


# --- explanations on the Hub


@pytest.fixture
def explain(server, tmp_path, monkeypatch):
    # What HF_ENDPOINT sets where it is read, at import.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")

    def explain(repo_id="lab/names", **options):
        monkeypatch.setattr(downloads, "_RECENT", {})
        return explanation_labels(repo_id, cache=tmp_path / "cache", **{"timeout": PATIENCE, **options})

    return explain


def parquet(**columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, row_group_size=2, compression="none")
    return file.getvalue()


def test_json_of_the_hub(server, explain):
    entries = [{"model.layers.24_feature7": "dogs"}, {"prompt": "p"}, {"model.layers.2_feature8": "another module"}]
    entries += [
        {"model.layers.24_feature9": "Unable to produce descriptions"},
        {"model.layers.24_feature10": "Response x. Explanation could not be parsed."},
    ]
    entries += [{"model.layers.24_feature11": "people\nat a table"}, {"model.layers.24_feature7": "second"}]
    server.files["datasets/lab/names/resolve/main/out/model_layers_24.json"] = json.dumps(entries).encode()
    found = explain(features=131072)
    assert texts(found) == {7: "dogs", 11: "people at a table"}
    assert found.names[7].source == "explanation from lab/names"
    assert found.about == "Names: 2 of 131 072 features, lab/names model.layers.24"
    server.stop()
    assert explain(features=131072) == found


def test_parquet_of_the_hub_leaves_the_pictures_there(server, explain):
    pictures = [{"bytes": bytes([i]) * 500_000, "path": None} for i in range(4)]
    table = parquet(
        feature=[f"model.layers.24_feature{i}" for i in (4, 7, 9, 4)],
        explanation=["cats", "dogs", None, "second"],
        image=pa.array(pictures, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
    )
    server.files["datasets/lab/names/resolve/main/legacy/test-00000-of-00001.parquet"] = table
    server.files["datasets/lab/names/resolve/main/revised/test-00000-of-00001.parquet"] = b"not asked for"
    assert texts(explain()) == {4: "cats", 7: "dogs"}
    assert len(table) > 2_000_000
    assert server.sent < 200_000


@pytest.mark.parametrize(
    "columns",
    [
        {"name": ["a", "b"], "text": ["c", "d"]},
        {"feature": [1, 2]},
        {"feature": [1, 2], "one": ["c", "d"], "two": ["e", "f"]},
        {"rank": [1, 2], "explanation": ["c", "d"]},
        {"feature": [1, 2], "feature_id": [2, 3], "explanation": ["c", "d"]},
        {"feature": [1, -2], "explanation": ["c", "d"]},
    ],
)
def test_columns_that_cannot_be_told(server, explain, columns):
    server.files["datasets/lab/names/resolve/main/legacy/a.parquet"] = parquet(**columns)
    none_named(explain(), *columns)


@pytest.mark.parametrize("data", [b"", b"{", b"PAR1PAR1", b"[7]", b"[" * 50_000])
@pytest.mark.parametrize("path", ["legacy/a.parquet", "model_layers_24.json"])
def test_damaged_files_of_the_hub(server, explain, path, data):
    server.files[f"datasets/lab/names/resolve/main/{path}"] = data
    none_named(explain())


def test_a_data_set_that_does_not_exist_or_has_no_names(server, explain):
    none_named(explain("lab/no-such"), "no such data set")
    server.spoil["api/datasets/lab/names/revision/main"] = server.spoil["api/datasets/lab/names/tree/main"] = status(403)
    none_named(explain(), "the server answered 403")
    server.spoil.clear()
    server.files["datasets/lab/names/resolve/main/README.md"] = b"hello"
    none_named(explain(), "no explanations of model.layers.24")


def test_offline_hub(server, explain, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    none_named(explain(), "HF_HUB_OFFLINE")
    assert not server.asked


# Words in names, and features without one


def test_features_named_by_a_word():
    names = {1: "dog", 2: "hotdog", 3: "Dog or fox", 4: "“dog” in text", 5: "dogs", 6: "small dog", 7: "unnamed"}
    labels = Labels({f: Label(text, "a test") for f, text in names.items()}, "")
    assert labels.named("dog") == labels.named(" DOG ") == [1, 3, 4, 6]
    assert labels.named("small  dog") == [6]
    assert labels.named("cat") == labels.named("") == labels.named("unnamed") == []
    assert Labels({}, "").named("dog") == []


def test_features_without_a_name_are_not_counted_and_not_found(tmp_path):
    write_labels(tmp_path / "labels.json", {1: Label("dog", "a test", 0.9), 2: Label("unnamed", "nothing fits")}, "named by a test")
    labels = labels_from_file(tmp_path / "labels.json", features=10)
    assert labels.about == "Names: 1 of 10 features, named by a test"
    assert labels.get(2).text == "unnamed"
    assert labels.search("named") == []
