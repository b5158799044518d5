"""Recording: run a model once, with its own or a forced answer, and keep the residual stream of every layer and position as a `Trace`."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from ..devices import retry_on_oom
from ..models.hooks import Hooks
from ..validation import function, text, whole_number
from ..vision.grids import Layout
from .trace import Kind, Token, Trace

if TYPE_CHECKING:
    from ..models.vlm import Inputs, Vlm

LOWER = "Lower max_new_tokens, take a smaller picture, load the model with quantize='4bit', or choose a smaller model."
"""Advice for a trace that runs out of memory."""


class _States:
    """The residual stream of every layer in one tensor, filled step by step."""

    def __init__(self, n_layers: int, capacity: int) -> None:
        self._capacity = capacity
        self._states: torch.Tensor | None = None
        self._filled = [0] * (n_layers + 1)

    def write(self, index: int, hidden: torch.Tensor) -> None:
        """Append a state [1, positions, d] to row `index`: 0 for what enters block 0, then one for each layer."""
        if self._states is None:
            # A tensor made in inference mode could never take part in autograd.
            with torch.inference_mode(mode=False):
                self._states = torch.empty(len(self._filled), self._capacity, hidden.shape[-1], dtype=hidden.dtype)
        start, count = self._filled[index], hidden.shape[1]
        self._states[index, start : start + count].copy_(hidden[0])
        self._filled[index] = start + count

    def of_length(self, length: int) -> torch.Tensor:
        """[layers + 1, length, d]. Raises RuntimeError unless exactly `length` positions have passed every layer."""
        if self._states is None or set(self._filled) != {length}:
            raise RuntimeError(f"hooks saw {sorted(set(self._filled))} positions where {length} entered the model")
        # The copy frees the memory that a shorter answer did not need.
        return self._states if length == self._capacity else self._states[:, :length].clone()


@contextlib.contextmanager
def _recording(vlm: "Vlm", capacity: int) -> Iterator[_States]:
    """Record up to `capacity` positions of the runs within the block."""
    states = _States(vlm.n_layers, capacity)
    with Hooks() as hooks:
        for layer in range(-1, vlm.n_layers):
            vlm.on_layer(hooks, layer, functools.partial(states.write, layer + 1))
        yield states


class _Stream(BaseStreamer):
    """Passes the growing answer to `on_text` after each token."""

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None]) -> None:
        self._tokenizer, self._on_text = tokenizer, on_text
        self._ids: list[int] | None = None

    def put(self, value: torch.Tensor) -> None:
        """Called with the prompt first, then with one id at a time."""
        if self._ids is None:
            self._ids = []
            return
        self._ids.extend(value.flatten().tolist())
        self._on_text(self._tokenizer.decode(self._ids, skip_special_tokens=True).strip())

    def end(self) -> None:
        """Nothing is buffered."""


def trace(
    vlm: "Vlm",
    image: Any,
    prompt: str,
    *,
    max_new_tokens: int,
    answer: str | None,
    on_text: Callable[[str], None] | None,
) -> Trace:
    """See `Vlm.trace`."""
    max_new_tokens = whole_number("max_new_tokens", max_new_tokens, 1, vlm.context, hint=f"the context of {vlm.name}")
    if answer is not None:
        text("answer", answer)
    function("on_text", on_text)
    inputs = vlm.prepare(image, prompt)

    def run(_less: int) -> Trace:
        return record(vlm, inputs, max_new_tokens=max_new_tokens, answer=answer, on_text=on_text)

    return retry_on_oom(run, LOWER)


def record(
    vlm: "Vlm",
    inputs: "Inputs",
    *,
    max_new_tokens: int,
    answer: str | torch.Tensor | None = None,
    on_text: Callable[[str], None] | None = None,
) -> Trace:
    """Run the model once on prepared inputs and keep every layer. A forced answer may be text, or ids with the end-of-answer token."""
    prompt_ids = inputs.tensors["input_ids"]
    length = prompt_ids.shape[1]
    tokenizer = vlm.tokenizer
    vlm.check_length(length, max_new_tokens if answer is None else 0)
    with vlm.lock, greedy(vlm), torch.inference_mode():
        if answer is None:
            with _recording(vlm, length + max_new_tokens - 1) as recorded:
                ids = vlm.model.generate(
                    **inputs.tensors,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    streamer=_Stream(tokenizer, on_text) if on_text else None,
                )[0]
        else:
            forced = vlm.answer_ids(inputs, answer) if isinstance(answer, str) else answer
            ids = torch.cat([prompt_ids[0], forced.to(prompt_ids.device)])
            vlm.check_length(len(ids) - 1, 0)
            with _recording(vlm, len(ids) - 1) as recorded:
                vlm.read(inputs.tensors, ids[length:-1].tolist(), keep=1)
    states = recorded.of_length(len(ids) - 1)
    answer_ids = ids[length:].tolist()
    layout: Layout = inputs.layout
    return Trace(
        image=inputs.image,
        prompt=inputs.prompt,
        answer=tokenizer.decode(answer_ids, skip_special_tokens=True).strip(),
        finished=answer_ids[-1] in vlm.end_ids,
        tokens=tuple(tokens_of(vlm, ids.tolist(), layout, length)),
        grids=layout.grids,
        views=layout.views,
        states=states,
        model_name=vlm.name,
        notes=inputs.notes,
        regions=layout.regions,
        _vlm=vlm,
    )


@contextlib.contextmanager
def greedy(vlm: "Vlm") -> Iterator[None]:
    """Generate without the penalties and suppressed tokens a checkpoint may set, so that the answer is the last layer's argmax."""
    own = vlm.model.generation_config
    ends = sorted(vlm.end_ids) or None
    vlm.model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=own.pad_token_id, bos_token_id=own.bos_token_id)
    try:
        yield
    finally:
        vlm.model.generation_config = own


def tokens_of(vlm: "Vlm", ids: list[int], layout: Layout | None = None, prompt_length: int = 0) -> list[Token]:
    """Text and kind of each id; those from `prompt_length` on are the answer.

    Between the first and last image token, special tokens and placeholders that show no part of the picture (such as the newline after a
    row of tiles) are separators.
    """
    special, texts = vlm.special_ids, vlm.vocabulary.texts
    placed = layout.placed if layout is not None else set()
    first, last = min(placed, default=0), max(placed, default=-1)
    out = []
    for position, i in enumerate(ids):
        kind: Kind = "prompt" if position < prompt_length else "answer"
        if position in placed:
            kind = "image"
        elif position < prompt_length and i == vlm.image_token_id:
            kind = "separator"
        elif i in special:
            kind = "separator" if first < position < last else "special"
        out.append(Token(i, texts[i] if i < len(texts) else vlm.tokenizer.convert_ids_to_tokens(i), kind))
    return out
