"""What an SAE is trained on: exact proportions, the right states, passages of files of any size, and a stream shuffled in bounded memory."""

import argparse
import itertools
import random
from fractions import Fraction

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from safetensors.torch import save_file

from interp import InterpError
from interp.concepts.samples import Sample
from interp.study.training.balance import counts, share
from interp.study.training.collect import CONVERSATION, IMAGE, PASSAGE, Mixture, part
from interp.study.training.passages import Passages
from interp.study.training.stream import Stream
from interp.tracing.select import sinks
from tests import tiny
from tests.conftest import PROMPT

HALF, NONE = Fraction(1, 2), Fraction(0)


# Proportions


@settings(deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.integers(0, 500), min_size=3, max_size=3), st.fractions(0, 1, max_denominator=12), st.fractions(0, 1, max_denominator=12)
)
def test_proportions_are_exact_and_nothing_more_would_fit(there, image, text):
    shares = (image, (1 - image) * (1 - text), (1 - image) * text)
    chosen = counts(there, shares)
    total = sum(chosen)
    for count, each, available in zip(chosen, shares, there, strict=True):
        assert count == total * each
        assert count <= available
    step = next((n for n in range(1, 10**4) if all((n * each).denominator == 1 for each in shares)), 0)  # the smallest exact mixture
    assert any(count + step * each > available for count, each, available in zip(chosen, shares, there, strict=True) if each)


def test_some_proportions_by_hand():
    assert counts([100, 7, None], (HALF, HALF, NONE)) == [7, 7, 0]
    assert counts([100, 7, None], (Fraction(2, 3), Fraction(1, 6), Fraction(1, 6))) == [28, 7, 7]
    assert counts([100, 7, None], (Fraction(1), NONE, NONE)) == [100, 0, 0]
    assert counts([1, 100, None], (Fraction(2, 3), Fraction(1, 3), NONE)) == [0, 0, 0]


def test_a_share_is_a_number_or_a_fraction():
    assert (share("0.5"), share("2/3"), share("1"), share("0.125")) == (HALF, Fraction(2, 3), 1, Fraction(1, 8))
    for wrong in ("1.5", "-0.1", "a half", "1/0", "0.33333", "nan", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="is no share"):
            share(wrong)


# States


def mixture(**changes):
    plain = {
        "layer": 1,
        "image_share": HALF,
        "passages": None,
        "text_share": HALF,
        "per_picture": None,
        "answers": 0,
        "held_out": 100,
        "seed": 0,
    }
    return Mixture(**plain | changes)


@pytest.fixture(scope="module")
def samples():
    """Of two sizes, which cannot share a pass in some families."""
    return [Sample(str(number), tiny.noise(120, 90 + number, number), PROMPT) for number in range(5)]


@pytest.fixture(scope="module")
def rows(vlm, samples):
    """(picture, prompt and answer): the states of each sample's trace at its tokens, sinks left out."""

    def of(answers):
        found = ([], [])
        for number, sample in enumerate(samples):
            trace = vlm.trace(sample.picture, sample.prompt, max_new_tokens=max(1, answers))
            states = trace.residual(1)
            left = sinks(trace, states)
            for out, kinds in zip(found, (("image",), ("prompt", "answer") if answers else ("prompt",)), strict=True):
                begin = 4 if number else 0  # the words before the picture are the same in all of them
                out.append(states[[i for i in trace.positions(*kinds) if i not in left and i >= begin]])
        return [torch.cat(each) for each in found]

    return of


def each_is_one_of(some, every):
    """Every row of `some` is a row of `every`, and none is used twice."""
    distances = torch.cdist(some.double(), every.double())
    nearest = distances.argmin(1)
    assert distances.amin(1).max() < 0.05  # 16 bits
    assert len(nearest.unique()) == len(some)


@pytest.mark.parametrize("answers", [0, 4])
@pytest.mark.parametrize("image_share", [HALF, Fraction(2, 3), Fraction(1, 5), Fraction(1), NONE], ids=str)
def test_the_rows_are_states_of_the_right_tokens_in_exact_proportions(vlm, samples, rows, answers, image_share):
    made = part(vlm, mixture(image_share=image_share, answers=answers), samples, 0)
    image, text = rows(answers)
    expected = counts([len(image), len(text), None], (image_share, 1 - image_share, NONE))
    assert torch.bincount(made["kind"], minlength=3).tolist() == expected
    assert made["states"].dtype == torch.float16
    for kind, every in ((IMAGE, image), (CONVERSATION, text)):
        here = made["states"][made["kind"] == kind]
        if len(here):
            each_is_one_of(here, every)
    again = part(vlm, mixture(image_share=image_share, answers=answers), samples, 0)
    assert all(torch.equal(value, again[name]) for name, value in made.items())
    other = part(vlm, mixture(image_share=image_share, answers=answers, seed=1), samples, 0)
    assert image_share in {0, 1} or not torch.equal(other["states"], made["states"])


def test_held_out_samples_are_not_read(vlm, samples):
    broken = [*samples[:2], Sample("held out", "nowhere.png", PROMPT), *samples[3:]]
    made = part(vlm, mixture(held_out=3), broken, 0)
    assert len(made["states"])
    with pytest.raises(InterpError, match="Sample 'held out'"):
        part(vlm, mixture(held_out=3), broken, 1)
    assert len(part(vlm, mixture(held_out=3), broken[2:3], 2)["states"]) == 0


def test_a_picture_gives_no_more_than_asked(vlm, samples):
    made = part(vlm, mixture(per_picture=3, image_share=Fraction(1)), samples, 0)
    assert len(made["states"]) == 3 * len(samples)


