import dataclasses
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import interp
from interp import InterpError, Trace
from tests import tiny
from tests.conftest import PROMPT
from tests.tracing.test_trace import same


@pytest.mark.parametrize("name", ["crop", "interleave"])
def test_save_and_load(load, picture, name, tmp_path):
    vlm = load(name)
    trace = vlm.trace(picture, PROMPT, answer="dog é 🐶")
    noted = dataclasses.replace(trace, notes=("a note",))
    noted.save(tmp_path / "run.trace")
    again = Trace.load(tmp_path / "run.trace", vlm)
    assert same(again, trace)
    for field in ("prompt", "finished", "model_name"):
        assert getattr(again, field) == getattr(trace, field)
    assert again.notes == ("a note",)
    assert again.image.tobytes() == trace.image.tobytes()
    assert [view.tobytes() for view in again.views] == [view.tobytes() for view in trace.views]
    assert torch.equal(again.grids[0].positions, trace.grids[0].positions)
    assert torch.equal(again.grids[0].boxes, trace.grids[0].boxes)
    assert again.grids[0].name == trace.grids[0].name
    assert torch.equal(interp.logit_lens(again).probs, interp.logit_lens(trace).probs)
    with pytest.raises(InterpError, match="without its model"):
        _ = Trace.load(str(tmp_path / "run.trace")).vlm


def test_files_that_are_no_trace(checkpoint, tmp_path, trace, emoji_vlm):
    (tmp_path / "text").write_text("no trace")
    for path, message in (
        (tmp_path / "text", "not a saved trace"),
        (f"{checkpoint('crop')}/model.safetensors", "not a saved trace"),  # the right kind of file with something else in it
        (tmp_path / "missing", "no trace at"),
        (tmp_path, "trace"),
    ):
        with pytest.raises(InterpError, match=message):
            Trace.load(path)
    trace.save(tmp_path / "run.trace")
    with pytest.raises(InterpError, match="was made with"):
        Trace.load(tmp_path / "run.trace", emoji_vlm)
    cut = (tmp_path / "run.trace").read_bytes()[:-100]
    (tmp_path / "cut").write_bytes(cut)
    with pytest.raises(InterpError, match="not a saved trace"):
        Trace.load(tmp_path / "cut")


def saved(trace, folder):
    """The parts of a saved trace's file: tensors and description."""
    trace.save(folder / "sound.trace")
    with safe_open(folder / "sound.trace", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["trace"])  # noqa: SIM118


def written(tensors, about, folder):
    save_file(tensors, folder / "changed.trace", metadata={"trace": about if isinstance(about, str) else json.dumps(about)})
    return folder / "changed.trace"


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("schema", "llava-microscope/trace/2", "this version reads"),
        ("schema", None, "it holds None"),
        ("prompt", None, "prompt is None; it must be text"),
        ("prompt", "\ud800", "half of a character"),
        ("answer", 3, "answer is 3"),
        ("finished", "yes", "finished is 'yes'"),
        ("model_name", ["a"], "model_name is"),
        ("notes", "a note", "notes is not a list"),
        ("notes", [1], "notes is 1"),
        ("tokens", None, "tokens is not a list"),
        ("tokens", [], "0 tokens and states of 32 positions"),
        ("tokens", [[1, "a"]], "is not a token"),
        ("tokens", [[float("nan"), "a", "prompt"]], "A token's id is nan"),
        ("tokens", [[-1, "a", "prompt"]], "A token's id is -1"),
        ("tokens", [[1, "a", "word"]], "unknown kind 'word'"),
        ("tokens", [[1, "a", {}]], "unknown kind"),
        ("grids", ["whole picture", "another"], "has no 'grid1.positions'"),
        ("grids", {}, "grids is not a list"),
        ("regions", [["all", [0, 0, 1]]], "is not a region"),
        ("regions", [["all", [0, 0, 1, float("inf")]]], "is not a region"),
        ("regions", [["all", [0, 0, 1, 1]]], "has no 'region0.positions'"),
        ("regions", 3, "regions is not a list"),
        ("weights", [1], "weights are not samples"),
        ("weights", {"embed.weight": ["float32", [1], ["a"]]}, "weights are not samples"),
    ],
)
def test_a_damaged_description_is_refused(trace, tmp_path, part, value, message):
    tensors, about = saved(trace, tmp_path)
    with pytest.raises(InterpError, match=f"changed.trace is not a saved trace, or is damaged: .*{message}"):
        Trace.load(written(tensors, about | {part: value}, tmp_path))


