"""Collecting states: what is kept equals what a trace of the same sample holds, however samples arrive, are batched, or are interrupted."""

import csv
import json
import threading

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

import interp
from interp import InterpError
from interp.concepts import state_files
from interp.concepts.collect import CHUNK
from interp.concepts.wanted import find_word
from interp.tracing.select import sinks
from tests import families, tiny
from tests.conftest import PROMPT

NEW = 5
PICTURES = [tiny.noise(60 + 10 * (i % 3), 60, seed=i) for i in range(7)]
PAIRS = [(picture, PROMPT if i % 2 else "Describe a dog.") for i, picture in enumerate(PICTURES)]
LAYERS = [0, 2]


@pytest.fixture(scope="module")
def traces(vlm):
    return [vlm.trace(*pair, max_new_tokens=NEW) for pair in PAIRS]


@pytest.fixture(scope="module")
def said(traces):
    """A word that several answers have, and not as their first token in all of them."""
    counts = {}
    for trace in traces:
        for word in {token.text.strip() for token in trace.tokens[trace.answer_start :] if token.kind == "answer"}:
            counts[word] = counts.get(word, 0) + 1
    return max(counts, key=counts.get)


def naive(trace, where, layer):
    """The rows to keep of one trace, the long way."""
    states, start = trace.residual(layer), trace.answer_start
    end = len(trace.tokens) - 1 if trace.finished else len(trace.tokens)
    if where in {"last", "end"}:
        return states[start - 1 if where == "last" else -1][None]
    if where == "answer":
        return states[start - 1 : end - 1].float().mean(0, keepdim=True)
    if where == "image":
        left_out = sinks(trace, states)
        return states[[i for i in trace.positions("image") if i not in left_out]].mean(0, keepdim=True)
    if where == "patches":
        return states[trace.grids[0].positions.flatten()]
    for i, token in enumerate(trace.tokens[start:end]):
        if token.text.strip().lower() == where:
            return states[start + i - 1][None]
    return states[:0]


@pytest.mark.parametrize("where", ["word", "answer", "last", "end", "image", "patches"])
@pytest.mark.parametrize("batch", [1, 3, None])
def test_what_is_kept_is_what_single_traces_hold(vlm, traces, said, where, batch):
    asked = said if where == "word" else where
    found = interp.collect(vlm, PAIRS, LAYERS, asked, max_new_tokens=NEW, batch=batch)
    assert [sample.answer for sample in found.samples] == [trace.answer for trace in traces]
    assert [sample.prompt for sample in found.samples] == [prompt for _, prompt in PAIRS]
    for layer in LAYERS:
        expected = [naive(trace, asked.lower(), layer) for trace in traces]
        torch.testing.assert_close(found.residual(layer), torch.cat(expected).float(), rtol=1e-4, atol=1e-4)
        assert found.sample_of.tolist() == [i for i, rows in enumerate(expected) for _ in rows]
    if where == "patches":
        assert found.positions[:16].tolist() == traces[0].grids[0].positions.flatten().tolist()
    if where == "word":
        assert [sample.word.lower() for sample in found.samples] == [said.lower() if len(rows) else "" for rows in expected]


def test_the_word_is_found_in_every_spelling_and_only_whole():
    assert find_word([" a", " Dog", " and"], ["dog"]) == (1, "Dog")
    assert find_word(["dog", "gy"], ["dog"]) is None
    assert find_word([" hot", " do", "g", "."], ["dog"]) == (1, "do" + "g")
    assert find_word([" hot", " do", "g", "."], ["hot dog"]) == (0, "hot dog")
    assert find_word([" a", " snow", " no"], ["yes", "no"]) == (2, "no")
    assert find_word([" blue", " red"], ["red", "blue"]) == (0, "blue")
    assert find_word([" 3", "."], ["3"]) == (0, "3")
    assert find_word([], ["dog"]) is None


def test_forced_answers_are_read_as_a_trace_reads_them(vlm):
    forced = ["a dog", "cat and dog with", "two"]
    samples = [(PICTURES[0], PROMPT, answer) for answer in forced]
    for where in ("answer", "end", "last", "dog"):
        found = interp.collect(vlm, samples, 1, where)
        expected = [naive(vlm.trace(PICTURES[0], PROMPT, answer=answer), where, 1) for answer in forced]
        torch.testing.assert_close(found.residual(), torch.cat(expected).float(), rtol=1e-4, atol=1e-4)
    assert found.ids == ("0", "1")