def test_a_text_beside_has_its_share_of_the_rest(vlm, samples, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("a dog and a cat\n\ntwo red boats on a blue sun\n")
    shares = mixture(image_share=Fraction(1, 4), text_share=Fraction(2, 3), passages=Passages.of(file))
    made = part(vlm, shares, samples, 0)
    found = torch.bincount(made["kind"], minlength=3)
    assert found.tolist() == [found[1], found[1], 2 * found[1]]
    assert found[PASSAGE] > 0
    row = vlm.tokenizer("a dog and a cat").input_ids
    from interp.lens.text_states import text_states

    states = text_states(vlm, [row], [1])[1][0].cpu()
    here = made["states"][made["kind"] == PASSAGE].float()
    distances = torch.cdist(here.double(), states.double()).amin(0)
    assert distances[0] > 0.1  # the first position is a sink
    assert distances[2:].max() < 0.05


def test_a_mixture_that_cannot_be_met_is_refused(vlm, samples):
    with pytest.raises(InterpError, match=r"Samples 7 to 7 have 16 tokens of pictures and \d+ of prompts and answers, too few"):
        part(vlm, mixture(image_share=Fraction(1, 1000)), samples[:1], 7)


# Passages


def test_every_line_of_a_text_is_drawn(tmp_path):
    (tmp_path / "a.txt").write_bytes("first\n\n  \nzweiter ü\r\nlast without an end".encode())
    passages, rng = Passages.of(tmp_path / "a.txt"), random.Random(0)
    assert {passages.draw(rng) for _ in range(300)} == {"first", "zweiter ü", "last without an end"}
    one, two = ([passages.draw(random.Random(seed)) for _ in range(1)] for seed in (3, 3))
    assert one == two


def test_parquet_is_drawn_by_row(tmp_path):
    table = pa.table({"text": [f"line {i}" for i in range(7)] + [None], "other": list(range(8))})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    passages, rng = Passages.of(tmp_path), random.Random(0)
    assert {passages.draw(rng) for _ in range(300)} == {f"line {i}" for i in range(7)}
    assert passages.weights == (8,)


def test_text_that_is_none_is_refused(tmp_path):
    with pytest.raises(InterpError, match="which is no file"):
        Passages.of(tmp_path / "nowhere.txt")
    with pytest.raises(InterpError, match=r"no folder of \.txt"):
        Passages.of(tmp_path)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InterpError, match="which is empty"):
        Passages.of(tmp_path)
    (tmp_path / "blank.txt").write_text("\n" * 50)
    with pytest.raises(InterpError, match="hardly any lines"):
        Passages.of(tmp_path / "blank.txt").draw(random.Random(0))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n" * 5)
    with pytest.raises(InterpError, match="must be text in UTF-8"):
        Passages.of(tmp_path / "latin.txt").draw(random.Random(0))
    parquet.write_table(pa.table({"words": ["a"]}), tmp_path / "b.parquet")
    with pytest.raises(InterpError, match="has no column 'text'; its columns are words"):
        Passages.of(tmp_path / "b.parquet")
    with pytest.raises(InterpError, match="both text and parquet"):
        Passages.of(tmp_path)


# The stream


@pytest.fixture
def parts(tmp_path):
    """Files whose rows are numbered: [N, 2] holds (file, row)."""
    files = []
    for file, rows in enumerate([40, 0, 25, 60, 33, 12]):
        states = torch.stack([torch.full((rows,), float(file)), torch.arange(rows).float()], 1).half()
        files.append(tmp_path / f"{file}.safetensors")
        save_file({"states": states, "kind": torch.zeros(rows, dtype=torch.uint8)}, files[-1])
    return files


def taken(stream, count, start=0):
    return [batch.tolist() for batch in itertools.islice(stream.batches(start), count)]


def test_a_pass_holds_every_row_once_but_for_a_rest(parts):
    stream = Stream.of(parts, 10, 1 << 20, 0)
    rows = [tuple(row) for batch in taken(stream, 17) for row in batch]
    assert len(set(rows)) == 170
    assert {int(file) for file, _ in rows[:20]} == {0, 2, 3, 4, 5}  # shuffled across files
    nxt = [tuple(row) for batch in taken(stream, 17, 17) for row in batch]
    assert len(set(nxt)) == 170
    assert rows != nxt


def test_memory_bounds_what_is_shuffled_together(parts, monkeypatch):
    memory = 4 * 70  # bytes: 70 rows of two numbers in 16 bits
    stream = Stream.of(parts, 10, memory, 0)
    groups = stream._groups(0)
    assert sorted(itertools.chain(*groups)) == list(range(6))
    assert len(groups) > 1
    assert all(10 <= sum(stream.rows[file] for file in group) <= 70 for group in groups)
    assert groups != stream._groups(1)
    whole = [tuple(row) for batch in taken(stream, sum(sum(stream.rows[f] for f in group) // 10 for group in groups)) for row in batch]
    assert len(set(whole)) == len(whole)
    first = sum(stream.rows[file] for file in groups[0]) // 10
    assert {int(file) for file, _ in whole[: 10 * first]} == {file for file in groups[0] if stream.rows[file]}


@pytest.mark.parametrize("memory", [4 * 70, 1 << 20])
def test_a_stream_goes_on_anywhere(parts, memory):
    stream = Stream.of(parts, 10, memory, 3)
    whole = taken(stream, 60)
    for start in (0, 1, 16, 17, 29, 40):
        assert taken(stream, 60 - start, start) == whole[start:]
    assert taken(Stream.of(parts, 10, memory, 4), 60) != whole


def test_a_batch_must_fit(parts):
    with pytest.raises(InterpError, match="A batch has 171 states; there are 170"):
        Stream.of(parts, 171, 1 << 20, 0)
    with pytest.raises(InterpError, match="and 25 fit into --memory"):
        Stream.of(parts, 30, 100, 0)
