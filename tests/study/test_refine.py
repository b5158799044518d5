"""`refine`: labels and classes of explanations."""

import argparse
import functools
import json

import pytest

from interp.errors import InterpError
from interp.study import asking, cli, refine
from interp.study.answers import UNABLE
from interp.study.client import Retry
from interp.study.explanation_files import file_of, read_texts, write_explanations
from interp.study.study import Study
from tests.study.chat_server import Says, serve_chat

MODULE = "model.layers.3"
TEXTS = {3: "red flowers", 4: UNABLE, 7: "the wheels of cars", 9: "something", 11: "striped cloth"}
SAYS = {
    "red flowers": "[ANSWER] red flower\n[CLASS] object",
    "the wheels of cars": "[ANSWER] wheel\n[CLASS] part",
    "something": "I would not know.",
    "striped cloth": "[ANSWER] stripes\n[CLASS] pattern",
}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    async def sleep(_):
        pass

    monkeypatch.setattr(asking, "Retry", functools.partial(Retry, sleep=sleep))


@pytest.fixture
def mine(study, tmp_path):
    """A study with explanations and nothing else."""
    folder = tmp_path / "study"
    write_explanations(folder / "explanations", MODULE, TEXTS)
    (folder / "study.json").write_bytes((study.folder / "study.json").read_bytes())
    return Study.open(folder)


def arguments(*given):
    parser = argparse.ArgumentParser()
    refine.add(parser)
    return parser.parse_args(["--refiner", "small", *map(str, given)])


def about(text):
    """The explanation that a request is about."""
    return next(each for each in [*SAYS, UNABLE, "blue flowers"] if each in text)


def say(text, _):
    return SAYS.get(about(text), "[ANSWER] blue flower\n[CLASS] object")


def test_writes_a_label_and_a_class_for_each_feature_that_has_them(mine, capsys):
    with serve_chat(say) as chat:
        refine.run(mine, arguments("--server", chat.url))
    assert sorted(map(about, chat.texts)) == sorted(SAYS)  # not what the explainer could not describe
    assert json.loads(file_of(mine.folder / "labels", MODULE).read_text()) == {
        f"{MODULE}_feature3": "red flower",
        f"{MODULE}_feature7": "wheel",
        f"{MODULE}_feature11": "stripes",
    }
    assert read_texts(mine.folder / "classes") == {3: {3: "object", 7: "part"}}
    out = capsys.readouterr().out
    assert "3 labels, 1 of them of no known class, 1 without anything in common" in out
    assert "1 failed (1 times: it has no [ANSWER])" in out


def test_asks_nothing_twice_but_a_changed_explanation_again(mine):
    with serve_chat(say) as chat:
        refine.run(mine, arguments("--server", chat.url))
        chat.asked.clear()
        refine.run(mine, arguments("--server", chat.url))
        assert chat.asked == []
        write_explanations(mine.folder / "explanations", MODULE, TEXTS | {3: "blue flowers"})
        refine.run(mine, arguments("--server", chat.url))
        assert list(map(about, chat.texts)) == ["blue flowers"]
    assert read_texts(mine.folder / "labels")[3] == {3: "blue flower", 7: "wheel", 11: "stripes"}


def test_refines_exactly_the_features_of_a_filter(mine, tmp_path):
    (tmp_path / "f.json").write_text(json.dumps({MODULE: [7, 8]}))
    with serve_chat(say) as chat:
        refine.run(mine, arguments("--server", chat.url, "--filters", tmp_path / "f.json"))
    assert read_texts(mine.folder / "labels") == {3: {7: "wheel"}}
    assert len(chat.asked) == 1


def test_reads_a_folder_of_the_reference(mine, tmp_path):
    folder = tmp_path / "theirs"
    (folder / "images").mkdir(parents=True)
    (folder / "model_layers_3.json").write_text(json.dumps([{"prompt": "…"}, {f"{MODULE}_feature5": "red flowers"}]))
    with serve_chat(say) as chat:
        refine.run(mine, arguments("--server", chat.url, "--explanations", folder))
    assert read_texts(mine.folder / "labels") == {3: {5: "red flower"}}


def test_a_dry_run_sends_nothing(mine, capsys):
    with serve_chat(say) as chat:
        refine.run(mine, arguments("--server", chat.url, "--dry-run"))
    assert chat.asked == []
    assert "4 requests with 0 pictures" in capsys.readouterr().out
    assert not (mine.folder / "labels").exists()


def test_says_what_is_missing(mine, tmp_path):
    (tmp_path / "f.json").write_text(json.dumps({MODULE: [8]}))
    write_explanations(tmp_path / "other", "model.layers.5", {1: "a"})
    address = ("--server", "http://localhost:1")
    with pytest.raises(InterpError, match="--refiner is missing"):
        refine.run(mine, arguments("--refiner", ""))
    with pytest.raises(InterpError, match="--server is missing"):
        refine.run(mine, arguments())
    with pytest.raises(InterpError, match="none of these features"):
        refine.run(mine, arguments(*address, "--filters", tmp_path / "f.json"))
    with pytest.raises(InterpError, match="no feature of layer 3, which the SAE reads"):
        refine.run(mine, arguments(*address, "--explanations", tmp_path / "other"))
    with pytest.raises(InterpError, match="no explanations or labels"):
        refine.run(mine, arguments(*address, "--explanations", tmp_path / "nowhere"))


def test_a_server_that_refuses_everything_leaves_no_labels(mine):
    with serve_chat(lambda *_: Says(status=401, body="who are you?")) as chat, pytest.raises(InterpError, match="who are you"):
        refine.run(mine, arguments("--server", chat.url))
    assert not (mine.folder / "labels").exists()


def test_is_a_verb_of_the_command_line(capsys):
    with pytest.raises(SystemExit):
        cli.main(["refine", "--help"])
    assert "--refiner" in capsys.readouterr().out
