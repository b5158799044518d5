"""`score`: on a small study of scenes whose truth is known, and the command line around the measures."""

import itertools
import json
import random
import shutil

import pytest
from PIL import Image

from interp import InterpError
from interp.emoji_world.architecture import IMAGE_SIDE
from interp.emoji_world.scenes import draw, sample_scene
from interp.emoji_world.sprites import SEEN_VENDORS, load_sprites
from interp.emoji_world.words import WORDS
from interp.study import cli, score
from interp.study.explanation_files import write_explanations, write_labels
from interp.study.scoring.score_files import read_records
from interp.study.scoring.segmenters import mask_file
from interp.study.study import Study
from interp.study.top_images import TopImages
from tests.concepts.test_scores import tiny_clip
from tests.study.chat_server import serve_chat
from tests.study.conftest import SAMPLES, with_models

MODULE = "model.layers.3"
KNOWN = ["--pictures", "1", "--skip", "0", "--trials", "4"]


@pytest.fixture(scope="module")
def truth():
    """What each scene of the study shows where: word to bool [96, 96]."""
    rng, sprites = random.Random("study"), load_sprites()
    out = []
    for _ in range(SAMPLES):
        _, shares = draw([sample_scene(rng, range(len(SEEN_VENDORS)))], sprites, IMAGE_SIDE, IMAGE_SIDE)
        covered = shares[0].view(IMAGE_SIDE, IMAGE_SIDE, -1) > 0.5
        out.append({WORDS[word]: covered[:, :, word].numpy() for word in covered.any(0).any(0).nonzero().flatten().tolist()})
    return out


@pytest.fixture(scope="module")
def labels(study, truth):
    """What the shipped SAE's features are named after, for twenty whose top picture shows it."""
    top, names = TopImages.open(study), study.sae.labels
    named = ((feature, label.text) for feature in top.features if (label := names.get(feature)))
    return dict(itertools.islice(((feature, text) for feature, text in named if text in truth[top.numbers(feature)[0]]), 20))


@pytest.fixture(scope="module")
def masks(truth, labels, tmp_path_factory):
    """Where each word of the labels is in each scene."""
    folder = tmp_path_factory.mktemp("masks")
    for number, scene in enumerate(truth):
        for word in scene.keys() & set(labels.values()):
            file = mask_file(folder, word, f"{number:03}.png")
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(scene[word]).save(file)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def labelled(study, labels, tmp_path):
    """A copy of the study that a test may add to."""
    folder = tmp_path / "study"
    shutil.copytree(study.folder, folder)
    write_labels(folder / "labels", MODULE, {**labels, 2000: "Unable to produce descriptions"})
    write_labels(folder / "classes", MODULE, dict.fromkeys(list(labels)[:12], "object") | dict.fromkeys(list(labels)[12:], "color"))
    return folder


def run(folder, *arguments, verb="score"):
    cli.main([verb, str(folder), *map(str, arguments)])


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_iou_of_true_labels_is_far_from_its_controls(labelled, labels, masks, capsys):
    run(labelled, "--measures", "iou", "--masks", masks, *KNOWN)
    printed = capsys.readouterr().out
    rows = {(row["figure"], row["category"]): row for row in json.loads((labelled / "scores" / "table.json").read_text())}
    for figure in ("iou", "soft_iou", "auprc"):
        total = rows[figure, "total"]
        assert total["features"] >= 18
        assert total["undefined"].get("unable") == 1
        assert set(total["controls"]) == {"random masks", "random features", "random pictures"}
        assert total["mean"] > 2 * total["controls"]["random masks"]
        assert figure == "auprc" or total["mean"] > 10 * total["controls"]["random features"]
    assert rows["iou", "object"]["features"] + rows["iou", "color"]["features"] == rows["iou", "total"]["features"]
    assert all(name in printed for name in ("IoU", "soft IoU", "AUPRC", "object", "color", "total", "random masks", "1 unable"))
    records = read_records(labelled / "scores" / "iou.json")
    assert [record.feature for record in records] == [f"{MODULE}_feature{feature}" for feature in [*labels, 2000]]
    assert records[-1].undefined == "unable"


