"""Attribution of many samples: what single runs give, averaged; and the features chosen from it."""

import json
import shutil

import pytest
import torch

import interp
from interp.attribution.filters import pooled
from interp.study import attribute, cli, filters
from interp.study.cache_files import Cache, read_tensors
from interp.study.explanation_files import write_labels
from interp.tracing.select import content_word
from tests.study.test_study import refused

FIRST = 5


def attributed(study, *more):
    args = cli.parser().parse_args(["attribute", str(study.folder), *map(str, more)])
    attribute.run(study, args)
    return study.folder / args.name


@pytest.fixture(scope="module")
def own(study, begin, tmp_path_factory):
    """A study with a cache, and with scores of its first samples."""
    folder = shutil.copytree(study.folder, tmp_path_factory.mktemp("attribution") / "study")
    copy = interp.study.study.Study.open(folder)
    vars(copy).update(vlm=study.vlm, sae=study.sae)
    attributed(copy, "--first", FIRST, "--exact", 12, "--dense")
    return copy


@pytest.fixture(scope="module")
def alone(scenes, emoji_vlm, emoji_sae):
    """Each sample by itself."""
    traces = [emoji_vlm.trace(scenes / f"{number:03}.png", "Describe the image.") for number in range(FIRST)]
    return [interp.attribute(trace, emoji_sae, content_word(trace), top=12, where="image") for trace in traces]


def test_scores_are_those_of_single_runs(own, alone, emoji_sae):
    held = read_tensors(own.folder / "attribute" / "scores" / "00000.safetensors")
    ends = [0, *held["error_end"].tolist()]
    for number, one in enumerate(alone):
        here = held["sample"] == number
        assert torch.equal(held["feature"][here].long(), one.scores.features)
        assert torch.equal(held["position"][here].long(), one.scores.positions)
        torch.testing.assert_close(held["score"][here], one.scores.values)
        torch.testing.assert_close(held["error"][ends[number] : ends[number + 1]], one.error[: one.margin.row + 1])
        file = own.folder / "attribute" / "model_layers_3" / f"{number:05}.safetensors"
        read = interp.read_scores(file, emoji_sae)
        torch.testing.assert_close(read.scores[one.features[0].feature], one.features[0].scores[1 : one.margin.row + 1])
    assert len(held["sample"].unique()) == FIRST


def test_averages_are_those_of_the_dense_tables(own, alone, emoji_sae):
    held = read_tensors(own.folder / "attribute" / "pooled.safetensors")
    tables = []
    for one in alone:
        positions = one.encoding.select("image")[1]
        table = torch.zeros(emoji_sae.d_sae, one.trace.length)
        table[one.scores.features, one.scores.positions] = one.scores.values
        tables.append(table[:, positions])
    for pool, reduce in {"sum": lambda t: t.sum(1), "avg": lambda t: t.mean(1), "max": lambda t: t.amax(1)}.items():
        torch.testing.assert_close(held[pool], torch.stack([reduce(table) for table in tables]).mean(0), atol=1e-5, rtol=1e-4)
    assert torch.equal(held["samples_with"], torch.stack([(table != 0).any(1) for table in tables]).sum(0))


def test_exact_effects_are_averages_of_single_ones(own, alone):
    summary = json.loads((own.folder / "attribute" / "summary.json").read_text())
    exact = {row["feature"]: row["exact"] for row in summary["features"] if "exact" in row}
    assert len(exact) == 12
    assert summary["samples"] == FIRST
    assert -1 <= summary["pearson"] <= 1
    every = {feature: [] for feature in exact}
    for one in alone:
        for each in one.features:
            if each.feature in every:
                every[each.feature].append(each.exact)
    whole = [feature for feature, found in every.items() if len(found) == FIRST]
    for feature in whole:
        assert exact[feature] == pytest.approx(sum(every[feature]) / FIRST, abs=2e-3)
    best = summary["features"][0]
    assert best["label"] == own.sae.labels.get(best["feature"]).text
    assert abs(best["sum"]) >= abs(summary["features"][-1]["sum"])


def test_what_is_done_is_not_done_again(own, monkeypatch):
    files = {
        file: file.stat().st_mtime_ns for file in (own.folder / "attribute").rglob("*.safetensors") if file.name != "pooled.safetensors"
    }
    monkeypatch.setattr(attribute.Task, "found", lambda *_: pytest.fail("scored again"))
    attributed(own, "--first", FIRST, "--exact", 12, "--dense")
    assert {file: file.stat().st_mtime_ns for file in files} == files


