"""The verb train-sae: from pictures to a published SAE, cut off at every stage, and by one process or two."""

import json
import shutil

import pytest
import torch

import interp
from interp.models import hub
from interp.saes import train as training
from interp.study import cli, train_sae
from interp.study.study import Study
from tests import upload_hub
from tests.sae_checkpoints import dense
from tests.study.processes import by_two
from tests.study.test_study import refused

OPTIONS = [
    *("--train-layer", "3", "--features", "96", "--active", "4", "--batch", "64", "--tokens", "6400", "--rate", "3e-3", "--answers", "6"),
    *("--max-new-tokens", "6", "--held-out", "8", "--checkpoints", "4", "--memory", "1"),
]


def trained(study, *more):
    train_sae.run(study, cli.parser().parse_args(["train-sae", str(study.folder), *OPTIONS, *map(str, more)]))
    return study.folder / "train-sae"


@pytest.fixture(scope="module")
def fresh(begin, emoji_vlm):
    """folder → a study without an SAE."""

    def begun(folder):
        study = begin(folder, sae="")
        vars(study).pop("sae")
        return study

    return begun


@pytest.fixture(scope="module")
def whole(fresh, tmp_path_factory):
    """A study with a trained SAE."""
    study = fresh(tmp_path_factory.mktemp("training") / "study")
    threads = torch.get_num_threads()
    trained(study)
    torch.set_num_threads(threads)
    return study


