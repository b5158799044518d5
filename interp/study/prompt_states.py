"""One layer's states over whole prompts with their pictures, many samples in a pass that ends at that layer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..concepts.samples import Sample
from ..devices import retry_on_oom
from ..errors import InterpError
from ..models.hooks import Hooks
from ..models.vlm import Inputs, Vlm
from ..steering.generation import joined, rows_at_once
from ..validation import shown

_TOGETHER = 16  # samples in a pass; more gain little
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
    """[samples, T, d] on the model's device, in its own dtype."""


def prompt_states(vlm: Vlm, samples: Sequence[Sample], layer: int) -> Iterator[Read]:
    """The states of a layer for each sample.

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
        if len(batch) >= min(_TOGETHER, rows_at_once(vlm, inputs["input_ids"].shape[1])):
            yield from _read(vlm, alike.pop(key), layer)
    for batch in alike.values():
        yield from _read(vlm, batch, layer)


def _read(vlm: Vlm, batch: Sequence[tuple[int, Inputs]], layer: int) -> Iterator[Read]:
    def run(less: int) -> list[Read]:
        step = -(-len(batch) // less)
        return [_together(vlm, batch[at : at + step], layer) for at in range(0, len(batch), step)]

    return iter(retry_on_oom(run, _LOWER))


def _together(vlm: Vlm, batch: Sequence[tuple[int, Inputs]], layer: int) -> Read:
    tensors = joined([inputs for _, inputs in batch])
    kept: list[torch.Tensor] = []

    def keep(hidden: torch.Tensor) -> None:
        kept.append(hidden.detach())
        raise _Reached

    with vlm.lock, torch.inference_mode():
        try:
            with Hooks() as hooks:
                vlm.on_layer(hooks, layer, keep)
                vlm.model(**tensors, use_cache=False, logits_to_keep=1)
        except _Reached:
            pass
    numbers, inputs = zip(*batch, strict=True)
    return Read(numbers, inputs, kept[0])
