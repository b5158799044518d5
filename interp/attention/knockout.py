"""What did the answer need to read? Attention knockout (Geva et al. 2023): rows that may not read some positions, and what is said then."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import InterpError
from ..models.attend import attending
from ..tracing.replay import Replay
from ..tracing.select import answer_token, select
from ..tracing.trace import Trace
from ..validation import flag, index, instance, shown, whole_numbers
from .changed import Changed, answer_within, figures, longest_answer, scores
from .cuts import Cut, cut_off, cut_states, readable, with_attention
from .maps import PatchMap

A_TRACE = "a Trace, as Vlm.trace returns"
_NOTE = (
    "Shows how much less likely the word becomes when one patch alone cannot be read. Patches that say the same stand in for each other, so "
    "an object of many patches may show little."
)


@dataclass(frozen=True, eq=False)
class Knockout(Changed):
    """An answer whose `targets` could not read the `sources`."""

    sources: str
    targets: str
    source_positions: tuple[int, ...]
    layers: tuple[int, ...]
    heads: tuple[int, ...] | None
    """None: all."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON types."""
        cut: dict[str, Any] = {"sources": self.sources, "targets": self.targets, "source_positions": list(self.source_positions)}
        cut |= {"layers": list(self.layers), "heads": None if self.heads is None else list(self.heads)}
        return {"schema": "llava-microscope/knockout/1", **cut, **super().to_dict()}


def knockout(
    trace: Trace,
    sources: Any,
    targets: Any = "last",
    layers: Sequence[int] | None = None,
    *,
    token: Any = None,
    heads: Sequence[int] | None = None,
    answer: bool = True,
) -> Knockout:
    """Keep the rows `targets` from reading the positions `sources` in `layers` (default: all that have attention).

    `sources` is a `where`, or "last": the last prompt position. `targets` is a `where`; "last" and "answer" are every row that emits a word
    of the answer (the last prompt position and the answer so far), "prompt" the prompt's text behind the picture but for the row that emits.
    `heads` are numbers of query heads (default: all). Figures are those of `token`, a number in the answer or a word of it (default: all
    tokens of the answer, each behind the trace's own words). With `answer`, the model also answers anew with the cut in force throughout.

    Raises InterpError for sources or targets that select nothing, sources that no target reads, sources that are all that a target reads,
    layers and heads that do not exist, a layer without attention, and a trace without a model.
    """
    vlm = instance("trace", trace, Trace, A_TRACE).vlm
    tokens = list(range(trace.answer_start, len(trace.tokens))) if token is None else [answer_token(trace, token)]
    said, positions = _sources(trace, sources)
    about, rows = _targets(trace, targets)
    some = None if heads is None else _numbers("head", heads, vlm.decoder.config.num_attention_heads, vlm.name)
    wanted = None if layers is None else _numbers("layer", layers, vlm.n_layers, vlm.name)
    flag("answer", answer)
    with vlm.lock:
        replay = Replay.of(trace)
        chosen = attention_layers(replay, wanted)
        _check_read(replay, chosen, (said, positions), (about, rows))
        cut = Cut(tuple(rows), tuple(positions), frozenset(chosen), some)
        states, _ = cut_states(replay, [cut], [token - 1 for token in tokens])
        found = scores(trace, states, tokens)
        longer = _in_generation(trace, cut, sources, targets)
        new = answer_within(replay, attending(vlm, mask=cut_off([longer], trace))) if answer else None
    return Knockout(
        **figures(trace, tokens, found, new),
        sources=said,
        targets=about,
        source_positions=tuple(positions),
        layers=tuple(chosen),
        heads=some,
    )


def knockout_map(trace: Trace, token: Any, layers: Sequence[int] | None = None) -> PatchMap:
    """For each image position alone: by how much the log-probability of a word falls if no other row can read it in `layers`, in nats.

    Negative where the word becomes more likely. One run for each image position, many in a batch.

    Raises InterpError as `knockout` does.
    """
    vlm = instance("trace", trace, Trace, A_TRACE).vlm
    position = answer_token(trace, token)
    wanted = None if layers is None else _numbers("layer", layers, vlm.n_layers, vlm.name)
    image = trace.positions("image")
    with vlm.lock:
        replay = Replay.of(trace)
        chosen = attention_layers(replay, wanted)
        reads = torch.stack([readable(replay, layer) for layer in chosen]).any(0)
        reads.fill_diagonal_(fill_value=False)
        reads[position:] = False
        cuts = [Cut(tuple(reads[:, each].nonzero().flatten().tolist()), (each,), frozenset(chosen)) for each in image]
        states, _ = cut_states(replay, cuts, [position - 1])
        found = scores(trace, states, [position]).log_probability[:, 0]
    values = torch.zeros(trace.length)
    values[image] = found[0] - found[1:]
    method = "knockout" if layers is None else f"knockout in layers {_listed(chosen)}"
    return PatchMap(trace, position, method, values, _NOTE)


