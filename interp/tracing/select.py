"""Selecting positions of a trace or prompt, by kind of token, patch, box or number; and attention sinks, which rankings leave out by default."""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from ..errors import InterpError
from ..validation import as_whole, index, sequence, shown, text, whole_numbers
from ..vision.grids import PatchGrid
from .trace import Kind, Prompt, Trace

KINDS: dict[str, tuple[Kind, ...]] = {
    "image": ("image",),
    "prompt": ("prompt",),
    "answer": ("answer",),
    "all": ("image", "separator", "prompt", "answer", "special"),
}
# A short answer or a single special token is too few for a meaningful median, so all text is one group.
_GROUPS: tuple[tuple[Kind, ...], ...] = (("image",), ("separator",), ("prompt", "answer", "special"))
_EMPTY = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "there",
        "here",
        "it",
        "its",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "has",
        "have",
        "had",
        "and",
        "or",
        "but",
        "of",
        "in",
        "on",
        "at",
        "to",
        "for",
        "from",
        "by",
        "with",
        "as",
        "into",
        "image",
        "picture",
        "photo",
        "photograph",
        "scene",
        "shows",
        "showing",
        "features",
        "featuring",
        "depicts",
        "depicting",
        "displays",
        "contains",
        "captures",
        "appears",
        "see",
        "can",
    ]
)
_LISTED = 32  # answer tokens in an error
_SINK = 5  # times the median norm of its group
_WAYS = ({"patches"}, {"patches", "grid"}, {"box"}, {"box", "grid"}, {"positions"})


def select(trace: Trace | Prompt, where: Any, left_out: Collection[int] = ()) -> tuple[str, list[int]]:
    """A description of the tokens that `where` selects, and their positions without duplicates.

    `where` is "image", "prompt", "answer" or "all", or a mapping: {"patches": [[row, col], ...]} or {"box": [top, left, bottom, right]} (ends
    included), either with an optional "grid", or {"positions": [i, ...]}. Positions in `left_out` are skipped when a kind is selected, not
    when they are named.

    Raises InterpError for anything else, and for patches and positions that do not exist.
    """
    where = plain_where(where)
    if isinstance(where, str):
        return f"{where} tokens", [i for i in trace.positions(*KINDS[where]) if i not in left_out]
    if "positions" in where:
        return _named_tokens(trace, where["positions"])
    grid = grid_of(trace, where.get("grid", 0))
    words, cells = _box(grid, where["box"]) if "box" in where else _patches(grid, where["patches"])
    return words + (f" of {grid.name}" if len(trace.grids) > 1 else ""), [int(grid.positions[cell]) for cell in cells]


def plain_where(where: Any) -> Any:
    """`where` in plain Python types. Raises InterpError if it is malformed; whether its patches and positions exist is up to the trace."""
    if isinstance(where, str) and where in KINDS:
        return str(where)
    if not isinstance(where, Mapping) or set(where) not in _WAYS:
        raise InterpError(
            f"where is {shown(where)}; it must be one of {', '.join(KINDS)}, or name tokens in one of three ways: "
            '{"patches": [[row, col], ...]}, {"box": [top, left, bottom, right]} (either with "grid": 0) or {"positions": [i, ...]}.'
        )
    return {key: _PLAIN[key](value) for key, value in where.items()}


def grid_of(trace: Trace | Prompt, grid: Any) -> PatchGrid:
    """The patch grid with this number. Raises InterpError if there is none."""
    if not trace.grids:
        raise InterpError(
            "This model's image tokens are not patches: each reads the whole picture or a whole part of it. Select positions instead."
        )
    number = as_whole(grid)
    if number is None or not 0 <= number < len(trace.grids):
        raise InterpError(f"Grid {shown(grid)} does not exist; there are {len(trace.grids)}, counted from 0.")
    return trace.grids[number]


def answer_token(trace: Trace, token: Any) -> int:
    """Position of a token of the answer, given as its number in the answer (0 is the first) or as a word that is one token of it.

    The row before it emits it. Raises InterpError for a number out of range, and for a word that the answer does not contain, contains
    several times, or that is several tokens.
    """
    start = trace.answer_start
    tokens = trace.tokens[start:]
    if not isinstance(token, str):
        return start + index("Answer token", token, 0, len(tokens) - 1, f"the answer has {len(tokens)} tokens, 0 to {len(tokens) - 1}")
    word = text("token", token).strip()
    found = [i for i, each in enumerate(tokens) if each.text.strip().casefold() == word.casefold()]
    if len(found) == 1:
        return start + found[0]
    listed = ", ".join(f"{i} {each.text.strip()!r}" for i, each in enumerate(tokens[:_LISTED])) + (", …" if len(tokens) > _LISTED else "")
    if found:
        raise InterpError(f"{shown(token)} is several tokens of the answer: {', '.join(map(str, found))}. Choose one by its number.")
    raise InterpError(f"{shown(token)} is not a single token of the answer. Choose a token by its number: {listed}.")


