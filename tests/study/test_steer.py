"""Steering many features: each is what it is alone, the plain answer is computed once, and the reference's file."""

import itertools
import json

import pytest

import interp
from interp.steering import batch
from interp.study import cli, steer
from tests.study.test_study import refused

FEATURES = [3, 7, 460, 1203, 11]


@pytest.fixture(scope="module")
def filters(tmp_path_factory):
    file = tmp_path_factory.mktemp("filters") / "filters.json"
    file.write_text(json.dumps({"model.layers.3": FEATURES, "model.layers.9": [1]}))
    return file


def steered(study, filters, *more, unit=("--target", "40")):
    args = cli.parser().parse_args(["steer", str(study.folder), "--filters", str(filters), *unit, "--max-new-tokens", "6", *map(str, more)])
    steer.run(study, args)
    return study.folder / args.name


def held(file):
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def own(begin, tmp_path_factory):
    return begin(tmp_path_factory.mktemp("steering") / "study")


def test_one_picture_gives_the_file_of_the_reference(own, filters, scenes, emoji_vlm, emoji_sae, capsys):
    folder = steered(own, filters, "--image", scenes / "002.png", "--ask", "What is on the left?", "--rows", 2, "--name", "one")
    found = held(folder / "model.layers.3.json")
    assert list(found) == [f"model.layers.3_feature{feature}" for feature in sorted(FEATURES)]
    for feature in FEATURES:
        edit = interp.Edit(sae=emoji_sae, feature=feature, target=40)
        alone = interp.steer(emoji_vlm, scenes / "002.png", "What is on the left?", [edit], max_new_tokens=6)
        assert found[f"model.layers.3_feature{feature}"] == {"original_resps": alone.plain, "clamped_resps": alone.steered, "idx": feature}
    summary = held(folder / "summary.json")
    assert [each["feature"] for each in summary["features"]] == sorted(FEATURES)
    assert summary["failures"] == []
    assert any(each["changed"] for each in summary["features"])
    assert "features change an answer, on 1 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("unit", "fields"),
    [(("--strength", "0.4"), {"strength": 0.4, "where": "image"}), (("--amount", "-5"), {"amount": -5, "where": "image"})],
    ids=["strength", "amount"],
)
def test_the_study_s_samples_have_a_file_each(own, filters, scenes, emoji_vlm, emoji_sae, unit, fields):
    folder = steered(own, filters, "--first", 2, "--where", "image", "--name", unit[0][2:], unit=unit)
    for sample, feature in itertools.product(range(2), FEATURES[:2]):
        found = held(folder / "samples" / f"{sample:05}" / "model.layers.3.json")[f"model.layers.3_feature{feature}"]
        edit = interp.Edit(sae=emoji_sae, feature=feature, **fields)
        alone = interp.steer(emoji_vlm, scenes / f"{sample:03}.png", "Describe the image.", [edit], max_new_tokens=6)
        assert (found["original_resps"], found["clamped_resps"]) == (alone.plain, alone.steered)
    assert held(folder / "summary.json")["samples"] == 2


def test_features_are_rows_and_what_is_done_is_not_done_again(own, filters, scenes, monkeypatch):
    sizes, real = [], batch.SteeringBatch.answer
    monkeypatch.setattr(batch.SteeringBatch, "answer", lambda self, sets: sizes.append(len(sets)) or real(self, sets))
    options = ("--image", scenes / "001.png", "--rows", 3, "--name", "rows")
    folder = steered(own, filters, *options)
    assert sizes == [3, 2]  # beside the plain row of each
    before = (folder / "model.layers.3.json").read_bytes()
    (folder / "answers" / "00000-0001.json").unlink()  # as after a kill
    (folder / "model.layers.3.json").unlink()
    sizes.clear()
    steered(own, filters, *options)
    assert sizes == [2]
    assert (folder / "model.layers.3.json").read_bytes() == before
    sizes.clear()
    steered(own, filters, *options)
    assert sizes == []


def test_a_feature_that_fails_takes_no_other_with_it(own, filters, scenes, monkeypatch, capsys):
    real = steer.steer_each

    def breaks(vlm, image, prompt, edits, **options):
        if any(edit.feature == 7 for edit in edits):
            raise interp.InterpError("With target 8 on feature 7 the states overflow.")
        return real(vlm, image, prompt, edits, **options)

    monkeypatch.setattr(steer, "steer_each", breaks)
    folder = steered(own, filters, "--image", scenes / "000.png", "--name", "fails")
    found = held(folder / "model.layers.3.json")
    assert [each["idx"] for each in found.values()] == [3, 11, 460, 1203]
    assert held(folder / "summary.json")["failures"] == [
        {"sample": 0, "feature": 7, "failure": "With target 8 on feature 7 the states overflow."}
    ]
    assert "1 answers failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--target", "8"], "Say which features to steer"),
        (["--filters", "F"], "exactly one of --target, --strength and --amount"),
        (["--filters", "F", "--target", "8", "--amount", "3"], "exactly one of --target, --strength and --amount"),
        (["--filters", "F", "--target", "8", "--rows", "0"], "--rows is 0"),
        (["--filters", "F", "--target", "8", "--first", "41"], "--first is 41; the study has 40 samples"),
        (["--filters", "F", "--target", "8", "--image", "nowhere.png"], "--image is 'nowhere.png', which cannot be read"),
        (["--filters", "F", "--target", "nan", "--first", "1"], "target is nan"),
        (["--filters", "F", "--target", "8", "--first", "1", "--image", "x.png"], "leave it out with --image"),
    ],
)
def test_refusals(own, filters, capsys, given, expected):
    assert expected in refused(capsys, "steer", own.folder, "--name", "refused", *(str(filters) if each == "F" else each for each in given))


def test_another_setting_needs_another_name(own, filters, scenes, capsys):
    steered(own, filters, "--image", scenes / "003.png", "--name", "kept")
    told = refused(capsys, "steer", own.folder, "--filters", filters, "--target", 9, "--image", scenes / "003.png", "--name", "kept")
    assert "value" in told or "max_new_tokens" in told


def test_a_study_without_an_sae_is_refused(begin, tmp_path, filters, capsys):
    study = begin(tmp_path / "study", sae="")
    assert "has no SAE yet" in refused(capsys, "steer", study.folder, "--filters", filters, "--target", 3)
    assert "has no SAE yet" in refused(capsys, "attribute", study.folder)
    assert "has no SAE yet" in refused(capsys, "filters", study.folder, "--by", "list", "--features", 3)
