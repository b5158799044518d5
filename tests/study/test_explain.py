"""`explain`: what is sent, what is written, and that nothing is lost on the way."""

import argparse
import base64
import dataclasses
import functools
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from interp.errors import InterpError
from interp.study import asking, cli, explain
from interp.study.answers import UNABLE
from interp.study.client import Retry
from interp.study.dimmed import dimmed
from interp.study.explanation_files import file_of, read_texts
from interp.study.journal import Journal
from interp.study.study import Study
from interp.study.top_images import TopImages
from tests.study.chat_server import Says, serve_chat
from tests.study.conftest import with_models

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    async def sleep(_):
        pass

    monkeypatch.setattr(asking, "Retry", functools.partial(Retry, sleep=sleep))


@pytest.fixture
def mine(study, tmp_path):
    """A copy of the study that a test may change."""
    folder = tmp_path / "study"
    shutil.copytree(study.folder, folder)
    return with_models(Study.open(folder), study.vlm, study.sae)


@pytest.fixture
def some(study, tmp_path):
    """Six features of the study, and a filters.json of them."""
    features = TopImages.open(study).features[5:300:50]
    file = tmp_path / "filters.json"
    file.write_text(json.dumps({study.module: features}))
    return features, file


def arguments(*given):
    parser = argparse.ArgumentParser()
    explain.add(parser)
    return parser.parse_args(["--explainer", "fake", *map(str, given)])


def sent(body):
    """The pictures of a request, as arrays."""
    parts = [part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))) for url in parts]


def by_pictures(top, features, pictures):
    """The first picture that is sent of a feature → the feature."""
    out = {}
    for feature in features:
        first = dimmed([(each.picture, each.heat) for each in top.shown(feature, pictures)])[0]
        out[np.asarray(first).tobytes()] = feature
    return out


def test_sends_the_top_pictures_of_exactly_the_features_of_a_filter_and_never_those_held_out(mine, some):
    features, file = some
    top = TopImages.open(mine)
    with serve_chat(lambda *_: "[EXPLANATION]: things") as chat:
        explain.run(mine, arguments("--server", chat.url, "--filters", file, "--pictures", 3))
    of = by_pictures(top, features, 3)
    assert sorted(of[sent(body)[0].tobytes()] for body in chat.asked) == features
    for body in chat.asked:
        pictures = sent(body)
        shown = top.shown(of[pictures[0].tobytes()], 3)
        assert len(pictures) == len(shown)
        for picture, right in zip(pictures, dimmed([(each.picture, each.heat) for each in shown]), strict=True):
            assert np.array_equal(picture, np.asarray(right))
        assert f"These are {len(shown)} pictures" in body["messages"][0]["content"][-1]["text"]
        assert body["model"] == "fake"
        assert body["temperature"] == 0
    assert read_texts(mine.folder / "explanations") == {mine.found["sae"]["layer"]: dict.fromkeys(features, "things")}


def test_each_feature_gets_the_answer_to_its_own_pictures_whatever_the_order(mine, some):
    features, file = some
    of = by_pictures(TopImages.open(mine), features, 5)
    with serve_chat(lambda *_: "") as chat:

        def say(*_):
            return f"[EXPLANATION]: number {of[sent(chat.asked[-1])[0].tobytes()]}"

        chat.say = say
        explain.run(mine, arguments("--server", chat.url, "--filters", file, "--concurrency", 1))
    data = json.loads(file_of(mine.folder / "explanations", mine.module).read_text())
    assert data == [{f"{mine.module}_feature{feature}": f"number {feature}"} for feature in features]


