"""CLIP score, detection and consistency of features whose truth is known; judges that are CLIP, or a server that follows a script."""

import base64
import dataclasses
import io
import types

import numpy as np
import pytest
import torch
from PIL import Image

from interp.concepts.clip import Clip
from interp.study.chat import Server, connect
from interp.study.client import MalformedError, Retry, ask_all, wait_for
from interp.study.journal import Journal
from interp.study.scoring.clip_score import ClipScore
from interp.study.scoring.consistency import Consistency, first_of_each
from interp.study.scoring.detection import DetectionScore, nearest
from interp.study.scoring.judges import ClipJudge, Question, yes
from tests.concepts.test_scores import tiny_clip
from tests.study.chat_server import Says, serve_chat
from tests.study.scoring.painted_world import CASES, COLOURS, ColourClip, World

WORLD = World()
HELD_OUT = {"pictures": 4, "skip": 2}


def sae(directions):
    return types.SimpleNamespace(W_dec=torch.tensor(directions).float())


RING = sae([[1.0, 0.0], [0.9, 0.4], [-1.0, 0.1], [0.0, 2.0]])
"""Seen from feature 0: 1 is nearest, then 3, then 2."""


async def at_once(_):
    """Instead of waiting."""


def asked(url, requests, journal, concurrency=1):
    """The answers of a server."""

    async def run():
        async with connect(Server(url, "fake", timeout=20)) as send:
            retry = Retry(attempts=3, sleep=at_once)
            return await ask_all(requests, send, held, check=yes, concurrency=concurrency, retry=retry)

    with Journal(journal) as held:
        return wait_for(run())


def detected(url, journal, cases=CASES, **options):
    tests = DetectionScore(WORLD, RING, cases, **HELD_OUT).tests(cases)
    entries = asked(url, [request for test in tests for request in test.requests()], journal, **options)
    return [test.of_entries(entries) for test in tests]


def judged(url, journal, *cases):
    score = Consistency(WORLD, CASES, **HELD_OUT)
    entries = asked(url, [request for case in cases for request in score.requests(case)], journal)
    return [score.record(case, entries) for case in cases]


