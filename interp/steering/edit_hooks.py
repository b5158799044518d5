"""The edits of a batch as hooks: which rows and positions they act on, and how far each pushed them."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch

from ..errors import InterpError
from ..models.hooks import Hooks
from ..tracing.trace import Prompt
from .edits import Edit, Kept, Push, Scale, kept_by, positions_of

if TYPE_CHECKING:
    from types import TracebackType

    from ..models.vlm import Vlm

_TINY = 1e-12


@dataclass(frozen=True)
class EditEffect:
    """What one edit did while the steered answer was generated."""

    edit: Edit
    fired: int
    """Number of positions, in prompt and answer, whose state changed in the model's dtype. 0 if all states already were as asked."""
    absolute: float
    """Mean |dh|, the length of the change, over these positions; 0 if there are none."""
    relative: float
    """Mean of |dh| / |h| over the same positions, h before the change."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        edit = self.edit
        return {
            **({"sae": edit.sae.name, "feature": edit.feature} if edit.sae is not None else {"vector": edit.name}),
            "layer": edit.at,
            edit.unit: edit.value,
            "where": edit.where,
            "fired": self.fired,
            "absolute": self.absolute,
            "relative": self.relative,
        }


class EditHooks:
    """A context manager that applies the edits of every row of a batch through hooks on their layers.

    `scales`: for each edited layer, the norms of the unedited run, or None to measure them now on row 0, which must then be unedited. `begin`:
    the first position of the run, if earlier ones are in a cache.
    """

    def __init__(
        self, vlm: "Vlm", prompt: Prompt, rows: Sequence[tuple[Edit, ...]], scales: dict[int, Scale | None], *, begin: int = 0
    ) -> None:
        self._vlm = vlm
        self._prompt, self._rows, self._scales = prompt, rows, scales
        self._begin = begin
        self._seen = dict.fromkeys(scales, begin)
        grouped: dict[tuple[Any, ...], _Move] = {}
        self._of_row: list[list[tuple[_Move, int]]] = []
        for row, edits in enumerate(rows):
            self._of_row.append([])
            for edit in edits:
                # Rows whose edits differ only in value are computed together.
                key = (id(edit.sae), id(edit.vector), edit.feature, edit.at, edit.unit, repr(edit.where))
                move = grouped.setdefault(key, _Move(edit, _device_of(vlm.blocks[edit.at], vlm.model.device)))
                self._of_row[-1].append((move, len(move.rows)))
                move.add(row, edit.value)
        self._moves = [*grouped.values()]
        self._hooks = Hooks()

    def __enter__(self) -> Self:
        for layer in self._seen:
            self._vlm.on_layer(self._hooks, layer, functools.partial(self._edited, layer))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None") -> None:
        self._hooks.__exit__(kind, error, trace)

    def _edited(self, layer: int, hidden: torch.Tensor) -> torch.Tensor | None:
        start, length = self._seen[layer], hidden.shape[1]
        self._seen[layer] = start + length
        scale = self._scales[layer]
        if scale is None:
            scale = self._scales[layer] = Scale.of(self._prompt, hidden[0, : self._prompt.length])
        here = [(move, move.columns(self._prompt, scale, start, length)) for move in self._moves if move.edit.at == layer]
        acting = [(move, columns) for move, columns in here if columns]
        if not acting:
            return None
        change = torch.zeros(hidden.shape, device=hidden.device)
        kept = _kept(hidden, acting)
        for move, columns in acting:
            move.apply(hidden, change, columns, scale, start, kept.get(move.selection(columns)))
        return (hidden + change).to(hidden.dtype)  # summed in float32 at least

    def applied(self, lengths: Sequence[int]) -> list[tuple[EditEffect, ...]]:
        """For each row, what its edits did while it generated an answer of `lengths[row]` tokens."""
        return [
            tuple(move.applied(index, edit, length) for (move, index), edit in zip(moves, edits, strict=True))
            for moves, edits, length in zip(self._of_row, self._rows, lengths, strict=True)
        ]


def _kept(hidden: torch.Tensor, acting: Sequence[tuple["_Move", list[int]]]) -> dict[Any, Kept]:
    """What TopK SAEs keep of the edited states, by `_Move.selection`: all states that one SAE must select from share a pass over its encoder."""
    shared: dict[Any, list[tuple[_Move, list[int]]]] = {}
    for move, columns in acting:
        if move.push.topk is not None:
            shared.setdefault(move.selection(columns), []).append((move, columns))
    out: dict[Any, Kept] = {}
    for sae in {id(moves[0][0].push.topk): moves[0][0].push.topk for moves in shared.values()}.values():
        assert sae is not None
        own = {key: moves for key, moves in shared.items() if moves[0][0].push.topk is sae}
        parts = [
            ([move.push for move, _ in moves], moves[0][0].states(hidden, moves[0][1]).float().flatten(0, 1)) for moves in own.values()
        ]
        out |= zip(own, kept_by(sae, parts), strict=True)
    return out


def _device_of(layer: Any, otherwise: torch.device) -> torch.device:
    """Where a block computes: a model may be spread over several devices."""
    return next((parameter.device for parameter in layer.parameters()), otherwise)


class _Move:
    """One edit, applied to all rows of a batch that share it, each with its own value."""

    def __init__(self, edit: Edit, device: torch.device) -> None:
        self.edit = edit
        self.rows: list[int] = []
        self._values: list[float] = []
        self._device = device
        self.push = Push(edit, device)
        self._place: tuple[list[int], bool] | None = None
        self._calls: list[torch.Tensor] = []
        """For each call [3, rows]: number of changed positions, and the sums over them of |dh| and of |dh| / |h|."""

    def add(self, row: int, value: float) -> None:
        """One more row."""
        self.rows.append(row)
        self._values.append(value)

    @functools.cached_property
    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Its rows [rows, 1] and their values [rows]; read only after the last `add`."""
        return torch.tensor(self.rows, device=self._device)[:, None], torch.tensor(self._values, device=self._device)

    def columns(self, prompt: Prompt, scale: Scale, start: int, length: int) -> list[int]:
        """Where it acts within the positions `start` to `start + length`, counted from `start`."""
        if self._place is None:
            self._place = positions_of(self.edit, prompt, scale)
        inside, on_answer = self._place
        out = [position - start for position in inside if start <= position < start + length]
        return [*out, *range(max(prompt.length - start, 0), length)] if on_answer else out

    def selection(self, columns: list[int]) -> Any:
        """A key shared by moves for which the same TopK SAE selects from the same states."""
        return id(self.push.topk), tuple(self.rows), tuple(columns)

    def states(self, hidden: torch.Tensor, columns: list[int]) -> torch.Tensor:
        """The states that it edits, out of `hidden` [rows of the batch, length, d]: [rows, columns, d]."""
        return hidden[self._batch[0], torch.tensor(columns, device=hidden.device)]

    def apply(self, hidden: torch.Tensor, change: torch.Tensor, columns: list[int], scale: Scale, start: int, kept: Kept | None) -> None:
        """Add its change of `hidden` to `change`, both [rows of the batch, length, d]. `kept`: what a TopK SAE keeps of these states."""
        device = hidden.device
        rows, values = self._batch
        at = torch.tensor(columns, device=device)
        before = self.states(hidden, columns)
        states = before.float()
        known = len(scale.norms)
        norms = torch.tensor([float(scale.norms[start + c]) if start + c < known else scale.text for c in columns], device=device)
        delta = self.push.delta(states, values, norms, kept)
        change.index_put_((rows, at), delta, accumulate=True)  # the same edit may occur twice in one row
        changed = ((states + delta).to(before.dtype) != before).any(dim=-1)
        length = delta.norm(dim=-1).where(changed, 0.0)
        self._calls.append(torch.stack([changed.float(), length, length / states.norm(dim=-1).clamp(min=_TINY)]).sum(-1))

    def applied(self, index: int, edit: Edit, steps: int) -> EditEffect:
        """What it did in its `index`-th row, whose answer has `steps` tokens; other rows may have run longer."""
        calls = self._calls[:steps]  # the first is the prompt, and the last token of an answer never enters the model
        changed, absolute, relative = torch.stack([call[:, index].double() for call in calls]).sum(0).tolist()
        if not math.isfinite(absolute):  # the squares of such states overflow
            raise InterpError(
                f"With {edit.unit} {edit.value:g} on {edit.name} the states overflow. "
                "Push less: a strength of 1 already equals the typical residual norm."
            )
        fired = round(changed)
        return EditEffect(edit, fired, absolute / max(1, fired), relative / max(1, fired))