def test_what_went_wrong_is_kept_told_and_asked_again_on_request(mine, some, capsys):
    features, file = some
    script = ["[EXPLANATION]: a", UNABLE, "no tag", Says(status=413, body="too large"), Says(status=500, body="down"), "[EXPLANATION]: b"]
    run = functools.partial(explain.run, mine)
    with serve_chat(lambda *_: "") as chat:
        chat.say = lambda *_: script[min(len(chat.asked) - 1, 5)]
        options = ["--server", chat.url, "--filters", file, "--concurrency", 1, "--attempts", 1]
        run(arguments(*options))
        out = capsys.readouterr().out
        assert "2 explained, 1 without anything in common" in out
        assert "3 failed" in out
        texts = read_texts(mine.folder / "explanations")[3]
        assert texts == {features[0]: "a", features[1]: UNABLE, features[5]: "b"}
        with Journal(mine.folder / "explain" / "journal.jsonl") as journal:
            failed = [entry.failure for entry in journal.entries.values() if entry.failure]
        assert failed == ["it has no [EXPLANATION]: no tag", "status 413: too large", "status 500: down"]
        chat.asked.clear()
        run(arguments(*options))
        assert chat.asked == []
        chat.say = lambda *_: "[EXPLANATION]: at last"
        run(arguments(*options, "--retry-failed"))
        assert len(chat.asked) == 3
        assert read_texts(mine.folder / "explanations")[3] == texts | dict.fromkeys(features[2:5], "at last")


def test_what_was_cut_off_is_asked_again_with_more_tokens(mine, some):
    features, file = some
    with serve_chat(lambda *_: "") as chat:
        chat.say = lambda *_: Says("[EXPLANATION]: long", finish="length" if chat.asked[-1]["max_tokens"] < 50 else "stop")
        options = ["--server", chat.url, "--filters", file]
        explain.run(mine, arguments(*options, "--max-tokens", 20))
        assert read_texts(mine.folder / "explanations") == {}
        explain.run(mine, arguments(*options, "--max-tokens", 90, "--retry-failed"))
    assert read_texts(mine.folder / "explanations") == {3: dict.fromkeys(features, "long")}


