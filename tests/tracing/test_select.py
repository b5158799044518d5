import dataclasses

import numpy as np
import pytest
import torch

import interp
from interp import InterpError, PatchGrid
from interp.tracing.select import KINDS, content_word, grid_of, select, sinks
from interp.validation import shown
from tests.conftest import PROMPT

BOS, IMAGE, PROMPT_TOKENS, ANSWER = [0], [*range(4, 20)], [1, 2, 3, *range(20, 27)], [*range(27, 32)]


@pytest.fixture
def two_grids(trace):
    """As if the upper half of the picture had been shown once more, as its own tile, with the columns the other way round."""
    whole = trace.grids[0]
    tile = PatchGrid("upper half", whole.positions[:2].flip(1), whole.boxes[:2])
    return dataclasses.replace(trace, grids=(whole, tile), views=trace.views * 2)


def with_norms(trace, norms):
    """States of which every row has norm 1, but for those given."""
    states = torch.nn.functional.normalize(torch.randn(trace.states.shape[1:], generator=torch.Generator().manual_seed(0)), dim=-1)
    for position, norm in norms.items():
        states[position] *= norm
    return states


@pytest.mark.parametrize(
    ("where", "positions"),
    [("image", IMAGE), ("prompt", PROMPT_TOKENS), ("answer", ANSWER), ("all", [*range(32)])],
)
def test_kinds(trace, where, positions):
    assert select(trace, where) == (f"{where} tokens", positions)
    assert select(trace, where, left_out=[0, 5, 21, 30])[1] == [i for i in positions if i not in (0, 5, 21, 30)]


def test_the_last_token_never_entered_the_model(trace):
    assert len(trace.tokens) == 33
    assert all(32 not in select(trace, kind)[1] for kind in KINDS)


def test_a_trace_without_answer_rows(vlm, picture):
    short = vlm.trace(picture, PROMPT, max_new_tokens=1)
    assert select(short, "answer") == ("answer tokens", [])


@pytest.mark.parametrize(
    ("where", "words", "positions"),
    [
        ({"patches": [[0, 0]]}, "patch row 0, column 0", [4]),
        ({"patches": [[1, 3]]}, "patch row 1, column 3", [11]),
        ({"patches": ((3, 3), (0, 1))}, "2 patches", [19, 5]),
        ({"patches": [[2, 2], [0, 1], [2, 2]]}, "2 patches", [14, 5]),
        ({"patches": [[2, 2], [2, 2]], "grid": 0}, "patch row 2, column 2", [14]),
        ({"box": [1, 2, 2, 3]}, "patches of rows 1 to 2, columns 2 to 3", [10, 11, 14, 15]),
        ({"box": [3, 0, 3, 0]}, "patches of rows 3 to 3, columns 0 to 0", [16]),
        ({"box": (0, 0, 3, 3), "grid": 0}, "patches of rows 0 to 3, columns 0 to 3", IMAGE),
        ({"positions": [21]}, "token 'Describe'", [21]),
        ({"positions": [22, 0, 22]}, "2 tokens: ' the', '<s>'", [22, 0]),
        ({"positions": range(21, 26)}, "5 tokens: 'Describe', ' the', ' image', '.', …", [*range(21, 26)]),
        ({"positions": [0, 21]}, "2 tokens: '<s>', 'Describe'", [0, 21]),
        ({"positions": np.array([0, 21])}, "2 tokens: '<s>', 'Describe'", [0, 21]),
        ({"positions": torch.tensor([0.0, 21.0])}, "2 tokens: '<s>', 'Describe'", [0, 21]),
    ],
)
def test_named_tokens_are_kept_in_the_order_given_each_once(trace, where, words, positions):
    assert select(trace, where) == (words, positions)
    assert select(trace, where, left_out=range(32)) == (words, positions), "what is named is kept"


def test_a_second_grid_is_named(two_grids):
    assert select(two_grids, {"patches": [[0, 0]]}) == ("patch row 0, column 0 of whole picture", [4])
    assert select(two_grids, {"patches": [[1, 0]], "grid": 1}) == ("patch row 1, column 0 of upper half", [11])
    assert select(two_grids, {"box": [0, 0, 1, 1], "grid": 1})[1] == [7, 6, 11, 10]
    with pytest.raises(InterpError, match=r"Patch row 2, column 0 does not exist: the grid has 2 x 4 patches"):
        select(two_grids, {"patches": [[2, 0]], "grid": 1})
    with pytest.raises(InterpError, match=r"Patch row 2, column 0 does not exist"):
        select(two_grids, {"box": [0, 0, 2, 0], "grid": 1})