def text_behind_picture(trace: Trace, end: int) -> list[int]:
    """Positions of text, from the first image token to `end` (exclusive): what can carry the picture's content on to the answer."""
    first = min(trace.positions("image"), default=0)
    return [row for row in range(first, end) if trace.tokens[row].kind not in {"image", "separator"}]


def attention_layers(replay: Replay, chosen: Sequence[int] | None) -> list[int]:
    """`chosen`, by default all layers that have attention. Raises InterpError if one of them has none."""
    having = with_attention(replay)
    if chosen is not None and (lacking := [layer for layer in chosen if layer not in having]):
        raise InterpError(
            f"Layer {lacking[0]} of {replay.trace.model_name} has no attention: it mixes positions by other means. "
            f"Choose from layers {_listed(having)}."
        )
    return having if chosen is None else list(chosen)


def _sources(trace: Trace, where: Any) -> tuple[str, list[int]]:
    """What `sources` selects: in words, and positions."""
    last = trace.answer_start - 1
    words, found = ("last prompt token", [last]) if _is(where, "last") else _selected(trace, "sources", where)
    if not found:
        raise InterpError(f"sources is {shown(where)}, which selects nothing in this trace. Choose positions that it has.")
    return words, found


def _targets(trace: Trace, where: Any) -> tuple[str, list[int]]:
    """What `targets` selects: in words, and rows."""
    last = trace.answer_start - 1
    if _is(where, "last") or _is(where, "answer"):
        return "rows that emit the answer", list(range(last, trace.length))
    words, found = (
        ("prompt behind the picture", text_behind_picture(trace, last)) if _is(where, "prompt") else _selected(trace, "targets", where)
    )
    if not found:
        raise InterpError(f"targets is {shown(where)}, which selects nothing in this trace. Choose rows that it has.")
    return words, found


def _selected(trace: Trace, name: str, where: Any) -> tuple[str, list[int]]:
    try:
        return select(trace, where)
    except InterpError as error:
        raise InterpError(f"{name}: {error}") from error


def _is(where: Any, word: str) -> bool:
    return isinstance(where, str) and where == word


def _in_generation(trace: Trace, cut: Cut, sources: Any, targets: Any) -> Cut:
    """The cut while the model answers anew, whose answer may be longer than the trace's."""
    behind = tuple(range(trace.length, trace.answer_start + longest_answer(trace)))
    rows = cut.rows + behind if any(_is(targets, word) for word in ("last", "answer", "all")) else cut.rows
    positions = cut.positions + behind if any(_is(sources, word) for word in ("answer", "all")) else cut.positions
    return Cut(rows, positions, cut.layers, cut.heads)


def _check_read(replay: Replay, layers: Sequence[int], sources: tuple[str, list[int]], targets: tuple[str, list[int]]) -> None:
    """Raise InterpError unless some target reads some source in one of the layers."""
    rows = torch.tensor(targets[1])
    if not any(readable(replay, layer)[rows[:, None], sources[1]].any() for layer in layers):
        raise InterpError(
            f"None of the targets ({targets[0]}) can read any of the sources ({sources[0]}) in layers {_listed(layers)}: rows read themselves "
            "and what stands before them, within a window in some models. Choose earlier sources or later targets."
        )


def _numbers(what: str, values: Any, count: int, name: str) -> tuple[int, ...]:
    """Layers or heads, each once and in order."""
    there_are = f"{name} has {what}s 0 to {count - 1}"
    return tuple(sorted({index(what.capitalize(), each, 0, count - 1, there_are) for each in whole_numbers(f"{what}s", values)}))


def _listed(layers: Sequence[int]) -> str:
    """As 0-7, 9."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
