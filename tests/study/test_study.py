"""A study's folder, its command line, and what they refuse."""

import json
import shutil
from types import SimpleNamespace

import datasets
import pytest

import interp
from interp.study import cli
from interp.study import data as data_module
from interp.study.data import Source, open_data
from interp.study.study import Plan, Study


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        cli.main([str(each) for each in arguments])
    assert left.value.code
    return capsys.readouterr().err


def test_says_what_it_is_of(study):
    held = json.loads((study.folder / "study.json").read_text())
    assert held["schema"] == "llava-microscope/study/1"
    assert held["plan"]["model"] == "emoji-llava"
    assert held["sae"]["layer"] == 3
    assert held["data"]["count"] == 40
    assert held["versions"]["torch"].startswith("2.")
    assert Study.open(study.folder).plan == study.plan


def test_help_lists_every_verb(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    told = capsys.readouterr().out
    assert all(verb.NAME in told and verb.HELP in told for verb in cli.VERBS)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--model", "smol-llava"], "is of --model 'emoji-llava', and 'smol-llava' was given"),
        (["--prompt", "What?"], "is of --prompt 'Describe the image.', and 'What?' was given"),
        (["--pool", "max"], "holds results with pool = 'mean', and 'max' was asked for"),
        (["--keep", "0"], "--keep and --splits must be at least 1"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml cannot be read"),
    ],
)
def test_refuses_a_folder_of_something_else(study, capsys, given, expected):
    assert expected in refused(capsys, "cache", study.folder, "--keep", 8, "--splits", 3, *given)


def test_refuses_what_is_no_study(tmp_path, capsys, scenes):
    assert "--model and --data must be given" in refused(capsys, "cache", tmp_path / "new")
    assert "is not empty and holds no study" in refused(capsys, "cache", scenes, "--model", "emoji-llava", "--data", scenes)
    assert "there is no such folder" in refused(capsys, "cache", tmp_path / "new", "--model", "emoji-llava", "--data", "./nowhere")
    assert not (tmp_path / "new").exists()
    (tmp_path / "study.json").write_text("{")
    assert "is damaged" in refused(capsys, "cache", tmp_path)


def test_a_file_may_hold_the_arguments(tmp_path, capsys, study):
    file = tmp_path / "arguments.yaml"
    file.write_text("keep: 8\nsplits: 3\n")
    cli.main(["cache", str(study.folder), "--config", str(file)])
    assert "40 samples" in capsys.readouterr().out
    assert "pool = 'mean', and 'max'" in refused(capsys, "cache", study.folder, "--config", file, "--pool", "max")
    file.write_text("kep: 8\n")
    assert "has 'kep', which this verb does not take. It takes data, filters, keep" in refused(
        capsys, "cache", study.folder, "--config", file
    )
    file.write_text("[1, 2]\n")
    assert "must hold names and values" in refused(capsys, "cache", study.folder, "--config", file)


def test_other_pictures_are_noticed(begin, scenes, tmp_path):
    copy = shutil.copytree(scenes, tmp_path / "scenes")
    folder = begin(tmp_path / "study", data=str(copy)).folder
    (copy / "000.png").write_bytes((copy / "001.png").read_bytes())
    with pytest.raises(interp.InterpError, match="are others than when the study"):
        Study.open(folder).data  # noqa: B018 - it is read when it is asked for


def test_another_sae_is_noticed(begin, tmp_path, emoji_sae):
    study = begin(tmp_path / "study")
    held = json.loads((study.folder / "study.json").read_text())
    held["sae"]["weights"] = "0" * 64
    (study.folder / "study.json").write_text(json.dumps(held))
    with pytest.raises(interp.InterpError, match="was begun with another SAE"):
        Study.open(study.folder).sae  # noqa: B018 - likewise


def test_a_study_may_get_its_sae_later(begin, tmp_path):
    folder = begin(tmp_path / "study", sae="").folder
    with pytest.raises(interp.InterpError, match="has no SAE yet"):
        Study.open(folder).sae  # noqa: B018 - likewise
    study = cli.opened(folder, {"sae": "emoji-llava"})
    assert study.module == "model.layers.3"
    assert Study.open(folder).plan == Plan("emoji-llava", study.plan.data, sae="emoji-llava")


def test_samples_come_in_chunks_that_do_not_depend_on_the_reader(scenes):
    data, revision = open_data(Source(str(scenes), "", "What?", 35))
    assert (data.count, data.chunks, revision) == (35, 2, "")
    read, late = data.reader(), data.reader()
    ids = [sample.id for chunk in range(3) for sample in read(chunk)]
    assert ids == [f"{number:03}.png" for number in range(35)]
    assert [sample.id for sample in late(1)] == ids[32:]
    assert late(7) == []
    assert [(number, sample.id) for number, sample in data.some([33, 2, 40])] == [(2, "002.png"), (33, "033.png")]


def test_a_data_set_of_the_hub_is_streamed_at_one_revision(monkeypatch, scenes):
    opened = []

    def load_dataset(name, **options):
        opened.append((name, options))
        files = sorted(scenes.iterdir())
        columns = {"image": [str(file) for file in files], "question": [f"What is {file.stem}?" for file in files]}
        return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image()).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(data_module.HfApi, "dataset_info", lambda _self, name: SimpleNamespace(sha=f"newest of {name}"))
    data, revision = open_data(Source("owner/name", "train", "What?", 3))
    assert revision == "newest of owner/name"
    assert [(sample.id, sample.prompt) for sample in data.reader()(0)] == [(str(n), f"What is {n:03}?") for n in range(3)]
    again, kept = open_data(Source("owner/name", "train", "What?", 3), "an older one")
    assert (kept, again.count) == ("an older one", 3)
    assert opened[-1] == ("owner/name", {"split": "train", "revision": "an older one", "streaming": True})
    assert again.fingerprint != data.fingerprint
    with pytest.raises(interp.InterpError, match="its length is not known"):
        open_data(Source("owner/name", "train", "What?", None))


def test_a_data_set_of_the_hub_needs_a_split():
    with pytest.raises(interp.InterpError, match="choose one, such as --split train"):
        open_data(Source("owner/name", "", "What?", 3))