@pytest.mark.parametrize("name", list(families.FAMILIES))
def test_a_batch_gives_what_single_runs_give_in_every_family(name):
    """Pictures of two shapes, and answers read by a forced pass and by generation."""
    model = families.vlm(name)
    pictures = [tiny.noise(*size, seed=i) for i, size in enumerate([(90, 60), (60, 90), (90, 60), (60, 90)])]
    samples = [(picture, PROMPT) for picture in pictures[:2]] + [(pictures[2], PROMPT, "a dog"), (pictures[3], PROMPT, "a cat")]
    for where in ("answer", "image"):
        one, many = (interp.collect(model, samples, [0, 1], where, max_new_tokens=3, batch=batch) for batch in (1, 4))
        assert [sample.answer for sample in one.samples] == [sample.answer for sample in many.samples]
        for layer in (0, 1):
            torch.testing.assert_close(many.residual(layer), one.residual(layer), rtol=1e-3, atol=1e-3)


def test_a_folder_gives_what_memory_gives_and_is_read_again(vlm, tmp_path, said):
    here = interp.collect(vlm, PAIRS, LAYERS, said, max_new_tokens=NEW)
    filed = interp.collect(vlm, PAIRS, LAYERS, said, max_new_tokens=NEW, folder=tmp_path / "states")
    here.save(tmp_path / "saved")
    for other in (filed, interp.ConceptStates.load(tmp_path / "states"), interp.ConceptStates.load(tmp_path / "saved", vlm)):
        assert other.samples == here.samples
        assert torch.equal(other.residual(2), here.residual(2))
        assert torch.equal(other.sample_of, here.sample_of)
        assert torch.equal(other.positions, here.positions)
        assert (other.where, other.layers, len(other)) == (here.where, here.layers, len(here))
        assert np.array_equal(np.asarray(other.picture(3)), np.asarray(here.picture(3)))
    assert not list(tmp_path.rglob("*.tmp"))


def test_an_interrupted_collection_goes_on(vlm, tmp_path, monkeypatch):
    monkeypatch.setattr("interp.concepts.collect.CHUNK", 2)
    whole = interp.collect(vlm, PAIRS, 1, "last", max_new_tokens=2)
    stop, steps = threading.Event(), []

    def half(done, of):
        steps.append((done, of))
        if done >= 4:
            stop.set()

    with pytest.raises(InterpError, match="stopped"):
        interp.collect(vlm, PAIRS, 1, "last", max_new_tokens=2, folder=tmp_path, on_progress=half, stop=stop)
    assert steps[-1] == (4, 7)
    with pytest.raises(InterpError, match="not complete"):
        interp.ConceptStates.load(tmp_path)
    written = {file: file.stat().st_mtime_ns for file in state_files.parts(tmp_path)}
    assert len(written) == 2
    found = interp.collect(vlm, PAIRS, 1, "last", max_new_tokens=2, folder=tmp_path)
    assert all(file.stat().st_mtime_ns == then for file, then in written.items())
    torch.testing.assert_close(found.residual(), whole.residual())
    before = found.residual()
    more = interp.collect(vlm, [*PAIRS, PAIRS[0]], 1, "last", max_new_tokens=2, folder=tmp_path)
    torch.testing.assert_close(more.residual()[:7], before)
    assert len(more) == 8
    with pytest.raises(InterpError, match="changed since"):
        found.residual()
    with pytest.raises(InterpError, match="other samples"):
        interp.collect(vlm, [("/other.png", PROMPT)], 1, "last", max_new_tokens=2, folder=tmp_path)
    with pytest.raises(InterpError, match="another model, layer"):
        interp.collect(vlm, PAIRS, 2, "last", max_new_tokens=2, folder=tmp_path)


@pytest.fixture
def folder(tmp_path):
    for i, picture in enumerate(PICTURES[:3]):
        (tmp_path / "in").mkdir(exist_ok=True)
        picture.save(tmp_path / "in" / f"{i}.png")
    return tmp_path