def seen(body):
    """The pictures in a request."""
    urls = [part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB") for url in urls]


# CLIP score


def test_clip_score_is_that_of_its_definition_and_beats_its_controls():
    clip = ColourClip()
    for case in CASES:
        record = ClipScore(WORLD, clip, CASES, **HELD_OUT)(case)
        cosines = clip.pictures([each.picture for each in WORLD.shown(case.feature, 4, 2)]) @ clip.texts([case.said])[0]
        assert record.details["clip_scores"] == pytest.approx((100 * cosines.clamp(min=0)).tolist())
        figure = record.figures["clip"]
        assert record.details["avg_score"] == figure["score"] > 99
        assert figure["random pictures"] < 70
        assert figure["random features"] < 70
    unable = ClipScore(WORLD, None, CASES, **HELD_OUT)(dataclasses.replace(CASES[0], said="Unable to produce descriptions."))
    assert (unable.undefined, unable.figures) == ("unable", {})


def test_clip_score_with_a_real_clip_does_not_depend_on_the_order_and_has_seeded_controls(tmp_path):
    clip = Clip.load(tiny_clip(tmp_path), torch.device("cpu"))

    class Turned(World):
        def shown(self, feature, n=5, skip=0):
            return super().shown(feature, n, skip)[::-1]

    first, again, other, turned = (
        ClipScore(top, clip, CASES, **HELD_OUT, seed=seed)(CASES[1]).figures["clip"]
        for top, seed in ((WORLD, 0), (WORLD, 0), (WORLD, 1), (Turned(), 0))
    )
    assert first == again
    assert first["random pictures"] != other["random pictures"]
    assert first["score"] == pytest.approx(turned["score"], abs=1e-4)
    assert all(0 <= value <= 100 for value in first.values())


# Detection


def test_the_nearest_features_are_those_of_the_decoder_directions():
    assert nearest(RING, [0, 3], [0, 1, 2, 3], 3) == {0: [1, 3, 2], 3: [1, 2, 0]}
    assert nearest(RING, [0], [0, 2, 3], 1) == {0: [3]}, "only among those that are active on a picture"
    assert nearest(RING, [0], [0], 3) == {0: []}


def test_negatives_are_pictures_of_the_nearest_features_on_which_this_one_is_inactive():
    class Also(World):
        """Feature 0 is active on two of the pictures of feature 1 too."""

        def inactive_numbers(self, feature, n, seed=0, among=None):
            return super().inactive_numbers(feature, n, seed, [number for number in among if number not in (5, 9)])

    near = sae([[1.0, 0.0], [0.9, 0.4], [0.0, 1.0], [0.0, 1.0]])
    (test,) = DetectionScore(Also(), near, CASES, **HELD_OUT, neighbours=1).tests([CASES[0]])
    assert {int(name[:3]) % 4 for name in test.inactive} == {1}
    assert not {"005.png", "009.png"} & set(test.inactive)
    assert test.active == ["008.png", "012.png", "016.png", "020.png"]
    assert [question.label for question in test.questions[:8]] == ["red"] * 8
    assert len({question.label for question in test.questions[8:]} - {"red"}) == 1
    assert all(question.rivals == ("green",) for question in test.questions)
    assert len(set(test.keys)) == 16
    for name, question in zip([*test.active, *test.inactive] * 2, test.questions, strict=True):
        assert question.picture().tobytes() == WORLD.picture(int(name[:3])).tobytes()


def test_detection_by_clip_is_right_for_right_labels_only():
    judge = ClipJudge(ColourClip())
    for record in DetectionScore(WORLD, RING, CASES, **HELD_OUT).score(judge, CASES):
        for figure in ("f1", "balanced_accuracy"):
            assert record.figures[figure]["score"] == 1
            assert record.figures[figure]["random features"] < 0.7
    turned = [dataclasses.replace(case, said=CASES[case.feature - 1].said) for case in CASES]
    for record in DetectionScore(WORLD, RING, turned, **HELD_OUT).score(judge, turned):
        assert record.figures["f1"]["score"] == 0
        assert record.figures["balanced_accuracy"]["score"] < 0.6


def test_clip_says_yes_only_if_the_label_beats_a_picture_and_every_rival():
    judge, red = ClipJudge(ColourClip()), WORLD.picture(0)
    for label, rivals, answer in (
        ("red", ("green", "blue"), True),
        ("Red ", ("red",), True),  # the same label is no rival
        ("green", (), False),
        ("something", (), False),
        ("yellow", ("red",), False),
    ):
        assert judge([Question(lambda: red, label, rivals)]) == [answer], label
    assert judge([]) == []


def test_detection_by_a_server_that_looks_at_the_picture(tmp_path):
    def say(text, _):
        (picture,), colour = seen(server.asked[-1]), COLOURS[text.split('"')[1]]
        return "Yes." if colour in {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3)} else "No."

    with serve_chat(say) as server:
        records = detected(server.url, tmp_path / "journal.jsonl")
        count = len(server.asked)
        assert detected(server.url, tmp_path / "journal.jsonl") == records
        assert len(server.asked) == count == 4 * 16, "what the journal holds is not asked again"
        relabelled = [dataclasses.replace(CASES[0], said="yellow"), *CASES[1:]]
        first = detected(server.url, tmp_path / "journal.jsonl", relabelled)[0]
        assert len(server.asked) > count, "another label is judged anew"
    assert first.figures["f1"]["score"] == 0
    assert [record.figures["f1"]["score"] for record in records] == [1, 1, 1, 1]
    assert all(record.figures["f1"]["random features"] < 0.7 for record in records)


