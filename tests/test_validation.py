import itertools
import math
import pathlib
import re

import numpy as np
import pytest
import torch

from interp import validation
from interp.errors import InterpError

LONE = "dog\ud800"


class Rude:
    """Nothing that is asked of it works."""

    __hash__ = None

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __eq__(self, other):
        raise RuntimeError

    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "value",
    [5, 5.0, np.int64(5), np.uint8(5), np.float32(5), np.array(5), torch.tensor(5), torch.tensor(5.0), torch.tensor(5.0).bfloat16()],
)
def test_whole_numbers_of_python_numpy_and_torch_are_ints(value):
    assert validation.whole_number("k", value, 1, 5) == 5
    assert type(validation.whole_number("k", value, 1, 5)) is int
    assert validation.index("Layer", value, 0, 5, "there are 6") == 5
    assert validation.finite_number("k", value) == 5


@pytest.mark.parametrize(
    "value",
    [
        *(True, False, np.bool_(1), np.array(True), torch.tensor(True)),
        *(None, "5", b"5", "", [5], (5,), {5}, {}, object(), Rude(), int, 5j, np.complex64(5), torch.tensor(5j)),
        *(np.array([5]), torch.tensor([5]), torch.tensor([]), torch.empty((), device="meta"), np.datetime64("2020-01-01")),
        *(math.nan, math.inf, -math.inf, np.float32("nan"), torch.tensor(math.inf)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_nothing_else_is_a_number(value):
    for check, form in (
        (validation.whole_number, "it must be a whole number from 1 to 50"),
        (validation.finite_number, "it must be a finite number"),
    ):
        with pytest.raises(InterpError, match=f"^top_k is .*; {form}") as caught:
            check("top_k", value, 1, 50)
        assert len(str(caught.value)) < 200
        assert "\n" not in str(caught.value)
    with pytest.raises(InterpError, match=r"^Layer .* does not exist: there are 51\.$"):
        validation.index("Layer", value, 0, 50, "there are 51")


@pytest.mark.parametrize("value", [0, 51, -1, 2.5, np.float64(50.5), 10**40, -(10**40), 10**5000, torch.tensor(2**62)], ids=range(9))
def test_whole_numbers_out_of_range_are_refused_with_the_limit(value):
    with pytest.raises(InterpError, match=r"^top_k is \S.{0,60}; it must be a whole number from 1 to 50, the number of words\.$"):
        validation.whole_number("top_k", value, 1, 50, hint="the number of words")


def test_a_long_number_is_shown_by_its_first_digits():
    with pytest.raises(InterpError, match=r"^seed is 1234567890… \(40 digits\); it must be a whole number from 0 to 4294967295\.$"):
        validation.whole_number("seed", int("1234567890" * 4), 0, 2**32 - 1)


def test_limits_may_be_open():
    assert validation.whole_number("k", 2**63 - 1, 1) == 2**63 - 1
    with pytest.raises(InterpError, match=r"^k is 1000000000… \(41 digits\); it must be a whole number from 1 to 9223372036854775807\.$"):
        validation.whole_number("k", 10**40, 1)
    assert validation.finite_number("t", -1e300) == -1e300
    assert type(validation.finite_number("t", 10**40)) is float  # torch divides by no integer of this size
    assert type(validation.finite_number("t", 3)) is int
    with pytest.raises(InterpError, match=r"^k is 0; it must be a whole number of at least 1\.$"):
        validation.whole_number("k", 0, 1)
    with pytest.raises(InterpError, match=r"^t is -0.5; it must be a finite number of at least 0\.$"):
        validation.finite_number("t", -0.5, 0)
    with pytest.raises(InterpError, match=r"^t is 3; it must be a finite number of at most 2\.$"):
        validation.finite_number("t", 3, high=2)
    with pytest.raises(InterpError, match=r"^t is 3; it must be a finite number from 0 to 2\.$"):
        validation.finite_number("t", 3, 0, 2)
    with pytest.raises(InterpError, match=r"^t is 1000000000… \(310 digits\); it must be a finite number\.$"):
        validation.finite_number("t", 10**309)


def test_a_choice_has_the_type_of_what_it_equals():
    assert validation.one_of("rank_by", "max", ("mean", "max")) == "max"
    for wrong in ("Max", "", None, ["max"], Rude(), torch.tensor([1, 2]), np.array(["max", "max"]), 1.0, True):
        with pytest.raises(InterpError, match=r"^rank_by is .*; it must be one of mean, max, 1\.$"):
            validation.one_of("rank_by", wrong, ("mean", "max", 1))


def test_text_can_be_written():
    assert validation.text("prompt", "a 🐶", 3) == "a 🐶"
    with pytest.raises(
        InterpError, match=r"^prompt holds half of a character \('\\ud800' at place 3\), which cannot be written as UTF-8"
    ) as caught:
        validation.text("prompt", LONE)
    str(caught.value).encode()
    with pytest.raises(InterpError, match=r"^word has 81 characters; it must have at most 80\.$"):
        validation.text("word", 81 * "x", 80)
    for wrong in (None, 3, b"dog", ["dog"], Rude()):
        with pytest.raises(InterpError, match=r"^word is .*; it must be text\.$"):
            validation.text("word", wrong)


def test_sequences_hold_something_and_end():
    for good in ([1], (1,), range(3), np.array([1]), torch.tensor([1])):
        assert validation.sequence("layers", good, "layers") is good
    assert validation.sequence("words", [], "words", empty=True) == []
    for wrong in (
        None,
        1,
        "dog",
        b"dog",
        {1: 2},
        [],
        (),
        itertools.count(),
        np.array(1),
        torch.tensor(1),
        torch.tensor([]),
        iter([1]),
        Rude(),
    ):
        with pytest.raises(InterpError, match=r"^layers is .*; it must be a list of layers\.$"):
            validation.sequence("layers", wrong, "layers")


def test_lists_of_whole_numbers_of_any_kind():
    for good in ([1, 2.0], (1, np.int64(2)), range(1, 3), np.array([1, 2]), torch.tensor([1.0, 2.0])):
        assert validation.whole_numbers("box", good) == [1, 2]
    for wrong in ([1, "2"], [True, 2], [[1], 2], np.array([[1, 2]]), [1, 2.5], [None]):
        with pytest.raises(InterpError, match=r"^box is .*; every entry must be a whole number\.$"):
            validation.whole_numbers("box", wrong)
    with pytest.raises(InterpError, match=r"^box has 1000000000000 entries; it must have at most 1000000\.$"):
        validation.whole_numbers("box", range(10**12))


def test_objects_functions_flags_and_paths():
    assert validation.instance("sae", 3, int, "an SAE") == 3
    with pytest.raises(InterpError, match=r"^trace is a Rude; it must be a Trace, as Vlm.trace returns\.$"):
        validation.instance("trace", Rude(), dict, "a Trace, as Vlm.trace returns")
    validation.function("on_text", None)
    validation.function("on_text", print)
    with pytest.raises(InterpError, match=r"^on_text is 3; it must be a function, or None\.$"):
        validation.function("on_text", 3)
    assert validation.flag("first_piece", False) is False
    for wrong in (1, None, "False", np.bool_(1), Rude()):
        with pytest.raises(InterpError, match=r"^first_piece is .*; it must be True or False\.$"):
            validation.flag("first_piece", wrong)
    assert validation.file_path("path", "a/b") == validation.file_path("path", pathlib.Path("a/b")) == pathlib.Path("a/b")
    for wrong in (None, "", 3, b"a", "a\0b", LONE, Rude()):
        with pytest.raises(InterpError, match=r"^path "):
            validation.file_path("path", wrong)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("x" * 10_000, "'x+\\.\\.\\.x+'"),
        ([1] * 10_000, r"\[1, 1, 1, 1, 1, 1, 1, 1, \.\.\.\]"),
        ([[[[[[1]]]]]], r"\[\[\[\[\.\.\.\]\]\]\]"),
        ([80 * "x"] * 8, r"\['x{37}.+…"),
        (np.zeros((1000, 1000)), r"a ndarray of shape \[1000, 1000\]"),
        (torch.zeros(2, 3), r"a Tensor of shape \[2, 3\]"),
        ([Rude(), print], r"\[a Rude, a builtin_function_or_method\]"),
        (InterpError("x"), "an InterpError"),
        (10**5000, r"… \(\d+ digits\)"),
        (LONE, r"'dog\\ud800'"),
    ],
    ids=range(10),
)
def test_any_value_is_shown_on_one_short_line(value, form):
    assert re.fullmatch(form, validation.shown(value))
    assert len(validation.shown(value)) <= 200
    validation.shown(value).encode()
