"""The explainer that needs no server: what the model is shown, what is kept of its answers, and names that are known to be right."""

import argparse
import json
import shutil

import numpy as np
import pytest

import interp
from interp.errors import InterpError
from interp.study import explain, self_explain
from interp.study.answers import UNABLE
from interp.study.explanation_files import file_of, read_texts
from interp.study.self_explain import Look, controls, names, nothing
from interp.study.study import Study
from interp.study.top_images import TopImages
from tests.study.conftest import with_models

HAMMER, LEAF, VIOLIN = 2, 15, 17  # features that make the model see these where there is nothing


@pytest.fixture
def mine(study, tmp_path):
    """A copy of the study that a test may change."""
    return with_models(Study.open(shutil.copytree(study.folder, tmp_path / "study")), study.vlm, study.sae)


def arguments(*given):
    parser = argparse.ArgumentParser()
    explain.add(parser)
    return parser.parse_args(["--explainer", "self", *map(str, given)])


def only(study, tmp_path, features):
    file = tmp_path / "filters.json"
    file.write_text(json.dumps({study.module: features}))
    return "--filters", file


@pytest.fixture
def seen(study):
    """Three features that are active on some picture."""
    return TopImages.open(study).features[7:1000:400]


def test_a_feature_is_named_by_what_it_makes_the_model_see_where_there_is_nothing(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(TopImages, "features", [HAMMER, LEAF, VIOLIN])  # the forty scenes need not show them
    explain.run(mine, arguments("--look", "nothing", "--name", "self", *only(mine, tmp_path, [HAMMER, LEAF, VIOLIN])))
    assert read_texts(mine.folder / "explanations-self") == {3: {HAMMER: "hammer", LEAF: "leaf", VIOLIN: "violin"}}


def test_each_answer_is_the_steered_answer_to_one_of_the_top_pictures(mine, tmp_path, seen):
    explain.run(mine, arguments("--pictures", 2, "--strengths", 0.5, 1, *only(mine, tmp_path, seen)))
    shown = TopImages.open(mine).shown(seen[1], 2)
    held = json.loads((mine.folder / "explain" / "answers" / f"{seen[1]}.json").read_text())
    assert list(held) == ["0", "0.5", "1"]
    for key, said in held.items():
        assert len(said) == len(shown)
        for answer, each in zip(said, shown, strict=True):
            edit = interp.Edit(sae=mine.sae, feature=seen[1], strength=float(key) or 1.0, where="image")
            result = interp.steer(mine.vlm, each.picture, mine.plan.prompt, [edit])
            assert answer == (result.steered if float(key) else result.plain)


def test_exactly_the_features_of_a_filter_are_named_and_a_later_filter_adds_its_own(mine, tmp_path, seen, monkeypatch):
    explain.run(mine, arguments("--pictures", 1, *only(mine, tmp_path, seen[:1])))
    assert list(read_texts(mine.folder / "explanations")[3]) == seen[:1]
    looked_at = []
    answers = self_explain.answers
    monkeypatch.setattr(
        self_explain, "answers", lambda study, top, feature, look: (looked_at.append(feature), answers(study, top, feature, look))[1]
    )
    explain.run(mine, arguments("--pictures", 1, *only(mine, tmp_path, seen)))
    assert looked_at == seen[1:]
    assert list(read_texts(mine.folder / "explanations")[3]) == seen


def test_a_run_that_is_killed_and_continued_writes_what_an_uninterrupted_run_writes(mine, study, tmp_path, seen, monkeypatch):
    whole = with_models(Study.open(shutil.copytree(mine.folder, tmp_path / "whole")), study.vlm, study.sae)
    options = arguments("--pictures", 1, "--strengths", 1, *only(mine, tmp_path, seen))
    explain.run(whole, options)
    answers = self_explain.answers

    def killed(study, top, feature, look):
        if feature == seen[1]:
            raise KeyboardInterrupt
        return answers(study, top, feature, look)

    monkeypatch.setattr(self_explain, "answers", killed)
    with pytest.raises(KeyboardInterrupt):
        explain.run(mine, options)
    assert not (mine.folder / "explanations").exists()
    monkeypatch.setattr(self_explain, "answers", answers)
    explain.run(mine, options)
    one, other = (file_of(each.folder / "explanations", mine.module).read_bytes() for each in (mine, whole))
    assert one == other


def test_features_whose_answers_do_not_agree_are_unable_and_counted(mine, tmp_path, seen, capsys):
    explain.run(mine, arguments("--pictures", 3, "--least", 1, *only(mine, tmp_path, seen)))
    texts = read_texts(mine.folder / "explanations")[3]
    unable = sum(text == UNABLE for text in texts.values())
    assert f"{3 - unable} explained, {unable} without anything in common" in capsys.readouterr().out
    found = names(mine.folder / "explain", 1.0)
    assert {feature: name.text or UNABLE for feature, name in found.items()} == texts
    assert all(name.score >= 1 for name in found.values() if name.text)


def test_the_control_is_what_the_model_says_with_nothing_turned_up(mine):
    top, look = TopImages.open(mine), Look(at="nothing")
    assert controls(mine, top, look) == [mine.vlm.trace(picture, look.ask, max_new_tokens=32).answer for picture in nothing()]
    assert [np.asarray(picture).std() for picture in nothing()] == [0, 0, 0]
    assert len(controls(mine, top, Look(max_new_tokens=1))) == min(64, mine.data.count)


def test_a_dry_run_looks_at_nothing(mine, tmp_path, seen, capsys):
    explain.run(mine, arguments("--dry-run", *only(mine, tmp_path, seen)))
    assert capsys.readouterr().out == "3 features, at most 60 answers of at most 32 tokens, 4 beside each other.\n"
    assert not (mine.folder / "explain").exists()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--strengths", 0], "turns nothing up"),
        (["--strengths", "nan"], "--strengths is nan"),
        (["--strengths", 1, 0.5, 1.0000000001], "--strengths has a number twice"),
        (["--least", 0], "--least is 0"),
        (["--least", 1.5], "--least is 1.5"),
        (["--max-new-tokens", 0], "--max-new-tokens is 0"),
        (["--name", "../up"], "--name is '../up'"),
        (["--pictures", 0], "--pictures is 0"),
    ],
)
def test_arguments_that_cannot_be_are_refused(mine, given, why):
    with pytest.raises(InterpError, match=why):
        explain.run(mine, arguments(*given))
    assert not (mine.folder / "explain").exists()


def test_another_look_is_refused_by_name(mine, tmp_path, seen):
    options = only(mine, tmp_path, seen[:1])
    explain.run(mine, arguments("--pictures", 1, "--strengths", 1, *options))
    with pytest.raises(InterpError, match="pictures = 1, and 2 was asked for"):
        explain.run(mine, arguments("--pictures", 2, "--strengths", 1, *options))