def test_wrong_labels_score_as_low_as_the_controls(labelled, labels, masks):
    turned = dict(zip(labels, [*list(labels.values())[7:], *list(labels.values())[:7]], strict=True))
    write_labels(labelled / "labels", MODULE, turned)
    run(labelled, "--measures", "iou", "--masks", masks, *KNOWN)
    total = next(row for row in json.loads((labelled / "scores" / "table.json").read_text()) if row["category"] == "total")
    assert total["mean"] < 0.1


def test_exactly_the_features_of_the_filter_are_scored(labelled, labels, masks, tmp_path):
    """The reference scores features 0 to n - 1 instead."""
    some = [list(labels)[4], list(labels)[1], 5]
    (tmp_path / "filters.json").write_text(json.dumps({MODULE: some}))
    run(labelled, "--measures", "iou", "--masks", masks, "--filters", tmp_path / "filters.json", *KNOWN)
    records = read_records(labelled / "scores" / "iou.json")
    assert [record.feature for record in records] == [f"{MODULE}_feature{feature}" for feature in sorted(some)]
    assert [record.undefined for record in records if record.feature.endswith("_feature5")] == ["no label"]


def test_stopped_in_the_middle_goes_on_to_the_same_files(labelled, masks, tmp_path, monkeypatch):
    whole = shutil.copytree(labelled, tmp_path / "whole")
    run(whole, "--measures", "iou", "--masks", masks, *KNOWN)
    known = score.known_masks
    calls = []

    def failing(folder):
        segment = known(folder)

        def one(*given):
            calls.append(given)
            if len(calls) == 100:
                raise KeyboardInterrupt
            return segment(*given)

        return one

    monkeypatch.setattr(score, "known_masks", failing)
    with pytest.raises(KeyboardInterrupt):
        run(labelled, "--measures", "iou", "--masks", masks, *KNOWN)
    done = {path.name: path.stat().st_mtime_ns for path in (labelled / "scores" / "iou").glob("0*.json")}
    assert 0 < len(done) < 3
    run(labelled, "--measures", "iou", "--masks", masks, *KNOWN)
    assert contents(labelled) == contents(whole)
    assert all((labelled / "scores" / "iou" / name).stat().st_mtime_ns == time for name, time in done.items())


def test_a_server_judges_detection_and_consistency(labelled, labels):
    said = {}

    def say(text, times):
        said[text] = times
        return "perhaps" if "taco" in text and not said.get("again") else "1" if "label:" in text else "yes"

    with serve_chat(say) as server:
        asked = ["--server", server.url, "--judge", "fake", "--concurrency", "4", *KNOWN]
        with pytest.raises(SystemExit):
            run(labelled, "--measures", "consistency")
        run(labelled, "--measures", "detection", "consistency", *asked)
        count = len(server.asked)
        detected = read_records(labelled / "scores" / "detection.json")
        judged = read_records(labelled / "scores" / "consistency.json")
        assert {record.undefined for record in judged} <= {"", "no answer"}
        assert len(judged) == len(labels), "the one that could not be described is not asked about"
        scores = {record.figures["balanced_accuracy"]["score"] for record in detected if not record.undefined}
        assert scores == {0.5}, "a judge who always says yes"
        said["again"] = True
        run(labelled, "--measures", "detection", "consistency", *asked)
        assert len(server.asked) == count
        failed = sum(record.failed.get("no answer", 0) for record in detected + judged)
        run(labelled, "--measures", "detection", "consistency", *asked, "--retry-failed")
        assert len(server.asked) >= count + failed
        assert not any("no answer" in record.failed for record in read_records(labelled / "scores" / "detection.json"))


