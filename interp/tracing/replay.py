"""Run parts of a trace's forward pass again, with changes: from any layer, from any position, many variants as rows of a batch.

A trace holds every residual state, so a change after layer l needs only the blocks behind l. What those blocks are called with beside the
states (position embeddings, masks), and the keys and values of the positions in front of a change, come from one forward pass.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from ..errors import InterpError
from ..models.attend import Mask, Read, attending
from ..models.four_bit import differentiable
from ..models.hooks import Hooks
from ..vision.images import OpenedImage
from .trace import Trace

if TYPE_CHECKING:
    from ..models.vlm import Vlm

_CACHES = {"past_key_values", "use_cache"}
_BY_POSITION = {"position_embeddings": -2, "position_ids": -1}
"""What blocks are called with for each position, and the axis of the positions."""


@dataclass
class _Calls:
    """What every block was called with beside its states, and what stands between two blocks, in two passes: prompt, then answer."""

    kwargs: list[list[dict[str, Any]]]
    between: dict[int, torch.Tensor] = field(default_factory=dict)
    """Layer → what the model adds to the stream after it, during the prompt: [1, prompt, d]."""


@dataclass(frozen=True, eq=False)
class Replay:
    """The forward pass of `trace`, ready to be run again in parts. Made by `Replay.of`; use it while holding `vlm.lock`."""

    trace: Trace
    prompt_length: int
    masks: tuple[torch.Tensor | None, ...]
    """For each layer, where its attention may look: bool [1, 1, T, T], or None if every position reads itself and what stands before it."""
    between: Mapping[int, torch.Tensor]
    """Layer → what the model adds to the stream after it, as Qwen3-VL does with picture features: [1, prompt, d]. Empty in most families."""
    _kwargs: tuple[dict[str, Any], ...]
    _keys: tuple[tuple[torch.Tensor, torch.Tensor] | None, ...]
    """Keys and values of each layer's attention, [1, H_kv, T, width]; None for a layer without attention."""

    @classmethod
    def of(cls, trace: Trace, *, read: Read | None = None) -> "Replay":
        """Run the model on the trace's picture, prompt and answer. `read` sees the attention of every layer, prompt first, then answer."""
        vlm = trace.vlm
        inputs = vlm.prepare(OpenedImage(trace.image, trace.notes), trace.prompt)
        prompt = inputs["input_ids"].shape[1]
        ids = [token.id for token in trace.tokens[:-1]]
        if ids[:prompt] != inputs["input_ids"][0].tolist():
            raise InterpError(
                f"{vlm.name} now reads this trace's prompt as other tokens than when the trace was made. Make the trace again with this model."
            )
        linear = linear_layers(vlm)
        cache = (
            DynamicCache(config=vlm.decoder.config) if linear else DynamicCache()
        )  # without a config: whole keys under sliding windows too
        with torch.no_grad(), attending(vlm, read=read), _watching(vlm) as calls:
            first = vlm.model(**inputs.tensors, past_key_values=cache, use_cache=True, logits_to_keep=1)
            if ids[prompt:]:
                vlm.read_on(first.logits, cache, ids[prompt:], keep=1)
        layers: list[Any] = cache.layers
        return cls(
            trace=trace,
            prompt_length=prompt,
            masks=tuple(_joined_mask(passes, prompt, len(ids)) for passes in calls.kwargs),
            between=calls.between,
            _kwargs=tuple(map(_joined, calls.kwargs)),
            _keys=tuple(None if layer in linear else (kept.keys, kept.values) for layer, kept in enumerate(layers)),
        )

    @property
    def without_attention(self) -> tuple[int, ...]:
        """Layers that mix positions by other means than attention, such as the linear ones of Qwen3.5."""
        return tuple(layer for layer, keys in enumerate(self._keys) if keys is None)

    def first_changed(self, position: int) -> int:
        """The first position that a change at `position` reaches: earlier than that where attention looks ahead, as within pictures in Gemma 3."""
        if self.without_attention:
            return 0  # their state behind a prefix is not kept
        start = position
        for mask in self.masks:
            if mask is not None and mask.shape[2] > start:
                readers = mask[0, 0, :, position:].any(-1).nonzero()
                start = min(start, int(readers[0]))
        return start if start == position else self.first_changed(start)

    def run(
        self,
        hidden: torch.Tensor,
        *,
        layer: int = 0,
        start: int = 0,
        stop: int | None = None,
        mask: Mask | None = None,
        read: Read | None = None,
        between: Mapping[int, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Blocks `layer` to `stop` - 1 (the last) on `hidden` [B, T - start, d], which enters block `layer`: the states after them.

        The positions before `start` are as in the trace, for every row of the batch. `mask` and `read`: see `attending`. `between`, of
        [1 or B, prompt, d], takes the place of `self.between`. Gradients flow if they are switched on.
        """
        vlm = self.trace.vlm
        between = self.between if between is None else between
        stop = vlm.n_layers if stop is None else stop
        with attending(vlm, mask=mask, read=read), differentiable(vlm.blocks[layer:stop] if torch.is_grad_enabled() else ()):
            for index in range(layer, stop):
                prefix = _Prefix.of(self._keys[index], start) if start else None
                out = vlm.blocks[index](hidden, **self._from(index, start), past_key_values=prefix)
                hidden = out if isinstance(out, torch.Tensor) else out[0]
                if index in between and start < self.prompt_length:
                    added = between[index][:, start:].to(hidden)
                    behind = hidden[:, added.shape[1] :]
                    hidden = torch.cat([hidden[:, : added.shape[1]] + added, behind], dim=1)
        return hidden

    def entering(self, layer: int, start: int = 0) -> torch.Tensor:
        """What entered block `layer` in the trace, from position `start` on: [1, T - start, d] on the block's device."""
        vlm = self.trace.vlm
        return self.trace.residual(layer - 1)[start:][None].to(_device(vlm, layer))

    def _from(self, layer: int, start: int) -> dict[str, Any]:
        """What block `layer` is called with for the positions from `start` on."""
        mask = self.masks[layer]
        kwargs = dict(self._kwargs[layer])
        for name, axis in _BY_POSITION.items():
            if kwargs.get(name) is not None and start:
                kwargs[name] = _from(kwargs[name], axis, start)
        if mask is None and start and layer not in self.without_attention:  # only a square one may be left out
            length = self.trace.length
            mask = torch.ones(length, length, dtype=torch.bool, device=_device(self.trace.vlm, layer)).tril()[None, None]
        return {**kwargs, "attention_mask": None if mask is None else mask[:, :, start:]}


class _Prefix:
    """Stands in for the key-value cache of one block: the trace's own prefix in front of the new keys. Nothing is stored."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self._keys, self._values = keys, values

    @classmethod
    def of(cls, keys: tuple[torch.Tensor, torch.Tensor] | None, start: int) -> "_Prefix":
        assert keys is not None  # `first_changed` is 0 where a layer has none
        return cls(keys[0][:, :, :start], keys[1][:, :, :start])

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the whole sequence, for every row of the batch."""
        rows = (len(keys), -1, -1, -1)
        return torch.cat([self._keys.expand(rows), keys], dim=2), torch.cat([self._values.expand(rows), values], dim=2)


@contextlib.contextmanager
def _watching(vlm: "Vlm") -> Iterator[_Calls]:
    """Keep what every block is called with, and what the model adds between blocks."""
    calls = _Calls([[] for _ in vlm.blocks])
    handles = [
        block.register_forward_pre_hook(_keeper(kept), with_kwargs=True) for block, kept in zip(vlm.blocks, calls.kwargs, strict=True)
    ]
    left: list[torch.Tensor] = []

    def leave(hidden: torch.Tensor) -> None:
        left[:] = [hidden]

    def enter(layer: int, hidden: torch.Tensor) -> None:
        if left and hidden is not left[0] and layer not in calls.between:
            added = hidden - left[0]
            if added.any():
                calls.between[layer] = added

    try:
        with Hooks() as hooks:
            for layer, block in enumerate(vlm.blocks):
                hooks.on_output(block, leave)
                if layer + 1 < vlm.n_layers:
                    hooks.on_input(vlm.blocks[layer + 1], functools.partial(enter, layer))
            yield calls
    finally:
        for handle in handles:
            handle.remove()


def _keeper(kept: list[dict[str, Any]]) -> Callable[..., None]:
    def keep(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        kept.append({name: value for name, value in kwargs.items() if name not in _CACHES and name != "hidden_states"})

    return keep


def _joined(passes: list[dict[str, Any]]) -> dict[str, Any]:
    """What a block is called with for the whole sequence, from what it was called with for prompt and answer."""
    out = {name: value for name, value in passes[0].items() if name != "attention_mask"}
    for name, axis in _BY_POSITION.items():
        parts = [each[name] for each in passes if each.get(name) is not None]
        if len(parts) > 1:
            both = tuple(zip(*parts, strict=True)) if isinstance(parts[0], tuple) else None
            out[name] = torch.cat(parts, axis) if both is None else tuple(torch.cat(each, axis) for each in both)
    return out


def _joined_mask(passes: list[dict[str, Any]], prompt: int, length: int) -> torch.Tensor | None:
    """Where a layer's attention may look over prompt and answer. The answer is read one way."""
    masks = [each.get("attention_mask") for each in passes]
    plain = torch.ones(length, length, dtype=torch.bool).tril()
    if all(mask is None or mask.ndim != 4 for mask in masks):
        return None
    whole = plain.to(next(mask.device for mask in masks if mask is not None)).clone()
    if masks[0] is not None:
        whole[:prompt, :prompt] = masks[0][0, 0]
    if len(masks) > 1 and masks[1] is not None:
        whole[prompt:] = masks[1][0, 0]
    return None if whole.equal(plain.to(whole.device)) else whole[None, None]


def _from(value: Any, axis: int, start: int) -> Any:
    """A tensor, or a tuple of tensors, from index `start` of its `axis` on."""
    if isinstance(value, tuple):
        return tuple(_from(part, axis, start) for part in value)
    return value.narrow(axis, start, value.shape[axis] - start)


def _device(vlm: "Vlm", layer: int) -> torch.device:
    return next(vlm.blocks[layer].parameters()).device


def linear_layers(vlm: "Vlm") -> set[int]:
    """Layers whose block has no attention over keys."""
    kinds = getattr(vlm.decoder.config, "layer_types", None) or []
    return {layer for layer, kind in enumerate(kinds) if kind == "linear_attention"}
