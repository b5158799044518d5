"""One picture and prompt, answered with many sets of edits in one batch; each row is then teacher-forced on the plain answer.

The prompt is processed once: the cache that generation filled is cropped back to it for the second pass.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from ..devices import retry_on_oom
from ..errors import InterpError
from ..tracing.record import greedy, tokens_of
from ..tracing.trace import Prompt
from ..validation import finite_number, function, instance, sequence, text, whole_number
from .edit_hooks import EditEffect, EditHooks
from .edits import Edit, Scale, positions_of
from .generation import Answer, Noise, Stop, Stream, answer_of, not_finite, repeated, rows_at_once
from .results import SteeringResult

if TYPE_CHECKING:
    from ..models.vlm import Inputs, Vlm

_LOWER = "Lower max_new_tokens or the number of strengths, take a smaller picture, load the model with quantize='4bit', or choose a smaller model."


class StoppedError(InterpError):
    """The caller stopped the run."""


def check_stop(stop: threading.Event | None) -> None:
    """Raise StoppedError once `stop` is set."""
    if stop is not None and stop.is_set():
        raise StoppedError("The run was stopped.")


def prompt_of(vlm: "Vlm", inputs: "Inputs") -> Prompt:
    """The positions of prepared inputs."""
    ids = inputs["input_ids"][0].tolist()
    return Prompt(tuple(tokens_of(vlm, ids, inputs.layout, len(ids))), inputs.layout.grids)


@dataclass(frozen=True)
class SteeringBatch:
    """One picture and prompt, answered with many sets of edits."""

    vlm: "Vlm"
    image: Any
    prompt: str
    max_new_tokens: int
    temperature: float
    seed: int
    words: Sequence[str]
    on_text: Callable[[list[str]], None] | None
    stop: threading.Event | None

    def __post_init__(self) -> None:
        context = self.vlm.context
        checked = {
            "prompt": text("prompt", self.prompt),
            "max_new_tokens": whole_number("max_new_tokens", self.max_new_tokens, 1, context, hint=f"the context of {self.vlm.name}"),
            "temperature": finite_number("temperature", self.temperature, 0),
            "seed": whole_number("seed", self.seed, 0, 2**63 - 1),
            "words": tuple(text("words", word) for word in sequence("words", self.words, "words", empty=True)),
        }
        function("on_text", self.on_text)
        if self.stop is not None:
            instance("stop", self.stop, threading.Event, "a threading.Event, or None")
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # normalised once, here

    def answer(self, sets: Sequence[tuple[Edit, ...]]) -> list[SteeringResult]:
        """One plain row and one row for each set of edits, in as few batches as memory allows."""
        vlm = self.vlm
        words = {word: list(vlm.vocabulary.resolve(word, vlm.tokenizer).values()) for word in self.words}
        with vlm.lock, torch.inference_mode():
            return retry_on_oom(lambda less: self._run(sets, words, less), _LOWER)

    def _run(self, sets: Sequence[tuple[Edit, ...]], words: dict[str, list[int]], less: int) -> list[SteeringResult]:
        """All rows, in batches `less` times smaller than memory should allow."""
        vlm = self.vlm
        rows: list[tuple[Edit, ...]] = [(), *sets]
        texts = [""] * len(rows)
        answers: list[Answer] = []
        applied: list[tuple[EditEffect, ...]] = []
        found: list[_Reading] = []
        reference: torch.Tensor | None = None
        inputs = vlm.prepare(self.image, self.prompt)
        prompt = prompt_of(vlm, inputs)
        vlm.check_length(prompt.length, self.max_new_tokens)
        step = max(1, min(len(rows), rows_at_once(vlm, prompt.length + self.max_new_tokens)) // less)
        scales: dict[int, Scale | None] = dict.fromkeys(edit.at for edits in sets for edit in edits)
        for start in range(0, len(rows), step):
            batch = rows[start : start + step]

            def show(written: list[str], start: int = start) -> None:
                texts[start : start + len(written)] = written
                if self.on_text:
                    self.on_text(list(texts))

            with EditHooks(vlm, prompt, batch, scales) as hooks:
                said, first, cache = self._generate(inputs, batch, show)
            answers += said
            applied += hooks.applied([len(answer.ids) for answer in said])
            for row in self._read(inputs, prompt, batch, scales, answers[0].ids[:-1], first, cache):
                logs = row.float().log_softmax(-1)
                if reference is None:
                    reference = logs
                found.append(_Reading.of(logs, reference, words, rows[len(found)]))
            del first, cache  # frees memory for the next batch
        plain, *others = found
        return [
            SteeringResult(
                vlm.name,
                self.prompt,
                answers[0],
                answer,
                did,
                read.kl,
                {w: (plain.words[w], read.words[w]) for w in words},
                inputs.notes + _notes(edits, vlm, prompt, scales),
            )
            for edits, answer, did, read in zip(sets, answers[1:], applied[1:], others, strict=True)
        ]

    def _generate(
        self, inputs: "Inputs", rows: Sequence[tuple[Edit, ...]], show: Callable[[list[str]], None]
    ) -> tuple[list[Answer], torch.Tensor, Any]:
        """Answers, logits at the last prompt position [rows, 1, vocabulary], and the key-value cache of everything."""
        vlm = self.vlm
        noise = Noise(self.temperature, self.seed, rows)
        with greedy(vlm):
            out: Any = vlm.model.generate(
                **repeated(inputs.tensors, len(rows)),
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                logits_processor=LogitsProcessorList([noise]),
                stopping_criteria=StoppingCriteriaList([Stop(self.stop)]),
                streamer=Stream(vlm, len(rows), show) if self.on_text else None,
                return_dict_in_generate=True,
            )
        check_stop(self.stop)
        new: torch.Tensor = out.sequences[:, inputs["input_ids"].shape[1] :]
        assert noise.first is not None
        return [answer_of(vlm, ids) for ids in new.tolist()], noise.first[:, None], out.past_key_values

    def _read(
        self,
        inputs: "Inputs",
        prompt: Prompt,
        rows: Sequence[tuple[Edit, ...]],
        scales: dict[int, Scale | None],
        plain: Sequence[int],
        first: torch.Tensor,
        cache: Any,
    ) -> torch.Tensor:
        """Logits of every row, teacher-forced on the plain answer: [rows, positions, vocabulary]."""
        vlm = self.vlm
        if not plain:
            return first
        try:
            cache.crop(prompt.length - cache.get_seq_length())
        except RuntimeError:  # a sliding window or a recurrent state cannot be cropped: process the prompt again
            with EditHooks(vlm, prompt, rows, scales):
                return vlm.read(repeated(inputs.tensors, len(rows)), plain)
        with EditHooks(vlm, prompt, rows, scales, begin=prompt.length):
            return vlm.read_on(first, cache, plain)


@dataclass(frozen=True)
class _Reading:
    """What one row predicts at each position of the plain answer."""

    kl: tuple[float, ...]
    words: dict[str, tuple[float, ...]]

    @classmethod
    def of(cls, logs: torch.Tensor, plain: torch.Tensor, words: dict[str, list[int]], edits: tuple[Edit, ...]) -> "_Reading":
        """From the log probabilities [positions, vocabulary] of this row and of the plain row."""
        kl = (plain.exp() * (plain - logs)).sum(-1).clamp(min=0)  # rounding can make a zero KL slightly negative
        if not kl.isfinite().all():
            raise not_finite(edits, "when it reads the plain answer")
        return cls(tuple(kl.tolist()), {word: tuple(logs[:, ids].exp().sum(-1).tolist()) for word, ids in words.items()})


def _notes(edits: Sequence[Edit], vlm: "Vlm", prompt: Prompt, scales: dict[int, Scale | None]) -> tuple[str, ...]:
    """Warnings about these edits: SAEs of other models, and edits that nothing reads."""
    saes = {id(edit.sae): edit.sae for edit in edits if edit.sae is not None}.values()
    notes = [note for sae in saes for note in sae.notes_for(vlm.names)]
    last = vlm.n_layers - 1
    for edit in edits:
        scale = scales[edit.at]
        if edit.at == last and scale is not None:
            inside, on_answer = positions_of(edit, prompt, scale)
            if not on_answer and prompt.length - 1 not in inside:
                notes.append(
                    f"{edit.name} is edited after the last layer ({last}), at positions that predict no token of the answer: the answer and its "
                    "probabilities cannot change. Choose an earlier layer, or where='answer'."
                )
    return tuple(dict.fromkeys(notes))