def test_as_reference_writes_its_lists_and_counts_failures_as_zero(labelled, labels, masks):
    write_labels(labelled / "labels", MODULE, {**labels, next(iter(labels)): "a word without masks"})
    run(labelled, "--measures", "iou", "--masks", masks, *KNOWN, "--as-reference")
    first = json.loads((labelled / "scores" / "reference" / "iou.json").read_text())[0]
    assert first == {
        "feature": f"{MODULE}_feature{next(iter(labels))}",
        "iou_scores": [-1],
        "avg_iou": 0.0,
        "k": 1,
        "activated_pct": first["activated_pct"],
        "label": "a word without masks",
    }
    ours, theirs = (
        {(row["figure"], row["category"]): row for row in json.loads((labelled / place / "table.json").read_text())}
        for place in ("scores", "scores/reference")
    )
    assert ours["iou", "total"]["undefined"] == {"not found": 1}
    assert theirs["iou", "total"]["features"] == ours["iou", "total"]["features"] + 1
    assert theirs["iou", "total"]["mean"] < ours["iou", "total"]["mean"]


def test_what_explain_used_is_left_out_and_what_it_could_not_describe_is_counted(labelled, labels, masks):
    write_explanations(labelled / "explanations", MODULE, {**dict.fromkeys(labels, "a thing"), 7: "Unable to produce descriptions", 8: "x"})
    write_labels(labelled / "labels", MODULE, labels)
    study = Study.open(labelled)
    study.stage("explain", {"pictures": 2})
    run(labelled, "--measures", "iou", "--masks", masks, "--trials", "0", "--pictures", "1")
    assert study.settings("scores/iou")["skip"] == 2
    records = {record.feature: record for record in read_records(labelled / "scores" / "iou.json")}
    assert records[f"{MODULE}_feature7"].undefined == "unable"
    assert records[f"{MODULE}_feature8"].undefined == "no label", "it was explained, and refining it failed"
    top = TopImages.open(study)
    for feature in labels:
        held_out = records[f"{MODULE}_feature{feature}"].details.get("pictures", [])
        assert held_out == [top.id(number) for number in top.numbers(feature)[2:3]]


def test_a_dry_run_asks_and_writes_nothing(labelled, capsys):
    with serve_chat(lambda *_: "1") as server:
        run(labelled, "--measures", "iou", "detection", "--server", server.url, "--judge", "fake", "--dry-run", *KNOWN)
        assert server.asked == []
    assert 'Does this picture show what "' in capsys.readouterr().out
    assert [path.name for path in (labelled / "scores").iterdir()] == ["detection-example"]


def test_other_settings_need_another_folder(labelled, masks, capsys):
    run(labelled, "--measures", "iou", "--masks", masks, *KNOWN)
    for changed, message in (
        (["--trials", "9"], "holds results with trials = 4, and 9 was asked for"),
        (["--pictures", "0"], "pictures is 0"),
        (["--skip", "-1"], "skip is -1"),
        (["--labels", str(masks)], "There are no explanations or labels"),
        (["--server", "nowhere", "--measures", "consistency"], "--judge is missing"),
        (["--server", "nowhere", "--judge", "x", "--measures", "consistency"], "server is 'nowhere'"),
    ):
        with pytest.raises(SystemExit):
            run(labelled, "--measures", "iou", "--masks", masks, *KNOWN, *changed)
        assert message in capsys.readouterr().err


def test_a_study_without_labels_has_nothing_to_score(study, emoji_vlm, emoji_sae, tmp_path):
    shutil.copytree(study.folder, tmp_path / "study")
    copy = with_models(Study.open(tmp_path / "study"), emoji_vlm, emoji_sae)
    args = cli.parser().parse_args(["score", str(copy.folder)])
    with pytest.raises(InterpError, match="has no labels of"):
        score.run(copy, args)
    write_labels(copy.folder / "labels", MODULE, {5000: "dog"})
    with pytest.raises(InterpError, match="The labels name the feature 5000; the SAE has 2048"):
        score.run(copy, args)
