"""`report`: right figures, every part that is missing says how to make it, nothing from outside becomes markup."""

import argparse
import base64
import dataclasses
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import interp
from interp.study import charts, report
from interp.study.answers import UNABLE
from interp.study.cache_files import Cache
from interp.study.explanation_files import key_of, write_explanations, write_labels
from interp.study.report_gallery import _chosen, gallery
from interp.study.report_parts import about, asked, cached, scored
from interp.study.scoring.cases import Record
from interp.study.scoring.score_files import write_records
from interp.study.study import Study
from interp.study.top_images import TopImages
from tests.study.conftest import SAMPLES, with_models
from tests.study.made_index import HOSTILE

VERBS = ("explain", "refine", "score", "steer", "attribute")


class Seen(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts, self.within = [], [], [], []
        self.feed(page)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def features(study):
    """Some that are active on several pictures, ascending."""
    return sorted(Cache.open(study).top["pictures"].argsort(descending=True)[:20].tolist())


@pytest.fixture(scope="module")
def full(study, features, tmp_path_factory):
    """The same study in which every verb has left something, with hostile texts."""
    folder = tmp_path_factory.mktemp("full") / "study"
    shutil.copytree(study.folder, folder)
    module = study.module
    evil, unable, failed, *rest = features
    write_explanations(folder / "explanations", module, {evil: HOSTILE, unable: UNABLE, **{f: f"Dogs of kind {f}." for f in rest}})
    write_labels(folder / "labels", module, {evil: HOSTILE, **{f: f"dog {f}" for f in rest}})
    write_labels(folder / "classes", module, {evil: HOSTILE, **dict.fromkeys(rest[:10], "object"), **dict.fromkeys(rest[10:12], "color")})
    entries = {evil: "", unable: "", failed: f"status 500: {HOSTILE}", **dict.fromkeys(rest, "")}
    for verb in ("explain", "refine"):
        (folder / verb).mkdir()
        (folder / verb / "settings.json").write_text(json.dumps({"model": HOSTILE}))
        lines = [json.dumps({"key": f"{key_of(module, f)}{' 12ab' * (verb == 'refine')}", "failure": why}) for f, why in entries.items()]
        (folder / verb / "journal.jsonl").write_text("\n".join([*lines, '{"key": "cut']))
    (folder / "scores").mkdir()
    records = [
        Record(key_of(module, f), f"dog {f}", "object", {"iou": {"score": k / 20, "random masks": 0.125}}) for k, f in enumerate(rest)
    ]
    without = Record(key_of(module, unable), UNABLE, "", {}, "unable")
    write_records(folder / "scores" / "iou.json", [*records, without])
    write_records(
        folder / "scores" / "clip.json", [Record(key_of(module, evil), HOSTILE, HOSTILE, {"clip": {"score": 27.0, HOSTILE: 20.0}})]
    )
    summaries = {
        "steer": {
            "schema": "llava-microscope/study-steer/1",
            "samples": 4,
            "features": [
                {"feature": evil, "samples": 4, "changed": 3, "kl": 0.75},
                {"feature": rest[0], "samples": 4, "changed": 0, "kl": 1.5},
            ],
            "failures": [{"sample": 1, "feature": 2, "failure": HOSTILE}],
            "judged": {"unchanged": 5, "categories": {"2": 2, "4": 1}, "failed": 0, "without_label": 0, "controls": {"1": 3}},
        },
        "by-word": {
            "schema": "llava-microscope/study-attribution/1",
            "samples": 9,
            "features": [{"feature": evil, "samples": 5, "sum": 1.25, "exact": -0.5}, {"feature": rest[1], "samples": 2, "sum": 0.5}],
            "pearson": None,
            "words": [HOSTILE],
            "failures": [],
        },
    }
    for name, held in summaries.items():
        (folder / name).mkdir()
        (folder / name / "summary.json").write_text(json.dumps(held))
        (folder / name / "settings.json").write_text(json.dumps({"unit": "target", "value": 3.5, "where": "image", "word": HOSTILE}))
    place = folder / HOSTILE.translate(str.maketrans("/<>", "___")) / "sae"
    place.mkdir(parents=True)
    kinds = {kind: {"tokens": 1234, "explained_variance": 0.875, "l0": 6.5, "dead": None} for kind in ("image", "text")}
    more = {"dead": 0.125, "loss": {"recovered": 0.75}, "pool": [10, 20, 3000], "samples": 38, "held_out": 2}
    (place / "figures.json").write_text(json.dumps(kinds | more))
    return with_models(Study.open(folder), study.vlm, study.sae)


def test_a_study_with_a_cache_alone_says_what_is_left_to_do(study, tmp_path):
    seen = Seen(report.page(study, 3, 0))
    for verb in VERBS:
        assert f"python -m interp.study {verb} {study.folder.name}" in seen.text
    assert "python -m interp.study cache" not in seen.text
    alive = int((Cache.open(study).top["pictures"] > 0).sum())
    assert f"{SAMPLES} samples" in seen.text
    assert f"{alive:,} of 2,048 features" in seen.text
    assert "Nothing is scored yet" in seen.text
    assert seen.tags.count("article") == 3
    shutil.copytree(study.folder, tmp_path / "study", ignore=lambda _, names: set(names) - {"study.json"})
    bare = Seen(report.page(Study.open(tmp_path / "study"), 3, 0))
    for verb in ("cache", "top-images", *VERBS):
        assert f"python -m interp.study {verb} study" in bare.text


def test_folders_are_called_by_their_names_alone(study, tmp_path):
    page = report.page(study, 1, 0)
    assert Path(study.plan.data).name in page
    for folder in (study.folder, Path(study.plan.data)):
        assert str(folder.parent) not in page
    plan = dataclasses.replace(study.plan, data="owner/name", split="train", sae=f"{tmp_path}/my-sae")
    model = {**study.found["model"], "name": f"{tmp_path}/base + ./adapter"}
    told = dict(about(dataclasses.replace(study, plan=plan, found={**study.found, "model": model})))
    assert told["data"].startswith("owner/name, train: ")
    assert told["model"] == "base + adapter"
    assert told["SAE"].startswith("my-sae: ")


def test_nothing_from_outside_becomes_markup_and_nothing_is_fetched(full):
    page = report.page(full, 4, 0)
    seen = Seen(page)
    assert set(seen.tags) & {"script", "iframe", "object", "link", "form", "a"} == set()
    assert seen.text.count(HOSTILE) > 8
    for tag, name, value in seen.attributes:
        assert not name.startswith("on")
        if name in {"src", "href"}:
            assert tag == "img"
            assert value.startswith("data:image/")
    assert ("meta", "content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in seen.attributes
    assert not re.search(r"@import|url\(", page)
    assert set(re.findall(r"https?://[^\s\"<]+", page)) == set()


def test_what_was_asked_and_how_it_ended(full):
    held = asked(full)
    explain, refine = held["explain"], held["refine"]
    assert (explain.model, explain.requests, explain.failed, explain.reasons) == (HOSTILE, 20, 1, (("status 500", 1),))
    assert (dict(explain.facts), dict(refine.facts)) == (
        {"explained": "18", "nothing in common": "1"},
        {"labels": "18", "different ones": "18"},
    )
    assert [(kind, count) for kind, count, _ in refine.classes] == [("object", 10), ("color", 2), (HOSTILE, 1), ("no known class", 5)]


def test_scores_stand_beside_their_controls(full):
    iou, clip = scored(full)
    (row, _, total) = iou.rows
    assert (iou.name, row["category"], row["features"], total["controls"]) == ("IoU", "object", 17, {"random masks": 0.125})
    assert total["mean"] == pytest.approx(0.4)
    assert total["undefined"] == {"unable": 1}
    assert sum(int(bar.said.split(": ")[1]) for bar in iou.chart.bars) == 17
    assert {mark.text: mark.x / charts.WIDTH for mark in iou.chart.marks} == pytest.approx({"mean": 0.4, "random masks": 0.125})
    assert (clip.name, clip.controls) == ("CLIP score", (HOSTILE,))
    assert "17 0.4 0.125 1 unable" in Seen(report.page(full, 1, 0)).text


def test_runs_of_steer_and_attribute_whatever_their_names(full, features):
    text = Seen(report.page(full, 0, 0)).text
    (
        evil,
        *_,
    ) = features
    assert f"dog {features[3]} #{features[3]} 0 of 4 1.5 {HOSTILE} #{evil} 3 of 4 0.75" in text  # the largest KL first
    assert "1 failed; summary.json says why." in text
    assert "changes, as a judge sees them mentions it 2, something else 1 with another feature's label (control) no effect 3" in text
    assert "attribute: by-word" in text
    assert f"{HOSTILE} #{evil} 5 +1.250 -0.500" in text


def test_saes_that_were_trained(full):
    text = Seen(report.page(full, 0, 0)).text
    assert "states to train on 3,030 of 38 samples held out 2 samples loss recovered 0.75" in text
    assert "image 1,234 0.875 6.5" in text
    (place,) = full.folder.glob("*/sae/figures.json")
    sound = place.read_text()
    place.write_text("{}")
    with pytest.raises(interp.InterpError, match="is damaged"):
        report.page(full, 0, 0)
    place.write_text(sound)


def test_best_median_and_worst_are_that(full, features):
    held = gallery(full, 3, 0)
    rest = features[3:]
    shown = {name: [card.feature for card in cards] for name, cards in held.groups}
    assert held.figure == "IoU"
    assert (shown["best"], shown["worst"]) == (rest[::-1][:3], rest[:3])
    assert shown["median"] == rest[::-1][7:10]
    assert shown["at random"] != [card.feature for card in dict(gallery(full, 3, 1).groups)["at random"]]
    assert shown["at random"] == [card.feature for card in dict(gallery(full, 3, 0).groups)["at random"]]
    assert [name for name, _ in _chosen({7: 0.5}, [], 3, 0)] == ["best"]
    assert _chosen({7: 0.5, 8: 0.4}, [8], 1, 0) == [("best", [7]), ("worst", [8]), ("at random", [8])]


def test_the_heat_on_a_picture_is_that_of_the_feature(full):
    top = TopImages.open(full)
    (_, (card, *_)), *_ = gallery(full, 1, 0).groups
    (shown,) = top.shown(card.feature, 1)
    first = card.pictures[0]
    painted = np.asarray(Image.open(io.BytesIO(base64.b64decode(first.heat.split(",")[1]))))
    assert painted.shape == (first.height, first.width, 4) == (*shown.heat.shape, 4)
    assert np.array_equal(painted[..., 3] > 0, shown.heat.numpy() > 0)
    most = max(float(one.heat.max()) for one in top.shown(card.feature, 5))
    high, low = (
        np.unravel_index(np.argmax(order), order.shape) for order in (shown.heat.numpy(), np.where(shown.heat > 0, -shown.heat, -np.inf))
    )
    assert painted[high].sum() >= painted[low].sum()
    if shown.heat.max() == most:
        assert painted[high][:3].tolist() == [253, 231, 37]


def test_the_density_counts_every_feature_that_is_active(study):
    held = cached(study)
    pictures = Cache.open(study).top["pictures"]
    assert sum(int(bar.said.split(": ")[1].replace(",", "")) for bar in held.density.bars) == int((pictures > 0).sum())
    assert held.density.ticks[-1].text == "100 %"
    with_one = charts.shares("", "", [1.0, 1.0], 1.0)
    assert [bar.said for bar in with_one.bars] == ["63.1 % to 100 %: 2"]


@pytest.mark.parametrize(
    ("values", "axis"), [([0.2, 0.2, 1.0], ("0", "1")), ([-1.0, 3.0], ("-1", "3")), ([5.0], ("0", "5")), ([0.0], ("0", "1"))]
)
def test_a_chart_of_scores_has_all_of_them(values, axis):
    chart = charts.scores("t", "a", values, {"mean": values[0]})
    assert sum(int(bar.said.split(": ")[1]) for bar in chart.bars) == len(values)
    assert (chart.ticks[0].text, chart.ticks[-1].text) == axis
    assert all(bar.y >= 0 and 0 < bar.height <= charts.HEIGHT for bar in chart.bars)
    assert all(0 <= mark.x <= charts.WIDTH for mark in chart.marks)


def test_marks_near_each_other_do_not_cover_each_other():
    marks = charts.scores("t", "a", [0.5], {"a": 0.51, "b": 0.5, "c": 0.52, "d": 0.9}).marks
    assert [mark.text for mark in marks] == ["a", "b", "c", "d"]
    assert len({mark.y for mark in marks[:3]}) == 3
    assert marks[3].y == marks[1].y


def test_the_file_is_written_and_says_what_is_damaged(full, capsys):
    report.run(full, argparse.Namespace(each=1, seed=0))
    assert (full.folder / "report.html").read_text(encoding="utf-8") == report.page(full, 1, 0)
    assert capsys.readouterr().out.strip().endswith("report.html")
    broken = full.folder / "x" / "summary.json"
    broken.parent.mkdir()
    broken.write_text("{")
    with pytest.raises(interp.InterpError, match=r"summary.json is damaged"):
        report.run(full, argparse.Namespace(each=1, seed=0))
    shutil.rmtree(broken.parent)
    with pytest.raises(interp.InterpError, match="--each is -1"):
        report.run(full, argparse.Namespace(each=-1, seed=0))