def test_a_file_of_the_reference_says_what_to_explain(own, scenes, emoji_vlm, emoji_sae, tmp_path):
    shutil.copy(scenes / "004.png", tmp_path / "a.png")
    entry = {"prompt": "<image>\nWhat is on the left?", "answer": "Ġdog", "baseline": "▁cat", "image": "a.png"}
    file = tmp_path / "pairs.json"
    file.write_text(json.dumps([entry, entry | {"baseline": "dog"}, entry | {"answer": "cat", "baseline": "dog"}]))
    folder = attributed(own, "--pairs", file, "--name", "pairs")
    trace = emoji_vlm.trace(scenes / "004.png", "What is on the left?", answer="dog")
    one = interp.attribute(trace, emoji_sae, 0, "cat", top=1)
    held = read_tensors(folder / "scores" / "00000.safetensors")
    torch.testing.assert_close(held["score"][held["sample"] == 0], one.scores.values)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["samples"], summary["words"]) == (2, ["cat", "dog"])
    assert [failed["number"] for failed in summary["failures"]] == [1]
    assert "is the token itself" in summary["failures"][0]["failure"]


def test_samples_without_the_word_are_told(own, capsys):
    folder = attributed(own, "--first", 3, "--word", "xylophone", "--name", "word")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["samples"], len(summary["failures"]), summary["features"], summary["pearson"]) == (0, 3, [], None)
    assert "3 samples could not be scored" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{", "not JSON"),
        ("[]", "must hold a list of entries"),
        ('[{"prompt": "a", "answer": "b", "baseline": "c"}]', "Entry 0 of --pairs"),
        ('[{"prompt": "a", "answer": "b", "baseline": "c", "image": "nowhere.png"}]', "names the picture 'nowhere.png', which is not in"),
    ],
)
def test_other_pairs_are_refused(own, tmp_path, capsys, written, expected):
    (tmp_path / "pairs.json").write_text(written)
    assert expected in refused(capsys, "attribute", own.folder, "--pairs", tmp_path / "pairs.json", "--name", "refused")


def test_refusals(own, tmp_path, capsys):
    (tmp_path / "pairs.json").write_text("[]")
    assert "leave out --word" in refused(capsys, "attribute", own.folder, "--pairs", tmp_path / "pairs.json", "--word", "dog")
    assert "--first is 0; the study has 40 samples" in refused(capsys, "attribute", own.folder, "--first", 0)
    assert "--exact is 9999; the SAE has 2048 features" in refused(capsys, "attribute", own.folder, "--exact", 9999)


# Choosing features


def chosen(study, tmp_path, *more):
    out = tmp_path / "filters.json"
    filters.run(study, cli.parser().parse_args(["filters", str(study.folder), "--out", str(out), *map(str, more)]))
    (features,) = interp.read_filters(out).values()
    assert json.loads(out.read_text()) == {"model.layers.3": features}
    return features


@pytest.mark.parametrize("pool", ["sum", "avg", "max"])
def test_filters_by_attribution(own, tmp_path, pool):
    features = chosen(own, tmp_path, "--by", "attribution", "-k", 10, "--pool", pool)
    averages = read_tensors(own.folder / "attribute" / "pooled.safetensors")[pool]
    assert features == averages.topk(10).indices.tolist()
    assert (averages[features] > 0).all()


def test_filters_of_one_sample_are_those_of_the_package(own, alone, tmp_path):
    attributed(own, "--first", 1, "--name", "single")
    assert chosen(own, tmp_path, "--by", "attribution", "-k", 20, "--name", "single") == pooled(alone[0], "sum", 20)


def test_filters_by_activity(own, tmp_path):
    top = Cache.open(own).top
    by_pictures = chosen(own, tmp_path, "--by", "pictures", "-k", 5)
    assert top["pictures"][by_pictures].min() >= top["pictures"].topk(5).values.min()
    by_activity = chosen(own, tmp_path, "--by", "activity", "-k", 5)
    assert by_activity[0] == int(top["scores"].clamp(min=0).mean(1).argmax())


def test_filters_by_name(own, tmp_path, emoji_sae):
    named = emoji_sae.labels.search("dog", 3)
    assert chosen(own, tmp_path, "--by", "label", "--label", "dog", "-k", 3) == named
    write_labels(own.folder / "labels", "model.layers.3", {1999: "zeppelin with a dog"})
    assert chosen(own, tmp_path, "--by", "label", "--label", "zeppelin") == [1999]


def test_filters_of_a_list(own, tmp_path):
    assert chosen(own, tmp_path, "--by", "list", "--features", 9, 3, 9) == [9, 3]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "Say how to choose the features: --by attribution"),
        (["--by", "list"], "Say which features"),
        (["--by", "list", "--features", "2048"], "--features names 2048; the SAE has 2048"),
        (["--by", "label"], "Say what to look for"),
        (["--by", "label", "--label", "qqqq"], "No feature is left"),
        (["--by", "attribution", "--name", "nothing"], "has no finished results in nothing"),
        (["--by", "attribution", "-k", "0"], "-k is 0"),
    ],
)
def test_filters_that_cannot_be_made(own, capsys, given, expected):
    assert expected in refused(capsys, "filters", own.folder, *given)
    assert not (own.folder / "filters.json").exists()
