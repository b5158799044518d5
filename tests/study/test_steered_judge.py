"""The judge of steered answers: what it is shown, how its answers are read, and where its verdicts go."""

import base64
import functools
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from interp.study import asking, cli, steer
from interp.study.client import MalformedError, Retry
from interp.study.explanation_files import write_labels
from interp.study.steered_judge import JUDGE, category
from tests.study.chat_server import Says, serve_chat
from tests.study.test_study import refused

FEATURES = [3, 7, 460, 1203, 11]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    async def sleep(_):
        pass

    monkeypatch.setattr(asking, "Retry", functools.partial(Retry, sleep=sleep))


@pytest.fixture
def own(begin, tmp_path):
    return begin(tmp_path / "study")


@pytest.fixture
def steered(own, tmp_path):
    """(more arguments) → the finished folder."""
    file = tmp_path / "filters.json"
    file.write_text(json.dumps({"model.layers.3": FEATURES}))

    def run(*more):
        given = ["steer", own.folder, "--filters", file, "--target", 60, "--first", 2, "--rows", 4, "--max-new-tokens", 6, *more]
        args = cli.parser().parse_args([str(each) for each in given])
        steer.run(own, args)
        return own.folder / "steer"

    return run


def held(folder):
    """(sample, feature) → the entry in the reference's files."""
    return {
        (int(file.parent.name), entry["idx"]): entry
        for file in sorted(folder.glob("samples/*/*.json"))
        for entry in json.loads(file.read_text()).values()
    }


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("2", "2"),
        ("Category 3.", "3"),
        ("**1**: none that matters", "1"),
        ("<think>1 or 2?</think>\n4", "4"),
        ("2, because the 2 answers differ", "2"),
        ("3 (of 12 words)", "3"),
    ],
)
def test_a_category_is_read(answer, expected):
    assert category(answer) == expected


@pytest.mark.parametrize("answer", ["", "none", "1 or 2", "5", "0.2", "12"])
def test_an_answer_without_one_category_cannot_be_used(answer):
    with pytest.raises(MalformedError):
        category(answer)


def test_the_judge_sees_picture_label_question_and_both_answers(steered, own, scenes):
    with serve_chat(lambda *_: "2") as chat:
        folder = steered("--judge", "fake", "--server", chat.url, "--controls", 0)
    entries = held(folder)
    changed = {key: entry for key, entry in entries.items() if entry["original_resps"] != entry["clamped_resps"]}
    assert changed
    assert len(chat.asked) == len(changed)
    texts = {
        JUDGE.format(
            label=own.sae.labels.get(feature).text, prompt="Describe the image.", original=e["original_resps"], clamped=e["clamped_resps"]
        )
        for (_, feature), e in changed.items()
    }
    assert set(chat.texts) == texts
    pictures = [np.asarray(Image.open(scenes / f"{number:03}.png").convert("RGB")).astype(float) for number in range(2)]
    for body in chat.asked:
        url = next(part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url")
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))).astype(float)
        assert min(abs(shown - picture).mean() for picture in pictures) < 6  # a small copy, as WebP
    for entry in changed.values():
        assert entry["category"] == "2"
        assert entry["explanation"]
    for key in set(entries) - set(changed):
        assert entries[key]["category"] == "1"  # the same answer, which nobody is asked about
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["judged"] == {
        "unchanged": len(entries) - len(changed),
        "categories": {"2": len(changed)},
        "failed": 0,
        "without_label": 0,
        "controls": {},
    }
    assert sum(sum(each.get("categories", {}).values()) for each in summary["features"]) == len(changed)


def test_controls_have_the_label_of_another_feature(steered, own):
    with serve_chat(lambda *_: "2") as chat:
        folder = steered("--judge", "fake", "--server", chat.url, "--controls", 3)
    changed = [entry for entry in held(folder).values() if entry["original_resps"] != entry["clamped_resps"]]
    assert len(chat.asked) == len(changed) + min(3, len(changed))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["judged"]["controls"] == {"2": min(3, len(changed))}
    right = {(own.sae.labels.get(entry["idx"]).text, entry["clamped_resps"]) for entry in changed}
    told = [(re.search(r'stand for "([^"]*)"', text)[1], re.search("Second answer: (.*)", text)[1]) for text in chat.texts]
    assert sum(pair not in right for pair in told) == min(3, len(changed))
    assert summary["judged"]["categories"] == {"2": len(changed)}


def test_what_failed_is_told_and_asked_again_and_what_is_judged_is_not(steered, capsys):
    with serve_chat(lambda _text, times: Says(status=400, body="no") if times == 0 else "4") as chat:
        folder = steered("--judge", "fake", "--server", chat.url, "--controls", 0)
        asked = len(chat.asked)
        assert "failed" in capsys.readouterr().out
        assert json.loads((folder / "summary.json").read_text())["judged"]["failed"] == asked
        assert all("category" not in entry or entry["category"] == "1" for entry in held(folder).values())
        steered("--judge", "fake", "--server", chat.url, "--controls", 0, "--retry-failed")
        assert len(chat.asked) == 2 * asked
        assert json.loads((folder / "summary.json").read_text())["judged"]["categories"] == {"4": asked}
        steered("--judge", "fake", "--server", chat.url, "--controls", 0)
        assert len(chat.asked) == 2 * asked
    steered()  # without a judge: its verdicts stay
    assert json.loads((folder / "summary.json").read_text())["judged"]["categories"] == {"4": asked}


def test_another_label_is_judged_anew(steered, own):
    with serve_chat(lambda *_: "2") as chat:
        steered("--judge", "fake", "--server", chat.url, "--controls", 0)
        before = len(chat.asked)
        write_labels(own.folder / "labels", "model.layers.3", {7: "a zeppelin"})
        folder = steered("--judge", "fake", "--server", chat.url, "--controls", 0)
    new = chat.texts[before:]
    assert all("a zeppelin" in text for text in new)
    assert {feature for (_, feature), entry in held(folder).items() if entry["explanation"] == "a zeppelin"} == {7}


def test_a_dry_run_sends_nothing(steered, capsys):
    folder = steered("--judge", "fake", "--server", "http://localhost:1/v1", "--dry-run")
    assert "For example" in capsys.readouterr().out
    assert not (folder / "summary.json").exists()
    assert not folder.with_name("steer-judge").exists()


def test_a_server_without_a_judge_is_refused(own, capsys, tmp_path):
    (tmp_path / "filters.json").write_text('{"model.layers.3": [1]}')
    given = ["--filters", tmp_path / "filters.json", "--target", 3, "--server", "http://localhost:1/v1"]
    assert "none is named: --judge MODEL" in refused(capsys, "steer", own.folder, *given)