def content_word(trace: Trace) -> int:
    """Number in the answer of its first content word, for views that open on one; of its first word or token where there is none.

    A content word is written in letters, begins a word, and is none of the common English function words and openings ("The image shows a ...").
    """
    tokens = [token.text for token in trace.tokens[trace.answer_start :]]
    words = [i for i, text in enumerate(tokens) if text.strip().isalpha()]
    begun = [
        i for i in words if len(tokens[i].strip()) > 1 and (i == 0 or tokens[i][0].isspace()) and tokens[i].strip().casefold() not in _EMPTY
    ]
    return next(iter(begun or words), 0)


def sinks(trace: Trace | Prompt, states: torch.Tensor) -> tuple[int, ...]:
    """BOS and attention sinks: positions whose norm in `states` [T, d] exceeds five times the median of their kind (image, separator, text)."""
    norms = states.float().norm(dim=-1)
    out = {0} if trace.tokens[0].kind == "special" else set()
    for kinds in _GROUPS:
        if rows := trace.positions(*kinds):
            of_kind = norms[rows]
            median = of_kind.median()
            if median > 0:  # as a multiple of 0 every norm would be a sink
                out |= {rows[i] for i in (of_kind > _SINK * median).nonzero().flatten().tolist()}
    return tuple(sorted(out))


def _named_tokens(trace: Trace | Prompt, positions: list[int]) -> tuple[str, list[int]]:
    length = trace.length
    for position in positions:
        index("Position", position, 0, length - 1, f"there are {length} positions, 0 to {length - 1}")
    positions = list(dict.fromkeys(positions))
    texts = ", ".join(repr(trace.tokens[i].text) for i in positions[:4]) + (", …" if len(positions) > 4 else "")
    return (f"token {texts}" if len(positions) == 1 else f"{len(positions)} tokens: {texts}"), positions


def _box(grid: PatchGrid, box: list[int]) -> tuple[str, list[tuple[int, int]]]:
    top, left, bottom, right = box
    _check_cell(grid, top, left)
    _check_cell(grid, bottom, right)
    cells = [(row, col) for row in range(top, bottom + 1) for col in range(left, right + 1)]
    return f"patches of rows {top} to {bottom}, columns {left} to {right}", cells


def _patches(grid: PatchGrid, patches: list[list[int]]) -> tuple[str, list[tuple[int, int]]]:
    for row, col in patches:
        _check_cell(grid, row, col)
    cells = list(dict.fromkeys((row, col) for row, col in patches))
    return (f"patch row {cells[0][0]}, column {cells[0][1]}" if len(cells) == 1 else f"{len(cells)} patches"), cells


def _check_cell(grid: PatchGrid, row: int, col: int) -> None:
    if not (0 <= row < grid.rows and 0 <= col < grid.cols):
        raise InterpError(
            f"Patch row {shown(row)}, column {shown(col)} does not exist: the grid has {grid.rows} x {grid.cols} patches, counted from 0."
        )


def _plain_box(box: Any) -> list[int]:
    corners = whole_numbers("box", box)
    if len(corners) != 4 or corners[0] > corners[2] or corners[1] > corners[3]:
        raise InterpError(f"box is {shown(box)}; it must be [top, left, bottom, right], both ends included.")
    return corners


def _plain_patches(patches: Any) -> list[list[int]]:
    pairs = [whole_numbers("a pair of patches", pair) for pair in sequence("patches", patches, "[row, column] pairs")]
    if wrong := [pair for pair in pairs if len(pair) != 2]:
        raise InterpError(f"patches has {shown(wrong[0])}; each must be a pair [row, column].")
    return pairs


def _plain_grid(grid: Any) -> int:
    number = as_whole(grid)
    if number is None:
        raise InterpError(f"Grid {shown(grid)} does not exist; patch grids are counted from 0.")
    return number


_PLAIN: dict[str, Callable[[Any], Any]] = {
    "patches": _plain_patches,
    "box": _plain_box,
    "grid": _plain_grid,
    "positions": functools.partial(whole_numbers, "positions"),
}
