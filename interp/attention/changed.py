"""What a change inside the model does to an answer: to the words it said, and to what it says instead."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch.nn.functional import logsigmoid
from transformers import DynamicCache

from ..steering.generation import Answer, answer_of
from ..steering.results import difference
from ..tracing.record import greedy
from ..tracing.replay import Replay
from ..tracing.trace import Trace
from ..vision.images import OpenedImage

_NEW = 32  # tokens that an answer may have if the plain one ended by itself sooner
_ROWS = 64  # whose logits are held at once


@dataclass(frozen=True, eq=False)
class Changed:
    """An answer's words without and with a change, each in its place behind the words before it (teacher forcing)."""

    trace: Trace
    tokens: tuple[int, ...]
    """Positions in `trace.tokens`."""
    probability: tuple[torch.Tensor, torch.Tensor]
    """Of each token, plain and changed: float32 [tokens] on the CPU."""
    log_odds: tuple[torch.Tensor, torch.Tensor]
    """log p / (1 - p), likewise: unlike probabilities, comparable between words that are certain and words that are not."""
    kl: torch.Tensor
    """KL(plain || changed) of the row that emits each token, in nats: float32 [tokens] on the CPU."""
    plain_answer: Answer
    answer: Answer | None
    """What the model answers with the change, word after word its own; None if it was not asked for."""

    @property
    def diff(self) -> list[dict[str, str]]:
        """The two answers token by token, as `SteeringResult.diff`; empty if there is no second one."""
        return [] if self.answer is None else difference(self.plain_answer, self.answer)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON types."""
        return {
            "model": self.trace.model_name,
            "prompt": self.trace.prompt,
            "tokens": [
                {"position": token, "text": self.trace.tokens[token].text, "kl": kl}
                | {"probability": list(probability), "log_odds": list(log_odds)}
                for token, kl, probability, log_odds in zip(
                    self.tokens, self.kl.tolist(), _pairs(self.probability), _pairs(self.log_odds), strict=True
                )
            ],
            "plain": self.plain_answer.text,
            "plain_finished": self.plain_answer.finished,
            "answer": None if self.answer is None else self.answer.text,
            "finished": None if self.answer is None else self.answer.finished,
            "diff": self.diff,
        }


@dataclass(frozen=True, eq=False)
class Scores:
    """Figures of variants, as in `Changed`: float32 [variants, tokens] on the CPU."""

    log_odds: torch.Tensor
    kl: torch.Tensor
    top: torch.Tensor
    """The most probable id: int64 [variants, tokens] on the CPU."""

    @property
    def log_probability(self) -> torch.Tensor:
        """In nats; finite where the probability itself is too small for a float."""
        return logsigmoid(self.log_odds)


def scores(trace: Trace, states: torch.Tensor, tokens: Sequence[int]) -> Scores:
    """Of the trace itself first, then of each variant in `states` [variants, tokens, d]: last-layer states at the rows that emit `tokens`."""
    vlm = trace.vlm
    own = trace.residual(trace.n_layers - 1)[[token - 1 for token in tokens]]
    said = torch.tensor([trace.tokens[token].id for token in tokens])
    every = torch.cat([own[None], states.to(own)]).flatten(0, 1)
    parts = []
    with vlm.lock, torch.no_grad():
        for rows in torch.arange(len(every)).split(_ROWS):
            which = rows % len(tokens)
            parts.append(_scores(vlm.unembed.logits(own[which]), vlm.unembed.logits(every[rows]), said[which]))
    return Scores(*(torch.cat(part).view(-1, len(tokens)) for part in zip(*parts, strict=True)))


def _scores(plain: torch.Tensor, logits: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Log p / (1 - p) of the ids, and the divergence from `plain`."""
    before, after = plain.log_softmax(-1), logits.log_softmax(-1)
    kl = (before.exp() * (before - after)).sum(-1).clamp(min=0)
    ids = ids.to(logits.device)[:, None]
    others = logits.scatter(-1, ids, -torch.inf).logsumexp(-1)  # 1 - p would be 0 for a word that is certain
    return (logits.gather(-1, ids)[:, 0] - others).cpu(), kl.cpu(), logits.argmax(-1).cpu()


class Figures(TypedDict):
    """The fields of a `Changed`."""

    trace: Trace
    tokens: tuple[int, ...]
    probability: tuple[torch.Tensor, torch.Tensor]
    log_odds: tuple[torch.Tensor, torch.Tensor]
    kl: torch.Tensor
    plain_answer: Answer
    answer: Answer | None


def figures(trace: Trace, tokens: Sequence[int], found: Scores, answer: Answer | None) -> Figures:
    """Of one variant, whose scores are `found` and whose new answer is `answer`."""
    (plain, changed), (odds, changed_odds) = found.log_probability.exp(), found.log_odds
    return {
        "trace": trace,
        "tokens": tuple(tokens),
        "probability": (plain, changed),
        "log_odds": (odds, changed_odds),
        "kl": found.kl[1],
        "plain_answer": own_answer(trace),
        "answer": answer,
    }


def longest_answer(trace: Trace) -> int:
    """How many tokens a new answer may have: as many as the trace's, and at least 32 if that ended by itself."""
    said = len(trace.tokens) - trace.answer_start
    return min(max(said, _NEW), trace.vlm.context - trace.answer_start) if trace.finished else said


def own_answer(trace: Trace) -> Answer:
    """The trace's answer."""
    return answer_of(trace.vlm, [token.id for token in trace.tokens[trace.answer_start :]])


def answer_within(replay: Replay, change: contextlib.AbstractContextManager[Any]) -> Answer:
    """What the model answers, greedily, while `change` is in force."""
    trace, vlm = replay.trace, replay.trace.vlm
    inputs = vlm.prepare(OpenedImage(trace.image, trace.notes), trace.prompt)
    # Without a config the cache keeps all keys, also under sliding windows, so that a key's place in it is its position.
    cache = DynamicCache(config=vlm.decoder.config) if replay.without_attention else DynamicCache()
    with vlm.lock, torch.inference_mode(), greedy(vlm), change:
        ids = vlm.model.generate(**inputs.tensors, past_key_values=cache, max_new_tokens=longest_answer(trace), do_sample=False)[0]
    return answer_of(vlm, ids[replay.prompt_length :].tolist())


def _pairs(both: tuple[torch.Tensor, torch.Tensor]) -> list[tuple[float, float]]:
    return list(zip(both[0].tolist(), both[1].tolist(), strict=True))
