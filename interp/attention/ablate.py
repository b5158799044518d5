"""What does the answer owe to these patches? They are replaced where the picture enters the decoder, by what no patch shows or another shows.

Unlike a knockout, which hides positions from some rows, nothing behind the replaced patches has ever seen them.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import InterpError
from ..models.hooks import Hooks
from ..tracing.replay import Replay
from ..tracing.select import select
from ..tracing.trace import EMBED, Trace
from ..validation import instance, shown
from ..vision.images import open_image
from .changed import Changed, answer_within, figures, scores
from .knockout import A_TRACE
from .replaced import Blank, replaced_states

_BLANKS = {"mean": Blank.mean, "zero": Blank.zero}


@dataclass(frozen=True, eq=False)
class Ablation(Changed):
    """An answer to a picture of which some patches were replaced."""

    patches: str
    positions: tuple[int, ...]
    by: str
    """"mean", "zero" or "another picture"."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON types."""
        replaced = {"patches": self.patches, "positions": list(self.positions), "by": self.by}
        return {"schema": "llava-microscope/ablation/1", **replaced, **super().to_dict()}


def ablate(trace: Trace, patches: Any, by: Any = "mean") -> Ablation:
    """Replace image tokens, `patches` as a `where`, and compare the answers.

    `by` is "mean" (the mean image token of this picture), "zero" (zeros, which no picture gives: the positions still draw attention), or
    another picture (PIL, array or path), whose own tokens take these places. Model features that later layers add at the same positions are
    replaced as well. Figures are those of the answer's tokens behind the trace's own words; the new answer is the model's own.

    Raises InterpError for patches that select nothing or more than image tokens, for a picture that becomes another grid of tokens, and for
    a trace without a model.
    """
    vlm = instance("trace", trace, Trace, A_TRACE).vlm
    words, positions = _image_tokens(trace, patches)
    tokens = range(trace.answer_start, len(trace.tokens))
    name = by if isinstance(by, str) and by in _BLANKS else "another picture"
    other = _other(trace, by) if name not in _BLANKS else None
    with vlm.lock, torch.no_grad():
        replay = Replay.of(trace)
        blank = _BLANKS[name](replay) if other is None else Blank.other(replay, Replay.of(other))
        found = scores(trace, replaced_states(replay, [positions], blank, [token - 1 for token in tokens]), tokens)
        answer = answer_within(replay, _replacing(replay, positions, blank))
    return Ablation(
        **figures(trace, tokens, found, answer),
        patches=words,
        positions=tuple(positions),
        by=name,
    )


def _image_tokens(trace: Trace, where: Any) -> tuple[str, list[int]]:
    try:
        words, positions = select(trace, where)
    except InterpError as error:
        raise InterpError(f"patches: {error}") from error
    if not positions or not set(positions) <= set(trace.positions("image")):
        raise InterpError(f"patches is {shown(where)}, which selects other tokens than the image's, or none. Choose image tokens only.")
    return words, positions


def _other(trace: Trace, by: Any) -> Trace:
    """A trace of another picture with the same prompt."""
    try:
        picture = open_image(by)
    except InterpError as error:
        raise InterpError(f'by is {shown(by)}; it must be "mean", "zero" or a picture. {error}') from error
    other = trace.vlm.trace(picture, trace.prompt, max_new_tokens=1)
    shapes = [[(grid.rows, grid.cols) for grid in each.grids] for each in (trace, other)]
    if shapes[0] != shapes[1]:
        ours, theirs = (" and ".join(f"{rows} x {cols}" for rows, cols in each) for each in shapes)
        raise InterpError(
            f"by: that picture becomes {theirs} patches and this one {ours}. Use a picture of the same size, {_size(trace)} pixels."
        )
    return other


def _size(trace: Trace) -> str:
    return " x ".join(map(str, trace.image_size))


@contextlib.contextmanager
def _replacing(replay: Replay, positions: Sequence[int], blank: Blank) -> Iterator[None]:
    """While the model reads a prompt, the image tokens at `positions` are replaced; its answer's tokens pass unchanged."""
    vlm, chosen = replay.trace.vlm, torch.tensor(positions)

    def put(hidden: torch.Tensor) -> torch.Tensor | None:
        return changed(hidden, _at(blank.embedding, chosen)) if reads_prompt(hidden) else None

    def add(difference: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor | None:
        return changed(hidden, hidden[:, chosen] + difference.to(hidden)) if reads_prompt(hidden) else None

    def reads_prompt(hidden: torch.Tensor) -> bool:
        return hidden.shape[1] == replay.prompt_length

    def changed(hidden: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        out = hidden.clone()
        out[:, chosen] = rows.to(hidden)
        return out

    with Hooks() as hooks:
        vlm.on_layer(hooks, EMBED, put)
        for layer, added in replay.between.items():
            difference = _at(blank.between[layer].to(added), chosen) - added[0, chosen]
            vlm.on_layer(hooks, layer, functools.partial(add, difference))
        yield


def _at(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The row for all positions, or those of the chosen ones."""
    return values if values.ndim == 1 else values[chosen.to(values.device)]
