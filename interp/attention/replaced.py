"""What the model says when some image tokens show something else: their embeddings replaced, everything behind them run again.

Many variants are rows of a batch. Where a model gives picture features to later layers too (DeepStack, as in Qwen3-VL), these are replaced
with the embeddings: otherwise the picture would still be seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..devices import retry_on_oom
from ..errors import InterpError
from ..steering.generation import rows_at_once
from ..tracing.replay import Replay
from ..tracing.select import sinks
from ..tracing.trace import EMBED, Trace

_LOWER = "Load the model with quantize='4bit', take a smaller picture, or choose a smaller model."


@dataclass(frozen=True, eq=False)
class Blank:
    """What is put in the place of image tokens."""

    embedding: torch.Tensor
    """What enters block 0: [d] for every position, or [T, d] for each its own."""
    between: Mapping[int, torch.Tensor]
    """Layer → what is added after it, for each of `Replay.between`: [d], or [prompt, d]."""

    @classmethod
    def mean(cls, replay: Replay) -> "Blank":
        """The mean image token of this trace, separators and attention sinks left out: no patch in particular, yet nothing unusual."""
        rows = _image_rows(replay.trace)
        embedding = replay.entering(0)[0, rows].float().mean(0)
        return cls(embedding, {layer: added[0, rows].float().mean(0) for layer, added in replay.between.items()})

    @classmethod
    def zero(cls, replay: Replay) -> "Blank":
        """Zeros, which no picture produces: the token keeps its share of attention and passes nothing on in block 0."""
        nothing = torch.zeros(replay.trace.states.shape[-1])
        return cls(nothing, dict.fromkeys(replay.between, nothing))

    @classmethod
    def other(cls, replay: Replay, other: Replay) -> "Blank":
        """The tokens of another picture at the same positions. Raises InterpError unless both traces have the same prompt tokens."""
        prompt = replay.prompt_length
        if replay.trace.tokens[:prompt] != other.trace.tokens[:prompt]:
            raise InterpError(
                f"The other picture becomes {len(other.trace.positions('image'))} image tokens and this one {len(replay.trace.positions('image'))}, "
                "or its prompt differs, so its patches cannot take their places. Use a picture of the same size, and the same prompt."
            )
        embedding = replay.entering(0)[0].clone()
        embedding[:prompt] = other.entering(0)[0, :prompt]
        empty = torch.zeros_like(embedding[:prompt])
        return cls(embedding, {layer: other.between[layer][0] if layer in other.between else empty for layer in replay.between})


def replaced_states(replay: Replay, sets: Sequence[Sequence[int]], by: Blank, rows: Sequence[int]) -> torch.Tensor:
    """The last layer's states at `rows`, before the final norm, with the image positions of each of `sets` replaced.

    [sets, rows, d] in the model's dtype, on the device of the last block. The answer is that of the trace (teacher forcing).
    """
    vlm = replay.trace.vlm
    changed = min((position for positions in sets for position in positions), default=0)
    start = min(replay.first_changed(changed), *rows)

    def run(less: int) -> torch.Tensor:
        size = max(1, rows_at_once(vlm, replay.trace.length - start) // less)
        batches = (sets[at : at + size] for at in range(0, len(sets), size))
        return torch.cat([_run(replay, batch, by, start)[:, [row - start for row in rows]] for batch in batches])

    with vlm.lock, torch.no_grad():
        return retry_on_oom(run, _LOWER)


def with_replaced(replay: Replay, sets: Sequence[Sequence[int]], by: Blank, tokens: Sequence[int]) -> torch.Tensor:
    """Log-probability of the answer `tokens` (positions in `trace.tokens`) with the image positions of each of `sets` replaced.

    float32 [sets, tokens] on the CPU. An empty set is the trace itself.
    """
    trace = replay.trace
    vlm, ids = trace.vlm, torch.tensor([trace.tokens[token].id for token in tokens])
    states = replaced_states(replay, sets, by, [token - 1 for token in tokens]).flatten(0, 1)
    said = ids.repeat(len(sets)).to(vlm.unembed.device)

    def read(less: int) -> torch.Tensor:
        out = torch.empty(len(states))
        for rows, logits in vlm.unembed.chunks(states, vlm.unembed.buffers(len(states), less)[0]):
            out[rows] = (logits.gather(1, said[rows, None])[:, 0] - logits.logsumexp(-1)).cpu()
        return out.view(len(sets), len(tokens))

    with vlm.lock, torch.no_grad():
        return retry_on_oom(read, _LOWER)


def _run(replay: Replay, sets: Sequence[Sequence[int]], by: Blank, start: int) -> torch.Tensor:
    hidden = _filled(replay.entering(0), sets, by.embedding)
    between = {layer: _filled(added, sets, by.between[layer]) for layer, added in replay.between.items()}
    return replay.run(hidden[:, start:], start=start, between=between)


def _filled(states: torch.Tensor, sets: Sequence[Sequence[int]], blank: torch.Tensor) -> torch.Tensor:
    """`states` [1, positions, d], once for each of `sets`, with its positions replaced."""
    out = states.repeat(len(sets), 1, 1)
    for row, positions in zip(out, sets, strict=True):
        chosen = torch.tensor(list(positions), dtype=torch.long)
        row[chosen.to(row.device)] = (blank if blank.ndim == 1 else blank[chosen.to(blank.device)]).to(row)
    return out


def _image_rows(trace: Trace) -> list[int]:
    left_out = sinks(trace, trace.residual(EMBED))
    return [row for row in trace.positions("image") if row not in left_out]
