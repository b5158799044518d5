"""One layer's states over whole prompts with their pictures, many samples in a pass that ends at that layer; over the model's own answers too, if asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..concepts.samples import Sample
from ..devices import retry_on_oom
from ..errors import InterpError
from ..models.hooks import Hooks
from ..models.vlm import Inputs, Vlm
from ..steering.generation import answer_of, joined, rows_at_once
from ..tracing.record import greedy, tokens_of
from ..tracing.trace import Prompt
from ..validation import shown

_TOGETHER = 16  # samples in a pass; more gain little
_STATES_BYTES = 24 << 20  # of float32 states in a pass on a CPU, which needs about ten times as much
_LOWER = "Load the model with --quantize 4bit, or take a smaller model or smaller pictures."


class _Reached(Exception):  # noqa: N818 - it is no error
    """The layer was reached: nothing behind it is needed."""


@dataclass(frozen=True)
class Read:
    """Samples of the same length as the model read them together."""

    numbers: tuple[int, ...]
    """Within the samples given."""
    inputs: tuple[Inputs, ...]
    states: torch.Tensor
    """[samples, T, d] on the model's device, in its own dtype. T counts the longest answer; what stands behind a shorter one means nothing."""
    answers: tuple[tuple[int, ...], ...]
    """The ids of each answer, the end-of-answer token included; empty if none was asked for."""

    def each(self, vlm: Vlm) -> Iterator[tuple[int, Prompt, torch.Tensor]]:
        """Each sample's number, the tokens that entered the model, and their states [T, d] on the CPU. An answer's last token never enters."""
        for number, inputs, answer, states in zip(self.numbers, self.inputs, self.answers, self.states.cpu(), strict=True):
            ids = inputs["input_ids"][0].tolist()
            tokens = tokens_of(vlm, [*ids, *answer[:-1]], inputs.layout, len(ids))
            yield number, Prompt(tuple(tokens), inputs.layout.grids), states[: len(tokens)]


def prompt_states(vlm: Vlm, samples: Sequence[Sample], layer: int, new: int = 0) -> Iterator[Read]:
    """The states of a layer for each sample, over its prompt and a greedy answer of up to `new` tokens.

    Samples whose inputs have the same shapes share a pass, so nothing is padded. Raises InterpError, naming the sample, for one that cannot be read.
    """
    alike: dict[object, list[tuple[int, Inputs]]] = {}
    for number, sample in enumerate(samples):
        try:
            inputs = vlm.prepare(sample.picture, sample.prompt)
        except InterpError as error:
            raise InterpError(f"Sample {shown(sample.id)}: {error}") from error
        key = tuple((name, tensor.shape) for name, tensor in inputs.items())
        batch = alike.setdefault(key, [])
        batch.append((number, inputs))
        if len(batch) >= _most(vlm, inputs["input_ids"].shape[1], new):
            yield from _read(vlm, alike.pop(key), layer, new)
    for batch in alike.values():
        yield from _read(vlm, batch, layer, new)


def _most(vlm: Vlm, length: int, new: int) -> int:
    """How many samples of this length make a pass."""
    fit = _TOGETHER
    if vlm.model.device.type == "cpu" and not new:  # a long prompt keeps a CPU busy by itself; a step of an answer does not
        fit = max(1, _STATES_BYTES // (4 * length * vlm.d_model))
    return min(_TOGETHER, fit, rows_at_once(vlm, length + new))


def _read(vlm: Vlm, batch: Sequence[tuple[int, Inputs]], layer: int, new: int) -> Iterator[Read]:
    def run(less: int) -> list[Read]:
        step = -(-len(batch) // less)
        return [_together(vlm, batch[at : at + step], layer, new) for at in range(0, len(batch), step)]

    return iter(retry_on_oom(run, _LOWER))


def _together(vlm: Vlm, batch: Sequence[tuple[int, Inputs]], layer: int, new: int) -> Read:
    tensors = joined([inputs for _, inputs in batch])
    kept: list[torch.Tensor] = []
    answers: tuple[tuple[int, ...], ...] = ((),) * len(batch)

    def keep(hidden: torch.Tensor) -> None:
        kept.append(hidden.detach())
        if not new:
            raise _Reached

    with vlm.lock, torch.inference_mode():
        try:
            with Hooks() as hooks:
                vlm.on_layer(hooks, layer, keep)
                if new:
                    answers = _answered(vlm, tensors, new)
                else:
                    vlm.model(**tensors, use_cache=False, logits_to_keep=1)
        except _Reached:
            pass
        states = torch.cat(kept, 1)
    numbers, inputs = zip(*batch, strict=True)
    return Read(numbers, inputs, states, answers)


def _answered(vlm: Vlm, tensors: dict[str, torch.Tensor], new: int) -> tuple[tuple[int, ...], ...]:
    with greedy(vlm):
        ids = vlm.model.generate(**tensors, max_new_tokens=new, do_sample=False)
    return tuple(answer_of(vlm, row).ids for row in ids[:, tensors["input_ids"].shape[1] :].tolist())
