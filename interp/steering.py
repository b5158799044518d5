"""Steering: answer with features turned up or down, beside the plain answer, in one batched generation.

Row 0 of the batch is the plain run; every other row has its own edits, added by hooks after their blocks. A sweep is one such batch. What the
edits do to the model is then read from a second pass over the plain answer. Knows edits and models; knows nothing of pages.
"""

import difflib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from .devices import with_less
from .edits import Edit, Scale, checked_value
from .errors import InterpError
from .generation import Answer, Noise, Stop, Stream, answer_of, not_finite, repeated, rows_at_once
from .hooks import Applied, Hooks
from .sae import plain_name
from .trace import Prompt, Trace, plainly, record, tokens_of

if TYPE_CHECKING:
    from .model import Inputs, Vlm

STRENGTHS = (-0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5)
_LOWER = "Lower max_new_tokens or the number of strengths, take a smaller picture, load the model with quantize='4bit', or choose a smaller model."


class StoppedError(InterpError):
    """A run that its caller stopped."""


@dataclass(frozen=True)
class Steered:
    """A plain and a steered answer to one picture and prompt."""

    model_name: str
    prompt: str
    plain_answer: Answer
    steered_answer: Answer
    applied: tuple[Applied, ...]
    kl: tuple[float, ...]
    """KL(plain || steered) in nats at each position of the plain answer, both reading the plain answer; kl[0] is the first answer token."""
    words: dict[str, tuple[tuple[float, ...], tuple[float, ...]]]
    """Word → its probability (all single-token spellings) plain and steered, at the same positions as `kl`."""
    notes: tuple[str, ...] = ()

    @property
    def plain(self) -> str:
        """The answer without edits."""
        return self.plain_answer.text

    @property
    def steered(self) -> str:
        """The answer with all edits."""
        return self.steered_answer.text

    @property
    def fired(self) -> tuple[int, ...]:
        """How many positions each edit changed."""
        return tuple(applied.fired for applied in self.applied)

    @property
    def diff(self) -> list[dict[str, str]]:
        """Token by token: pieces {"op": "equal" | "replace" | "delete" | "insert", "plain": text, "steered": text} in order."""
        plain, steered = self.plain_answer, self.steered_answer
        matcher = difflib.SequenceMatcher(a=plain.ids, b=steered.ids, autojunk=False)
        return [
            {"op": op, "plain": "".join(plain.tokens[a:b]), "steered": "".join(steered.tokens[c:d])}
            for op, a, b, c, d in matcher.get_opcodes()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON types."""
        return {
            "schema": "llava-microscope/steering/1",
            "model": self.model_name,
            "prompt": self.prompt,
            "plain": self.plain,
            "steered": self.steered,
            "plain_finished": self.plain_answer.finished,
            "steered_finished": self.steered_answer.finished,
            "diff": self.diff,
            "tokens": list(self.plain_answer.tokens),
            "kl": list(self.kl),
            "words": {word: {"plain": list(plain), "steered": list(steered)} for word, (plain, steered) in self.words.items()},
            "edits": [applied.to_dict() for applied in self.applied],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Sweep:
    """The same edit at several values."""

    values: tuple[float, ...]
    """Of `edit`'s unit."""
    edit: Edit
    runs: tuple[Steered, ...]
    """One for each value."""

    def to_list(self) -> list[dict[str, Any]]:
        """One {strength (or the edit's own unit), answer, kl} for each value; kl is the mean over the plain answer's positions, in nats."""
        return [
            {self.edit.unit: value, "answer": run.steered, "kl": sum(run.kl) / len(run.kl), "relative": run.applied[0].relative}
            for value, run in zip(self.values, self.runs, strict=True)
        ]


def steer(
    vlm: "Vlm",
    image: Any,
    prompt: str,
    edits: Sequence[Edit],
    *,
    max_new_tokens: int = 32,
    temperature: float = 0,
    seed: int = 0,
    words: Sequence[str] = (),
    on_text: Callable[[list[str]], None] | None = None,
    stop: threading.Event | None = None,
) -> Steered:
    """Answer plainly and with all `edits` together, in one batch.

    Edits of one layer all read the same state and their changes are added: their order means nothing. `temperature` 0 is greedy; above it,
    both answers are sampled with the same noise at every step, drawn from `seed`. `words`: words whose probability is wanted at every
    position of the plain answer. `on_text` gets [plain, steered] so far after every token; setting `stop` ends the run with `StoppedError`.

    Raises InterpError for what `Vlm.prepare` refuses, no edits, edits that do not fit the model or each other, an edit that would never act,
    an answer that is not finite, and words of several tokens.
    """
    _check(vlm, edits)
    run = _Run(vlm, image, prompt, max_new_tokens, temperature, seed, words, on_text, stop)
    return run.all([tuple(edits)])[0]


def steer_sweep(
    vlm: "Vlm",
    image: Any,
    prompt: str,
    edit: Edit,
    strengths: Sequence[float] = STRENGTHS,
    *,
    others: Sequence[Edit] = (),
    max_new_tokens: int = 32,
    temperature: float = 0,
    seed: int = 0,
    words: Sequence[str] = (),
    on_text: Callable[[list[str]], None] | None = None,
    stop: threading.Event | None = None,
) -> Sweep:
    """One edit at several values, each with its own answer, in one batch beside the plain one.

    Each of `strengths` takes the place of the edit's own strength, amount or target, whichever it has. `others` are applied, unchanged, with
    every value. `on_text` gets the plain answer and one for each value. The rest is as for `steer`.
    """
    if not isinstance(strengths, Sequence) or isinstance(strengths, str) or not strengths:
        raise InterpError(f"strengths is {strengths!r}; it must be a list of numbers, such as {list(STRENGTHS)}.")
    _check(vlm, [edit, *others])
    for value in strengths:
        checked_value(edit.unit, value)
    run = _Run(vlm, image, prompt, max_new_tokens, temperature, seed, words, on_text, stop)
    runs = run.all([(edit.with_value(value), *others) for value in strengths])
    return Sweep(tuple(strengths), edit, tuple(runs))


def steered_trace(trace: Trace, edits: Sequence[Edit], answer: Answer) -> Trace:
    """Every layer of a steered run: `answer`, made by `steer` with these edits on the picture and prompt of the plain `trace`.

    For a lens of the steered run beside the plain one. The states are those after the edits.
    """
    vlm = trace.vlm
    _check(vlm, edits)
    with vlm.lock:
        inputs = vlm.prepare(trace.image, trace.prompt, notes=list(trace.notes))
        prompt = prompt_of(vlm, inputs)
        layers = {edit.at for edit in edits}
        scales: dict[int, Scale | None] = {layer: Scale.of(prompt, trace.residual(layer)[: prompt.length]) for layer in layers}

        def run(_less: int) -> Trace:
            with Hooks(vlm, prompt, [tuple(edits)], scales):
                return record(vlm, inputs, max_new_tokens=0, answer=torch.tensor(answer.ids))

        return with_less(run, _LOWER)


def _check(vlm: "Vlm", edits: Sequence[Edit]) -> None:
    if not isinstance(edits, Sequence):
        raise InterpError(f"edits is one {type(edits).__name__}; it must be a list of Edits.")
    if not edits:
        raise InterpError("There are no edits: name at least one feature or vector and how far to push it.")
    for edit in edits:
        if not isinstance(edit, Edit):
            raise InterpError(f"A {type(edit).__name__} is no Edit; make one with interp.Edit(sae=..., feature=..., strength=...).")
        if len(edit.direction) != vlm.width:
            raise InterpError(
                f"{edit.name} has width {len(edit.direction)}; the residual stream of {vlm.name} has width {vlm.width}. "
                f"Choose a direction made for this model."
            )
        if not 0 <= edit.at < vlm.depth:
            raise InterpError(f"{edit.name} acts after layer {edit.at}; {vlm.name} has layers 0 to {vlm.depth - 1}.")
    own = {plain_name(name) for name in vlm.names}  # it may be called one thing by an SAE and another by a contrast
    models = {vlm.name if plain_name(edit.model_name) in own else plain_name(edit.model_name) for edit in edits if edit.model_name}
    if len(models) > 1:
        raise InterpError(f"The edits belong to different models ({', '.join(sorted(models))}); choose directions of one model.")


def prompt_of(vlm: "Vlm", inputs: "Inputs") -> Prompt:
    """The positions of prepared inputs."""
    ids = inputs["input_ids"][0].tolist()
    return Prompt(tuple(tokens_of(vlm, ids, inputs.layout, len(ids))), inputs.layout.grids)


@dataclass(frozen=True)
class _Run:
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

    def all(self, sets: Sequence[tuple[Edit, ...]]) -> list[Steered]:
        """One plain row and one row for each set, in as few batches as the memory allows."""
        vlm, new = self.vlm, self.max_new_tokens
        if not isinstance(new, int) or isinstance(new, bool) or new < 1:
            raise InterpError(f"max_new_tokens is {new!r}; it must be a whole number of at least 1.")
        checked_value("temperature", self.temperature)
        if self.temperature < 0:
            raise InterpError(f"temperature is {self.temperature!r}; it must be 0 (greedy) or more.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise InterpError(f"seed is {self.seed!r}; it must be a whole number from 0 on.")
        if isinstance(self.words, str) or not all(isinstance(word, str) for word in self.words):
            raise InterpError(f"words is {self.words!r}; it must be a list of words.")
        ids = {word: list(vlm.vocabulary.resolve(word, vlm.tokenizer).values()) for word in self.words}
        with vlm.lock, torch.inference_mode():
            return with_less(lambda less: self._run(sets, ids, less), _LOWER)

    def _run(self, sets: Sequence[tuple[Edit, ...]], words: dict[str, list[int]], less: int) -> list[Steered]:
        """All rows, in batches of `less` times fewer than the memory should allow."""
        vlm = self.vlm
        rows: list[tuple[Edit, ...]] = [(), *sets]
        texts = [""] * len(rows)
        answers: list[Answer] = []
        applied: list[tuple[Applied, ...]] = []
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

            with Hooks(vlm, prompt, batch, scales) as hooks:
                answers += self._generate(inputs, batch, show)
            applied += hooks.applied([len(answer.ids) for answer in answers[start:]])
        read = self._read(inputs, prompt, rows, scales, answers[0], words, step)
        notes = inputs.notes + _notes(sets[0], vlm)
        return [
            Steered(vlm.name, self.prompt, answers[0], answer, did, kl, {word: (read[0][1][word], p[word]) for word in words}, notes)
            for answer, did, (kl, p) in zip(answers[1:], applied[1:], read[1:], strict=True)
        ]

    def _generate(self, inputs: "Inputs", rows: Sequence[tuple[Edit, ...]], show: Callable[[list[str]], None]) -> list[Answer]:
        vlm = self.vlm
        length = inputs["input_ids"].shape[1]
        with plainly(vlm):
            out: Any = vlm.model.generate(
                **repeated(inputs.tensors, len(rows)),
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                logits_processor=LogitsProcessorList([Noise(self.temperature, self.seed, rows)]),
                stopping_criteria=StoppingCriteriaList([Stop(self.stop)]),
                streamer=Stream(vlm, len(rows), show) if self.on_text else None,
            )
        if self.stop is not None and self.stop.is_set():
            raise StoppedError("The run was stopped.")
        new: torch.Tensor = out[:, length:]
        return [answer_of(vlm, ids) for ids in new.tolist()]

    def _read(
        self,
        inputs: "Inputs",
        prompt: Prompt,
        rows: Sequence[tuple[Edit, ...]],
        scales: dict[int, Scale | None],
        plain: Answer,
        words: dict[str, list[int]],
        step: int,
    ) -> list[tuple[tuple[float, ...], dict[str, tuple[float, ...]]]]:
        """KL and words' probabilities of every row, all reading the plain answer."""
        vlm = self.vlm
        found: list[tuple[tuple[float, ...], dict[str, tuple[float, ...]]]] = []
        reference: torch.Tensor | None = None
        for start in range(0, len(rows), step):
            batch = rows[start : start + step]
            with Hooks(vlm, prompt, batch, scales):
                logits = vlm.read(repeated(inputs.tensors, len(batch)), plain.ids[:-1])
            for row in logits:
                logs = row.float().log_softmax(-1)
                if reference is None:
                    reference = logs
                # Rounding can leave a KL of nothing a hair below 0.
                kl = (reference.exp() * (reference - logs)).sum(-1).clamp(min=0)
                if not kl.isfinite().all():
                    raise not_finite(rows[len(found)], "where it reads the plain answer")
                found.append((tuple(kl.tolist()), {w: tuple(logs[:, i].exp().sum(-1).tolist()) for w, i in words.items()}))
        return found


def _notes(edits: Sequence[Edit], vlm: "Vlm") -> tuple[str, ...]:
    saes = {id(edit.sae): edit.sae for edit in edits if edit.sae is not None}.values()
    return tuple(dict.fromkeys(note for sae in saes for note in sae.notes_for(vlm.names)))