@pytest.mark.parametrize("about", ["", "{", "null", "[1]", "[" * 100_000, '{"schema": NaN}'])
def test_a_description_that_is_not_a_json_object_is_refused(trace, tmp_path, about):
    tensors, _ = saved(trace, tmp_path)
    with pytest.raises(InterpError, match="is not a saved trace"):
        Trace.load(written(tensors, about, tmp_path))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("states", lambda states: states[0]),
        ("states", lambda states: states.long()),
        ("states", lambda states: states[:, :5]),
        ("states", lambda states: states[:, :0]),
        ("states", lambda states: states[:1]),
        ("image", lambda png: png[: len(png) // 2]),
        ("image", lambda png: png.float()),
        ("image", lambda _: torch.zeros(10, dtype=torch.uint8)),
        ("grid0.view", lambda png: png[:100]),
        ("grid0.positions", lambda positions: positions + 1000),
        ("grid0.positions", lambda positions: positions - 1000),
        ("grid0.positions", lambda positions: positions.float()),
        ("grid0.positions", lambda positions: positions.flatten()),
        ("grid0.boxes", lambda boxes: boxes[:2]),
        ("grid0.boxes", lambda boxes: boxes * float("nan")),
        *[(name, None) for name in ("states", "image", "grid0.positions", "grid0.boxes", "grid0.view")],
    ],
)
def test_damaged_tensors_are_refused(trace, tmp_path, name, change):
    tensors, about = saved(trace, tmp_path)
    found = tensors.pop(name)
    if change:
        tensors[name] = change(found).contiguous().clone()
    with pytest.raises(InterpError, match="is not a saved trace, or is damaged"):
        Trace.load(written(tensors, about, tmp_path))


def test_a_file_cut_anywhere_or_with_a_changed_byte_is_a_trace_or_an_error(trace, tmp_path):
    trace.save(tmp_path / "sound.trace")
    data = (tmp_path / "sound.trace").read_bytes()
    length = 8 + int.from_bytes(data[:8], "little")
    samples = [data[:cut] for cut in (0, 4, 8, 20, length // 2, length, length + 9, len(data) - 1)]
    samples += [(2**60).to_bytes(8, "little") + data[8:], data.replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1)]
    for at in range(8, length, length // 100):
        samples.append(data[:at] + bytes([data[at] ^ 0x15]) + data[at + 1 :])
    for sample in samples:
        (tmp_path / "spoiled.trace").write_bytes(sample)
        try:
            loaded = Trace.load(tmp_path / "spoiled.trace")
        except InterpError:
            continue
        assert len(loaded.tokens) == loaded.length + 1


@pytest.mark.parametrize("path", [None, 3, "", "a\0b", b"bytes", ["a"], "\ud800"])
def test_what_is_not_a_path_is_refused(trace, path):
    for call in (trace.save, Trace.load):
        with pytest.raises(InterpError, match="path"):
            call(path)


def test_a_trace_that_cannot_be_written(trace, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "missing" / "run.trace", tmp_path / "file" / "run.trace", tmp_path / ("x" * 300)):
        with pytest.raises(InterpError, match="cannot be written to"):
            trace.save(path)


@pytest.mark.parametrize("wrong", ["emoji-llava", 3, object()])
def test_what_is_not_a_model_is_refused(trace, tmp_path, wrong):
    trace.save(tmp_path / "run.trace")
    with pytest.raises(InterpError, match=r"vlm is .*it must be a Vlm"):
        Trace.load(tmp_path / "run.trace", wrong)


def test_another_model_of_the_same_size_is_refused(trace, vlm, tmp_path):
    trace.save(tmp_path / "run.trace")
    other = interp.Vlm(*tiny.build("crop", seed=1))
    assert (other.n_layers, other.d_model) == (vlm.n_layers, vlm.d_model)
    with pytest.raises(
        InterpError, match=r"was made with .* weights of .* differ from its own .*Load it with its own model, or without one"
    ):
        Trace.load(tmp_path / "run.trace", other)
    again = Trace.load(tmp_path / "run.trace")  # and a trace that was loaded without its model still knows it
    again.save(tmp_path / "again.trace")
    with pytest.raises(InterpError, match="weights of"):
        Trace.load(tmp_path / "again.trace", other)
    assert Trace.load(tmp_path / "again.trace", vlm).vlm is vlm


def test_a_trace_of_an_earlier_version_has_no_fingerprint_and_loads(trace, vlm, tmp_path):
    tensors, about = saved(trace, tmp_path)
    del about["weights"], about["regions"]
    assert same(Trace.load(written(tensors, about, tmp_path), vlm), trace)