def test_samples_come_from_folders_tables_parquet_and_data_sets(vlm, folder, tmp_path):
    asked = ["Describe a dog.", PROMPT, "Describe a red house."]
    expected = interp.collect(vlm, list(zip(PICTURES, asked, strict=False)), 1, "last", max_new_tokens=1)
    plain = interp.collect(vlm, folder, 1, "last", prompt=PROMPT, max_new_tokens=1)
    assert plain.ids == ("in/0.png", "in/1.png", "in/2.png")
    torch.testing.assert_close(plain.residual()[1], expected.residual()[1])
    rows = [{"file_name": f"in/{i}.png", "prompt": prompt} for i, prompt in enumerate(asked)]
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.DictWriter(file, ["file_name", "prompt"]).writeheader()
        csv.DictWriter(file, ["file_name", "prompt"]).writerows(rows)
    sources = {"metadata.csv": folder}
    jsonl = tmp_path / "jsonl"
    (jsonl / "in").mkdir(parents=True)
    for i, picture in enumerate(PICTURES[:3]):
        picture.save(jsonl / "in" / f"{i}.png")
    (jsonl / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = datasets.Dataset.from_dict({"picture": [str(jsonl / f"in/{i}.png") for i in range(3)], "question": asked}).cast_column(
        "picture", datasets.Image()
    )
    stored = [{"bytes": (jsonl / f"in/{i}.png").read_bytes(), "path": None} for i in range(3)]
    (tmp_path / "parquet").mkdir()
    parquet.write_table(pa.table({"image": stored, "question": asked}), tmp_path / "parquet" / "train-0.parquet")
    made.save_to_disk(str(tmp_path / "arrow"))
    sources |= {"metadata.jsonl": jsonl, "data set": made, "parquet": tmp_path / "parquet", "saved": tmp_path / "arrow"}
    for name, source in sources.items():
        found = interp.collect(vlm, source, 1, "last", max_new_tokens=1)
        torch.testing.assert_close(found.residual(), expected.residual(), msg=name)
        assert [sample.prompt for sample in found.samples] == asked, name


@pytest.mark.parametrize(
    ("samples", "fields", "message"),
    [
        ("/nowhere", {}, "there is no such folder"),
        ([], {}, "samples is"),
        ([3], {}, "One of samples is 3"),
        ([("/nowhere.png", PROMPT)], {}, "Sample '/nowhere.png' of samples: There is no picture"),
        ([(PICTURES[0], " ")], {}, "prompt is empty"),
        (PAIRS, {"layer": 9}, "Layer 9 does not exist"),
        (PAIRS, {"layer": [0, 9]}, "Layer 9 does not exist"),
        (PAIRS, {"where": ""}, "where is ''"),
        (PAIRS, {"where": {"box": 3}}, "box is 3"),
        (PAIRS, {"max_new_tokens": 0}, "max_new_tokens is 0"),
        (PAIRS, {"batch": 0}, "batch is 0"),
    ],
)
def test_what_is_refused(vlm, samples, fields, message):
    with pytest.raises(InterpError, match=message):
        interp.collect(vlm, samples, **{"layer": 1, "where": "last", "max_new_tokens": 1} | fields)


def test_tables_do_not_lead_out_of_their_folder(vlm, folder):
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "../../etc/passwd"}))
    with pytest.raises(InterpError, match="outside of its folder"):
        interp.collect(vlm, folder, 1)
    (folder / "metadata.jsonl").write_text(json.dumps({"name": "x"}))
    with pytest.raises(InterpError, match="file_name"):
        interp.collect(vlm, folder, 1)


def test_damaged_states_are_refused(vlm, tmp_path):
    found = interp.collect(vlm, PAIRS[:2], 1, "last", max_new_tokens=1, folder=tmp_path)
    part = state_files.part_file(tmp_path, 0)
    whole = part.read_bytes()
    part.write_bytes(whole[:40])
    with pytest.raises(InterpError, match="damaged"):
        interp.ConceptStates.load(tmp_path)
    part.write_bytes(whole)
    other = interp.Vlm(*tiny.build("crop", seed=3))
    with pytest.raises(InterpError, match="differ from those"):
        interp.ConceptStates.load(tmp_path, other)
    (tmp_path / "states.json").write_text("{}")
    with pytest.raises(InterpError, match="damaged"):
        interp.ConceptStates.load(tmp_path)
    with pytest.raises(InterpError, match="no states were collected"):
        interp.ConceptStates.load(tmp_path / "other")
    assert len(found) == 2