def test_a_run_that_is_killed_and_continued_writes_what_an_uninterrupted_run_writes(mine, study, some, tmp_path, monkeypatch):
    features, file = some
    whole = with_models(Study.open(shutil.copytree(mine.folder, tmp_path / "whole")), study.vlm, study.sae)
    of = by_pictures(TopImages.open(mine), features, 5)
    with serve_chat(lambda *_: "") as chat:
        chat.say = lambda *_: f"[EXPLANATION]: number {of[sent(chat.asked[-1])[0].tobytes()]}"
        options = arguments("--server", chat.url, "--filters", file, "--concurrency", 1)
        explain.run(whole, options)
        chat.asked.clear()
        add = Journal.add

        def killed(journal, entry):
            add(journal, entry)
            if len(journal.entries) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(Journal, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            explain.run(mine, options)
        monkeypatch.setattr(Journal, "add", add)
        explain.run(mine, options)
        assert len(chat.asked) == len(features)
    one, other = (file_of(each.folder / "explanations", mine.module).read_bytes() for each in (mine, whole))
    assert one == other


def test_a_dry_run_estimates_shows_one_request_and_sends_nothing(mine, some, capsys):
    features, file = some
    before = {path: path.read_bytes() for path in mine.folder.rglob("*") if path.is_file()}
    with serve_chat(lambda *_: "") as chat:
        explain.run(
            mine, arguments("--server", chat.url, "--filters", file, "--pictures", 2, "--dry-run", "--prices", 2, 8, "--concurrency", 2)
        )
    assert chat.asked == []
    out = capsys.readouterr().out
    assert "6 requests with 12 pictures" in out
    assert "about 9 seconds, about " in out
    assert "by rules of thumb" in out
    assert f"{mine.module}_feature{features[0]}" in out
    assert "[EXPLANATION]: your description" in out
    shown = TopImages.open(mine).shown(features[0], 2)
    for number, right in enumerate(dimmed([(each.picture, each.heat) for each in shown]), 1):
        file = mine.folder / "explain-example" / f"{number}.png"
        assert np.array_equal(np.asarray(Image.open(file)), np.asarray(right))
    assert {
        path: path.read_bytes() for path in mine.folder.rglob("*") if path.is_file() and path.parent.name != "explain-example"
    } == before


def test_the_key_is_in_no_file_of_the_study_and_in_no_output(mine, some, monkeypatch, capsys):
    _, file = some
    monkeypatch.setenv("MY_KEY", KEY)
    with serve_chat(lambda *_: Says(status=400, body=f"wrong: {KEY}")) as chat:
        explain.run(mine, arguments("--server", chat.url, "--filters", file, "--key-variable", "MY_KEY"))
    assert all(headers["authorization"] == f"Bearer {KEY}" for headers in chat.headers)
    assert not [path for path in mine.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert KEY not in "".join(capsys.readouterr())


def test_features_that_are_never_active_are_counted_and_not_sent(mine, tmp_path, capsys):
    active = TopImages.open(mine).features
    silent = next(feature for feature in range(mine.found["sae"]["features"]) if feature not in set(active))
    (tmp_path / "f.json").write_text(json.dumps({mine.module: [active[0], silent]}))
    with serve_chat(lambda *_: "[EXPLANATION]: it") as chat:
        explain.run(mine, arguments("--server", chat.url, "--filters", tmp_path / "f.json"))
    assert len(chat.asked) == 1
    assert "1 explained, 0 without anything in common, 1 never active" in capsys.readouterr().out


def test_a_feature_that_no_picture_shows_is_a_failure_of_its_own(mine, some, monkeypatch, capsys):
    features, file = some
    shown = TopImages.shown

    def hidden(top, feature, n):
        found = shown(top, feature, n)
        return [dataclasses.replace(each, heat=each.heat * 0) for each in found] if feature == features[0] else found

    monkeypatch.setattr(TopImages, "shown", hidden)
    with serve_chat(lambda *_: "[EXPLANATION]: it") as chat:
        options = ["--server", chat.url, "--filters", file]
        explain.run(mine, arguments(*options, "--dry-run"))
        assert f"For example, {mine.module}_feature{features[1]}" in capsys.readouterr().out
        explain.run(mine, arguments(*options))
    assert len(chat.asked) == 5
    assert list(read_texts(mine.folder / "explanations")[3]) == features[1:]
    assert "1 failed (1 times: The feature is active in none of its pictures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "--server is missing"),
        (["--server", "http://localhost:1", "--pictures", 9], "--pictures is 9; the study keeps 8"),
        (["--server", "http://localhost:1", "--concurrency", 0], "concurrency is 0"),
        (["--server", "http://localhost:1", "--attempts", 0], "attempts is 0"),
        (["--server", "http://localhost:1", "--extra", "[1]"], "must be a JSON object"),
        (["--server", "http://localhost:1", "--extra", "{"], "not JSON"),
        (["--server", "http://localhost:1", "--explainer", ""], "--explainer is missing"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_anything_is_sent_or_written(mine, given, why):
    with pytest.raises(InterpError, match=why):
        explain.run(mine, arguments(*given))
    assert not (mine.folder / "explain").exists()


def test_another_explainer_or_number_of_pictures_is_refused_by_name(mine, some):
    _, file = some
    with serve_chat(lambda *_: "[EXPLANATION]: it") as chat:
        options = ["--server", chat.url, "--filters", file]
        explain.run(mine, arguments(*options))
        with pytest.raises(InterpError, match="model = 'fake', and 'other' was asked for"):
            explain.run(mine, arguments(*options, "--explainer", "other"))
        with pytest.raises(InterpError, match="pictures = 5, and 4"):
            explain.run(mine, arguments(*options, "--pictures", 4))


def test_is_a_verb_of_the_command_line(capsys):
    with pytest.raises(SystemExit):
        cli.main(["explain", "--help"])
    assert "--dry-run" in capsys.readouterr().out