def test_what_a_server_does_not_answer_is_counted_and_is_no_no(tmp_path):
    with serve_chat(lambda text, _: Says(status=500) if '"red"' in text else "perhaps" if '"blue"' in text else "yes") as server:
        records = detected(server.url, tmp_path / "journal.jsonl", concurrency=4)
    red, green, blue, _ = records
    assert (red.undefined, red.failed) == ("no answer", {"no answer": 8})
    assert (blue.undefined, blue.failed) == ("no answer", {"no answer": 8})
    assert set(red.details["active"].values()) == {None}
    assert (green.undefined, green.failed) == ("", {})
    assert green.figures["balanced_accuracy"]["score"] == 0.5, "it says yes to everything"


def test_features_without_labels_pictures_or_negatives_are_undefined():
    def judge(questions):
        assert not questions
        return []

    for case, top, reason in (
        (dataclasses.replace(CASES[0], said=""), WORLD, "no label"),
        (dataclasses.replace(CASES[0], said="", explanation="Unable to produce descriptions"), WORLD, "unable"),
        (CASES[0], World(count=8), "no pictures"),
        (CASES[0], Everywhere(), "no negatives"),
    ):
        (record,) = DetectionScore(top, RING, CASES, **HELD_OUT).score(judge, [case])
        assert (record.undefined, record.figures) == (reason, {})


class Everywhere(World):
    def inactive_numbers(self, *_):
        return []


# Consistency


def test_a_judge_of_consistency_sees_the_pictures_what_is_said_and_where_it_is_active(tmp_path):
    """The reference's judge of steering is shown neither, and its judge of consistency not the label."""
    with serve_chat(lambda text, _: "1" if "red things" in text else "0") as server:
        unable = dataclasses.replace(CASES[1], said="Unable to produce descriptions")
        record, unable = judged(server.url, tmp_path / "journal.jsonl", CASES[0], unable)
        assert len(server.asked) == 2
        own, control = server.asked
    assert record.figures == {"consistency": {"score": 1.0, "random features": 0.0}}
    assert unable.undefined == "unable"
    text = own["messages"][0]["content"][-1]["text"]
    assert "label: red\n" in text
    assert "explanation: red things\n" in text
    assert "red things" not in control["messages"][0]["content"][-1]["text"]
    pictures, wanted = seen(own), [each.picture for each in WORLD.shown(0, 4, 2)]
    assert len(pictures) == 4
    for picture, whole, heat in zip(pictures, wanted, [each.heat for each in WORLD.shown(0, 4, 2)], strict=True):
        bright, original = np.asarray(picture, int), np.asarray(whole, int)
        assert (bright == original)[heat.numpy() > 0].all(), "bright where the feature is active"
        assert (bright[heat.numpy() == 0] < original[heat.numpy() == 0]).all(), "dimmed elsewhere"
    assert seen(control)[0].tobytes() == pictures[0].tobytes(), "the control differs in what is said alone"


def test_no_answer_is_not_a_zero(tmp_path):
    with serve_chat(lambda *_: "I cannot tell") as server:
        (record,) = judged(server.url, tmp_path / "journal.jsonl", CASES[0])
    assert (record.undefined, record.failed, record.figures) == ("no answer", {"no answer": 1}, {})


def test_the_first_of_every_class_are_judged():
    cases = [
        dataclasses.replace(CASES[0], feature=i, category="color" if i % 3 else "object", said="" if i == 1 else "x") for i in range(9)
    ]
    assert [case.feature for case in first_of_each(cases, 2)] == [0, 2, 3, 4]


# Answers


def test_answers_are_read():
    for answer, meant in (
        ("yes", True),
        ("Yes.", True),
        ("**No**", False),
        ("1", True),
        ("0\n", False),
        ("[1]", True),
        ("<think>yes or no? 1 0</think>no", False),
        ("The answer is yes.", True),
    ):
        assert yes(answer) is meant
    for answer in ("", "perhaps", "yes and no", "10", "It is unknown", "1, not 0"):
        with pytest.raises(MalformedError, match="neither yes nor no"):
            yes(answer)