@pytest.mark.parametrize(
    "where",
    [
        "Image",
        "images",
        "",
        None,
        3,
        True,
        [],
        [[0, 0]],
        ["image"],
        {"image"},
        {},
        {"grid": 0},
        {"patch": [[0, 0]]},
        {"kind": "image"},
        {"patches": [[0, 0]], "box": [0, 0, 1, 1]},
        {"patches": [[0, 0]], "positions": [1]},
        {"positions": [1], "grid": 0},
        {"patches": [[0, 0]], "colour": "red"},
        {0: [[0, 0]]},
    ],
    ids=repr,
)
def test_what_is_no_way_to_name_tokens(trace, where):
    with pytest.raises(
        InterpError, match=r"where is .*; it must be one of image, prompt, answer, all, or name tokens in one of three ways"
    ):
        select(trace, where)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"patches": []}, r"patches is \[\]; it must be a list of \[row, column\] pairs"),
        ({"patches": "00"}, r"patches is '00'"),
        ({"patches": None}, r"patches is None"),
        ({"patches": {"0": 0}}, r"patches is \{'0': 0\}"),
        ({"patches": [0, 0]}, r"a pair of patches is 0; it must be a list"),
        ({"patches": [[]]}, r"a pair of patches is \[\]"),
        ({"patches": [[0]]}, r"patches has \[0\]; each must be a pair"),
        ({"patches": [[0, 0, 0]]}, r"patches has \[0, 0, 0\]"),
        ({"patches": [[0, "0"]]}, r"a pair of patches is \[0, '0'\]; every entry must be a whole number"),
        ({"patches": [[0, 0.5]]}, r"every entry must be a whole number"),
        ({"patches": [[False, True]]}, r"every entry must be a whole number"),
        ({"patches": [[[0], 0]]}, r"every entry must be a whole number"),
        ({"patches": ["ab"]}, r"a pair of patches is 'ab'"),
        ({"patches": [b"ab"]}, r"a pair of patches is b'ab'"),
        ({"patches": [[0, 0], [4, 0]]}, r"Patch row 4, column 0 does not exist: the grid has 4 x 4 patches, counted from 0"),
        ({"patches": [[0, 4]]}, r"Patch row 0, column 4 does not exist"),
        ({"patches": [[-1, 0]]}, r"Patch row -1, column 0 does not exist"),
        ({"patches": [[0, -1]]}, r"Patch row 0, column -1 does not exist"),
        ({"box": [0, 0, 1]}, r"box is \[0, 0, 1\]; it must be \[top, left, bottom, right\], both ends included"),
        ({"box": [[0, 0], [1, 1]]}, r"box is .*every entry must be a whole number"),
        ({"box": [2, 0, 1, 3]}, r"box is \[2, 0, 1, 3\]"),
        ({"box": [0, 2, 3, 1]}, r"box is \[0, 2, 3, 1\]"),
        ({"box": [0, 0, 4, 3]}, r"Patch row 4, column 3 does not exist"),
        ({"box": [0, 0, 3, 4]}, r"Patch row 3, column 4 does not exist"),
        ({"box": [-1, 0, 3, 3]}, r"Patch row -1, column 0 does not exist"),
        ({"box": [0, -1, 3, 3]}, r"Patch row 0, column -1 does not exist"),
        ({"box": []}, r"box is \[\]"),
        ({"box": 4}, r"box is 4"),
        ({"positions": []}, r"positions is \[\]; it must be a list of whole numbers"),
        ({"positions": 3}, r"positions is 3"),
        ({"positions": "3"}, r"positions is '3'"),
        ({"positions": b"3"}, r"positions is b'3'"),
        ({"positions": [1, 32]}, r"Position 32 does not exist: there are 32 positions, 0 to 31"),
        ({"positions": [-1]}, r"Position -1 does not exist"),
        ({"positions": [True]}, r"every entry must be a whole number"),
        ({"positions": [1.5]}, r"every entry must be a whole number"),
        ({"positions": [10**5000]}, r"Position … \(5001 digits\) does not exist"),
        ({"patches": [[10**40, 0]]}, r"Patch row 1000000000… \(41 digits\), column 0 does not exist"),
        ({"positions": [None]}, r"every entry must be a whole number"),
        ({"patches": [[0, 0]], "grid": 1}, r"Grid 1 does not exist; there are 1, counted from 0"),
        ({"patches": [[0, 0]], "grid": -1}, r"Grid -1 does not exist"),
        ({"box": [0, 0, 1, 1], "grid": "0"}, r"Grid '0' does not exist"),
        ({"box": [0, 0, 1, 1], "grid": None}, r"Grid None does not exist"),
        ({"box": [0, 0, 1, 1], "grid": False}, r"Grid False does not exist"),
    ],
    ids=lambda value: shown(value) if isinstance(value, dict) else "",
)
def test_tokens_that_do_not_exist(trace, where, message):
    with pytest.raises(InterpError, match=message):
        select(trace, where)


