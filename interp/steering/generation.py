"""Generating a batch of rows: shared noise, stopping, streaming, and how many rows fit into memory."""

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from ..devices import free_bytes
from ..errors import InterpError
from ..tracing.record import tokens_of
from .edits import Edit

if TYPE_CHECKING:
    from ..models.vlm import Vlm

_SHARE = 0.5  # of free memory that a batch may fill


@dataclass(frozen=True)
class Answer:
    """One generated answer."""

    text: str
    """Without special tokens."""
    ids: tuple[int, ...]
    """With the end-of-answer token, if it was generated."""
    tokens: tuple[str, ...]
    finished: bool
    """Whether the model ended it; false if `max_new_tokens` cut it off."""


def not_finite(edits: Sequence[Edit], place: str) -> InterpError:
    """The error for a row whose logits are NaN or infinite."""
    pushed = ", ".join(f"{edit.unit} {edit.value:g} on {edit.name}" for edit in edits) or "no edits"
    return InterpError(
        f"With {pushed} the model's output is not finite {place}. "
        + ("Push less: a strength of 1 is already as large as the typical residual." if edits else "Load the model in a wider dtype.")
    )


class Noise(LogitsProcessor):
    """Logits divided by the temperature plus Gumbel noise, the same for every row; the argmax is then a sample (Gumbel-max trick)."""

    def __init__(self, temperature: float, seed: int, rows: Sequence[tuple[Edit, ...]]) -> None:
        self._temperature, self._rows, self._step = temperature, rows, 0
        self.first: torch.Tensor | None = None
        """Logits at the last prompt position, without noise: [rows, vocabulary]."""
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - the signature of transformers
        """The scores with noise. Raises InterpError if they are not finite."""
        broken = (~scores.amax(-1).isfinite()).nonzero().flatten().tolist()
        if broken:
            raise not_finite(self._rows[broken[0]], f"at token {self._step} of the answer")
        if self.first is None:
            self.first = scores
        self._step += 1
        if self._temperature == 0:
            return scores
        # In float64 and relative to the largest score, any positive temperature can be divided by.
        noise = -torch.empty(scores.shape[-1], dtype=torch.float64).exponential_(generator=self._generator).log()
        return (scores - scores.amax(-1, keepdim=True)).double() / self._temperature + noise.to(scores.device)


class Stop(StoppingCriteria):
    """Ends generation for all rows when the event is set."""

    def __init__(self, event: threading.Event | None) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_kwargs: Any) -> torch.Tensor:  # noqa: ARG002 - the signature of transformers
        """Whether each row should end."""
        stopped = self._event is not None and self._event.is_set()
        return torch.full((len(input_ids),), stopped, device=input_ids.device)


class Stream(BaseStreamer):
    """Passes the growing answers of all rows to `show` after each token. The streamers in transformers do not accept batches."""

    def __init__(self, vlm: "Vlm", rows: int, show: Callable[[list[str]], None]) -> None:
        self._vlm, self._show = vlm, show
        self._ids: list[list[int]] = [[] for _ in range(rows)]
        self._begun = False

    def put(self, value: torch.Tensor) -> None:
        """Called with the prompts first, then with one id per row."""
        if self._begun:
            for ids, new in zip(self._ids, value.tolist(), strict=True):
                ids.append(new)
            self._show([answer_of(self._vlm, ids).text for ids in self._ids])
        self._begun = True

    def end(self) -> None:
        """Nothing is buffered."""


def answer_of(vlm: "Vlm", ids: list[int]) -> Answer:
    """The answer up to its end-of-answer token; what follows is padding in a row that ended before the others."""
    end = next((i for i, token in enumerate(ids) if token in vlm.end_ids), None)
    if end is not None:
        ids = ids[: end + 1]
    text = vlm.tokenizer.decode(ids, skip_special_tokens=True).strip()
    return Answer(text, tuple(ids), tuple(token.text for token in tokens_of(vlm, ids)), end is not None)


def repeated(tensors: dict[str, torch.Tensor], rows: int) -> dict[str, torch.Tensor]:
    """The inputs of one prompt, repeated for a batch of `rows`."""
    return {name: tensor.repeat(rows, *[1] * (tensor.ndim - 1)) for name, tensor in tensors.items()}


def joined(inputs: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The inputs of several prompts whose tensors have the same shapes, as one batch."""
    tensors = {name: torch.cat([each[name] for each in inputs]) for name in inputs[0]}
    if "image_token_pooling" in tensors:  # of Molmo 2: numbers of patches, counted through all pictures of a batch
        starts = itertools.accumulate((each["pixel_values"].shape[:2].numel() for each in inputs[:-1]), initial=0)
        pooled = [each["image_token_pooling"] for each in inputs]
        tensors["image_token_pooling"] = torch.cat([torch.where(at < 0, at, at + start) for at, start in zip(pooled, starts, strict=True)])
    return tensors


def rows_at_once(vlm: "Vlm", length: int) -> int:
    """How many rows of `length` positions fit into free memory, estimated from the largest tensors of a row."""
    config = vlm.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = 2 * vlm.n_layers * heads * head * vlm.model.dtype.itemsize
    inner = getattr(config, "intermediate_size", None) or config.moe_intermediate_size * config.num_experts_per_tok
    working = 4 * (8 * config.hidden_size + 3 * inner)
    logits = 4 * 3 * len(vlm.vocabulary.texts)
    return max(1, int(_SHARE * free_bytes(vlm.model.device)) // (length * (cache + working) + min(length, 256) * logits))