def contents(folder):
    """All files but the figures of other runs' addresses."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_both_formats_hold_the_same_sae(whole, emoji_vlm, scenes):
    place = whole.folder / "train-sae" / "sae"
    one, other = interp.load_sae(place / "blocks.3.hook_resid_post"), interp.load_sae(place / "model.layers.3")
    assert (one.layer, one.k, one.d_sae, one.d_in) == (other.layer, other.k, other.d_sae, other.d_in) == (3, 4, 96, emoji_vlm.d_model)
    states = emoji_vlm.trace(scenes / "000.png", "Describe the image.").residual(3)
    assert torch.equal(dense(one.encode(states), 96), dense(other.encode(states), 96))
    assert one.trained == other.trained
    assert torch.equal(one.density, other.density)
    assert one.trained["image"].explained_variance > 0.3
    told = json.loads((place / "figures.json").read_text())
    assert told["image"]["explained_variance"] == one.trained["image"].explained_variance
    assert told["pool"][0] == told["pool"][1] > 0
    assert (told["samples"], told["held_out"]) == (35, 5)
    assert told["loss"]["plain"] < told["loss"]["sae"] < told["loss"]["zero"]
    card = (place / "README.md").read_text()
    assert "96 features for the residual stream after decoder block 3" in card
    assert f"| image | {told['image']['tokens']:,} | {told['image']['explained_variance']:.3f} | 4.0 |" in card
    assert str(whole.folder) not in card + (place / "figures.json").read_text()  # where it was made is nobody's business


def test_the_study_has_an_sae_then(whole):
    study = Study.open(whole.folder)
    assert study.module == "model.layers.3"
    assert study.found["sae"]["features"] == 96
    assert study.sae.d_sae == 96


def test_it_does_nothing_again(whole, monkeypatch, capsys):
    before = contents(whole.folder)
    for name in ("part", "measured", "train"):
        monkeypatch.setattr(train_sae, name, lambda *_args, name=name, **_options: name == "train" or pytest.fail(name))
    trained(whole)
    assert contents(whole.folder) == before
    assert "Variance explained on held-out tokens: image" in capsys.readouterr().out


def test_cut_off_at_every_stage_it_ends_as_if_it_had_not_been(whole, fresh, tmp_path, monkeypatch):
    study = fresh(tmp_path / "study")

    def cut(module, name, at):
        """The call of this number ends the run."""
        calls, real = [], getattr(module, name)

        def breaks(*args, **options):
            calls.append(name)
            if len(calls) == at:
                raise KeyboardInterrupt
            return real(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(module, name, breaks)
            with pytest.raises(KeyboardInterrupt):
                trained(study)

    cut(train_sae, "part", 2)
    cut(training, "_settled", 3)
    cut(train_sae, "measured", 2)
    cut(train_sae, "assemble", 1)
    trained(study)
    ours, theirs = (contents(each.folder / "train-sae") for each in (study, whole))
    # The half-written checkpoint of the second cut is gone too.
    assert ours == theirs
    assert contents(study.folder / "states") == contents(whole.folder / "states")


def test_states_serve_several_saes(whole, monkeypatch):
    monkeypatch.setattr(train_sae, "part", lambda *_: pytest.fail("collected again"))
    study = Study.open(whole.folder)
    vars(study).update(vlm=whole.vlm)
    trained(study, "--architecture", "batchtopk", "--features", 64, "--name", "other", "--max-new-tokens", 3)
    assert Study.open(whole.folder).plan == study.plan  # it keeps the SAE that it has
    place = whole.folder / "other" / "sae"
    assert interp.load_sae(place).activation == "jumprelu"  # the only SAE in it
    assert "sparsify's format has no thresholds" in (place / "README.md").read_text()
    shutil.rmtree(whole.folder / "other")


def test_it_is_published(whole, tmp_path, monkeypatch, capsys):
    with upload_hub.connected(tmp_path, monkeypatch) as server:
        trained(whole, "--push-to-hub", "someone/sae", "--private")
        assert "commit/1111" in capsys.readouterr().out
        assert contents(server.root / "someone" / "sae") == contents(whole.folder / "train-sae" / "sae")
        assert server.commits == ["SAE of emoji-llava, layer 3"]
        trained(whole, "--push-to-hub", "someone/sae")  # the repository is there already
        assert [asked.get("visibility") for asked in server.made] == ["private", None]
        assert len(server.commits) == 2
        loaded = interp.load_sae("someone/sae/model.layers.3")
    assert torch.equal(loaded.W_dec, interp.load_sae(whole.folder / "train-sae" / "sae" / "model.layers.3").W_dec)


def test_a_token_that_will_not_do_is_told_before_anything_is_done(fresh, tmp_path, monkeypatch):
    monkeypatch.setattr(train_sae, "part", lambda *_: pytest.fail("collected"))
    study = fresh(tmp_path / "study")
    with upload_hub.connected(tmp_path, monkeypatch, token="hf_of-nobody"), pytest.raises(interp.InterpError, match="refuses the token"):
        trained(study, "--push-to-hub", "someone/sae")
    with pytest.raises(interp.InterpError, match="neither a folder nor the id of a repository"):
        hub.make_repo("a/b/c", private=False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--train-layer", "99"], "Layer 99 does not exist: emoji-llava has layers 0 to"),
        (["--held-out", "41"], "of 40 samples none would be held out"),
        (["--held-out", "1"], "--held-out is 1; it must be at least 2"),
        (["--active", "97"], "active is 97"),
        (["--batch", "99999999"], "A batch has 99999999 states; there are"),
        (["--text", "nowhere.txt"], "--text is 'nowhere.txt', which is no file"),
        (["--image-share", "2"], "is no share"),
        (["--per-picture", "0"], "--per-picture is 0"),
        (["--seed", "1"], "holds results with seed = 0, and 1 was asked for"),
    ],
)
def test_refusals(whole, capsys, given, expected):
    assert expected in refused(capsys, "train-sae", whole.folder, *OPTIONS, *given)


def test_too_little_room_on_the_disk_is_told(fresh, tmp_path, monkeypatch):
    study = fresh(tmp_path / "study")
    monkeypatch.setattr(train_sae.shutil, "disk_usage", lambda _folder: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(interp.InterpError, match=r"need about 0\.0 GB, and 0\.0 GB are free"):
        trained(study)


@pytest.mark.slow
def test_two_processes_make_the_same_files(whole, scenes, tmp_path):
    """All verbs that run the model on many samples, in one group of processes."""
    filters = tmp_path / "filters.json"
    filters.write_text('{"model.layers.3": [1, 5, 9, 20, 33]}')
    verbs = [
        ["train-sae", *OPTIONS],
        ["steer", "--filters", str(filters), "--target", "20", "--first", "3", "--rows", "2", "--max-new-tokens", "4"],
        ["attribute", "--first", "40", "--exact", "2", "--max-new-tokens", "4"],
        ["cache", "--keep", "8", "--splits", "3"],
    ]
    alone = Study.open(whole.folder)
    vars(alone).update(vlm=whole.vlm)
    for verb in verbs[1:]:
        args = cli.parser().parse_args([verb[0], str(alone.folder), *verb[1:]])
        next(each for each in cli.VERBS if verb[0] == each.NAME).run(alone, args)
    about = ["--model", "emoji-llava", "--data", str(scenes)]
    said = by_two(tmp_path, *([name, tmp_path / "two", *rest, *(about if name == "train-sae" else [])] for name, *rest in verbs))
    assert said.count("40 samples, ") == 1  # the main process speaks for both
    for folder in ("states", "train-sae", "steer", "attribute", "cache"):
        ours, theirs = contents(alone.folder / folder), contents(tmp_path / "two" / folder)
        assert sorted(ours) == sorted(theirs)
        assert [name for name in ours if ours[name] != theirs[name]] == []
