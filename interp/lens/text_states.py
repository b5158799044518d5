"""The states of text in a decoder, which lenses are trained on and indices are made of: one pass without a picture."""

import functools
from collections.abc import Iterable, Sequence

import torch

from ..models.hooks import Hooks
from ..models.vlm import Vlm


def text_states(vlm: Vlm, rows: Sequence[Sequence[int]], layers: Iterable[int]) -> dict[int, torch.Tensor]:
    """The states of some layers at rows of token ids: by layer, [rows, longest, d] on the model's device. What follows the end of a row means nothing."""
    longest = max(map(len, rows))
    # Padded on the right, where causal attention of the text never looks.
    ids = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows], device=vlm.model.device)
    states: dict[int, torch.Tensor] = {}

    def keep(layer: int, hidden: torch.Tensor) -> None:
        states[layer] = hidden.detach()

    with vlm.lock, torch.inference_mode(), Hooks() as hooks:
        for layer in layers:
            vlm.on_layer(hooks, layer, functools.partial(keep, layer))
        vlm.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
    return states


def sixteen(states: torch.Tensor) -> torch.Tensor:
    """In float16, or bfloat16 where a value is too large."""
    half = states.half()
    return half if half.isfinite().all() else states.bfloat16()