def test_grids_by_number(two_grids):
    assert grid_of(two_grids, 1).name == "upper half"
    for wrong in (2, -1, True, 0.5, "0", None, [0], 10**5000):
        with pytest.raises(InterpError, match="does not exist; there are 2, counted from 0"):
            grid_of(two_grids, wrong)


def test_bos_is_a_sink_whatever_its_norm(trace):
    assert sinks(trace, with_norms(trace, {})) == (0,)
    assert sinks(trace, with_norms(trace, {0: 1e-3})) == (0,)


def test_a_first_token_that_is_a_word_is_none(trace):
    plain = dataclasses.replace(trace, tokens=(trace.tokens[1], *trace.tokens[1:]))
    assert sinks(plain, with_norms(plain, {})) == ()
    assert sinks(plain, with_norms(plain, {0: 50})) == (0,)


@pytest.mark.parametrize("position", [4, 12, 19, 1, 20, 26, 27, 31])
def test_over_five_times_the_median_of_its_kind(trace, position):
    assert sinks(trace, with_norms(trace, {position: 4.9})) == (0,)
    assert sinks(trace, with_norms(trace, {position: 5.1})) == (0, position)


def test_pictures_and_text_are_judged_apart(trace):
    """Projected patches may be many times longer than word embeddings."""
    states = with_norms(trace, dict.fromkeys(IMAGE, 30.0) | {21: 6.0})
    assert sinks(trace, states) == (0, 21)


def test_a_special_token_in_the_middle_and_a_single_answer_token_have_the_text_as_their_measure(load, picture):
    turns = load("interleave").trace(picture, PROMPT, max_new_tokens=2)
    kinds = [token.kind for token in turns.tokens[:-1]]
    special = [i for i, kind in enumerate(kinds) if kind == "special"]
    assert len(special) == 3
    assert kinds.count("answer") == 1
    assert sinks(turns, with_norms(turns, dict.fromkeys(special, 40.0))) == tuple(special)
    assert sinks(turns, with_norms(turns, {kinds.index("answer"): 40.0})) == (0, kinds.index("answer"))


def test_a_median_of_nothing_is_no_measure(trace):
    assert sinks(trace, with_norms(trace, dict.fromkeys(range(10, 32), 0.0))) == (0,)


def test_separators_are_judged_among_themselves(trace):
    tokens = tuple(dataclasses.replace(token, kind="separator") if i in (7, 11, 15, 19) else token for i, token in enumerate(trace.tokens))
    striped = dataclasses.replace(trace, tokens=tokens)
    assert sinks(striped, with_norms(striped, dict.fromkeys((7, 11, 15, 19), 9.0))) == (0,)
    assert sinks(striped, with_norms(striped, {7: 9.0})) == (0, 7)


def test_half_precision_norms_do_not_overflow(trace):
    states = with_norms(trace, dict.fromkeys(range(32), 4e4)).half()
    states[9] = 6e4  # the norm is 480 000, beyond half precision
    assert sinks(trace, states) == (0, 9)


def test_a_trace_of_the_embedded_model(emoji_vlm, picture):
    trace = emoji_vlm.trace(picture, PROMPT, max_new_tokens=4)
    left_out = sinks(trace, trace.residual(interp.PRESETS["emoji-llava"].default_layer))
    assert len(left_out) < 0.1 * len(trace.tokens)
    assert select(trace, "image")[1] == trace.grids[0].positions.flatten().tolist()


@pytest.mark.parametrize(
    ("tokens", "first"),
    [
        ([" a", " dog", " and", "</s>"], 1),
        (["The", " image", " shows", " a", " micro", "scope", "."], 4),
        ([" 3", " a", "."], 1),  # no content word: the first word
        (["7", ".", "</s>"], 0),
        (["Y", "es", "."], 0),
        (["\u72d7", "\u548c"], 0),
    ],
    ids=str,
)
def test_the_first_content_word_of_an_answer(trace, tokens, first):
    answer = tuple(dataclasses.replace(trace.tokens[-1], text=text, kind="answer") for text in tokens)
    assert content_word(dataclasses.replace(trace, tokens=trace.tokens[: trace.answer_start] + answer)) == first