def test_rows_can_be_taken(vlm):
    found = interp.collect(vlm, PAIRS[:4], LAYERS, "patches", max_new_tokens=1)
    some = found.take([40, 3, 40, 20])
    assert torch.equal(some.residual(2), found.residual(2)[[3, 20, 40]])
    assert [some.samples[i].id for i in some.sample_of] == ["0", "1", "2"]
    assert some.picture(2).size == found.picture(2).size


def test_a_part_holds_a_bounded_number_of_samples():
    assert CHUNK <= 64


def xl_features(**changes):
    """A file as the tool writes it: lists of one-element lists, and a mask of one-element tensors."""
    module = "language_model.model.layers.1"
    make = torch.Generator().manual_seed(0)
    return {
        "hidden_states": [{module: torch.randn(1, 1, 64, generator=make).half()} for _ in range(3)],
        "image": [["a.jpg"], ["b.jpg"], ["b.jpg"]],
        "model_predictions": [["a dog"], ["two cats"], ["a dog"]],
        "token_of_interest_mask": [torch.tensor([True]), torch.tensor([False]), torch.tensor([True])],
    } | changes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image": ["a.jpg", "b.jpg", "b.jpg"], "token_of_interest_mask": torch.tensor([True, False, True])},
        {"token_of_interest_mask": [[True], [False], [True]]},
    ],
    ids=["as written", "as documented", "lists"],
)
def test_features_of_xl_vlms_are_read_in_both_forms(tmp_path, vlm, changes):
    about = xl_features(**changes)
    torch.save(about, tmp_path / "f.pth")
    found = interp.read_xl_features(tmp_path / "f.pth", vlm)
    rows = [row["language_model.model.layers.1"][0, 0].float() for row in about["hidden_states"]]
    assert torch.equal(found.residual(), torch.stack([rows[0], rows[2]]))
    assert found.ids == ("a.jpg", "b.jpg#1")
    assert (found.layers, found.normed) == ((1,), False)
    assert [sample.answer for sample in found.samples] == ["a dog", "two cats", "a dog"]


def test_features_behind_the_norm_are_marked_and_positions_are_pooled(tmp_path, vlm):
    states = torch.randn(1, 3, 64)
    torch.save({"hidden_states": [{"language_model.model.norm": states}]}, tmp_path / "f.pth")
    found = interp.read_xl_features(tmp_path / "f.pth", vlm)
    assert (found.layers, found.normed) == ((2,), True)
    torch.testing.assert_close(found.residual()[0], states[0].mean(0))
    torch.testing.assert_close(interp.read_xl_features(tmp_path / "f.pth", vlm, position=2).residual()[0], states[0, 2])
    with pytest.raises(InterpError, match="pass vlm="):
        interp.read_xl_features(tmp_path / "f.pth")


class Odd:
    """Anything that only a pickle can hold."""


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (xl_features(analysis_model=Odd()), "pickled Python objects.*analysis_model"),
        ({"concepts": torch.zeros(2, 3)}, "no features of xl-vlms"),
        (xl_features(hidden_states=[{"vision.tower": torch.zeros(1, 1, 4)}]), "neither a decoder layer nor a final norm"),
        (xl_features(token_of_interest_mask=[True]), "mask .* has 1 entries"),
        ([1], "hold a dictionary"),
    ],
)
def test_other_files_are_refused(tmp_path, about, message):
    torch.save(about, tmp_path / "f.pth")
    with pytest.raises(InterpError, match=message):
        interp.read_xl_features(tmp_path / "f.pth")


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "f.pth").write_bytes(b"no zip")
    with pytest.raises(InterpError, match=r"damaged|not read"):
        interp.read_xl_features(tmp_path / "f.pth")
    with pytest.raises(InterpError, match="no file at path"):
        interp.read_xl_features(tmp_path / "g.pth")
