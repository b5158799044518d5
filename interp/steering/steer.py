"""Steering: answer with features turned up or down, beside the plain answer, in one batched generation.

Row 0 of the batch is the plain run; every other row has its own edits, added by hooks after their blocks: one edit at several values in a sweep,
or many edits beside each other. The KL divergence is then measured in a second pass, teacher-forced on the plain answer. This module checks the arguments; `batch` runs them.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..devices import retry_on_oom
from ..errors import InterpError
from ..models.vlm import Vlm
from ..saes.sae import plain_name
from ..tracing.record import LOWER, record
from ..tracing.trace import Trace
from ..validation import index, instance, sequence, whole_numbers
from ..vision.images import OpenedImage
from .batch import SteeringBatch, prompt_of
from .edit_hooks import EditHooks
from .edits import Edit, Scale
from .generation import Answer
from .results import SteeringResult, Sweep

STRENGTHS = (-0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5)


def steer(
    vlm: Vlm,
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
) -> SteeringResult:
    """The plain answer, and the answer with all `edits` together, in one batch.

    Edits of one layer all read the same state and their changes are added, so their order does not matter. `temperature` 0 is greedy; above it,
    both answers are sampled with the same noise at every step, drawn from `seed`. `words`: words whose probability to report at
    every position of the plain answer. `on_text` gets [plain, steered] so far after every token; setting `stop` ends the run with `StoppedError`.

    Raises InterpError for what `Vlm.prepare` refuses, no edits, edits that do not fit the model or each other, an edit without
    positions, logits that are not finite, and words of several tokens.
    """
    together = _checked(vlm, edits)
    run = SteeringBatch(vlm, image, prompt, max_new_tokens, temperature, seed, words, on_text, stop)
    return run.answer([together])[0]


def steer_sweep(
    vlm: Vlm,
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

    Each of `strengths` replaces the edit's own strength, amount or target, whichever it has. `others` are applied unchanged beside every
    value. `on_text` gets the plain answer and one answer per value. Everything else is as in `steer`.
    """
    swept, *beside = _checked(vlm, [edit, *sequence("others", others, "Edits", empty=True)])
    edits = [swept.with_value(value) for value in sequence("strengths", strengths, f"numbers, such as {list(STRENGTHS)}")]
    run = SteeringBatch(vlm, image, prompt, max_new_tokens, temperature, seed, words, on_text, stop)
    runs = run.answer([(each, *beside) for each in edits])
    return Sweep(tuple(each.value for each in edits), swept, tuple(runs))


def steer_each(
    vlm: Vlm,
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
) -> list[SteeringResult]:
    """The answer with each of `edits` alone, such as many features of one SAE, in one batch beside the plain one.

    Gives what `steer` gives for each of them; the plain answer is the same in all results. `on_text` gets the plain answer and one answer for
    each edit. Everything else is as in `steer`.
    """
    each = _checked(vlm, edits)
    run = SteeringBatch(vlm, image, prompt, max_new_tokens, temperature, seed, words, on_text, stop)
    return run.answer([(edit,) for edit in each])


def steered_trace(trace: Trace, edits: Sequence[Edit], answer: Answer) -> Trace:
    """Every layer of a steered run: `answer`, made by `steer` with these edits on the picture and prompt of the plain `trace`.

    For a lens of the steered run beside the plain one. The states are those after the edits.
    """
    vlm = instance("trace", trace, Trace, "a Trace, as Vlm.trace returns").vlm
    together = _checked(vlm, edits)
    said = whole_numbers("answer", instance("answer", answer, Answer, "the answer of a SteeringResult").ids)
    for token in said:
        index("Token", token, 0, len(vlm.vocabulary.texts) - 1, f"{vlm.name} has {len(vlm.vocabulary.texts)}, and `answer` must be its own")
    with vlm.lock:
        inputs = vlm.prepare(OpenedImage(trace.image, trace.notes), trace.prompt)
        prompt = prompt_of(vlm, inputs)
        layers = {edit.at for edit in together}
        scales: dict[int, Scale | None] = {layer: Scale.of(prompt, trace.residual(layer)[: prompt.length]) for layer in layers}

        def run(_less: int) -> Trace:
            with EditHooks(vlm, prompt, [together], scales):
                return record(vlm, inputs, max_new_tokens=0, answer=torch.tensor(said))

        return retry_on_oom(run, LOWER)


def _checked(vlm: Vlm, edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """The edits, all of them fit for this model."""
    instance("vlm", vlm, Vlm, "a Vlm, as interp.load(...) returns")
    edits = tuple(sequence("edits", edits, "Edits", empty=True))
    if not edits:
        raise InterpError("There are no edits: name at least one feature or vector and how far to push it.")
    for edit in edits:
        instance("One of edits", edit, Edit, "an Edit, made with interp.Edit(sae=..., feature=..., strength=...)")
        if len(edit.direction) != vlm.d_model:
            raise InterpError(
                f"{edit.name} has width {len(edit.direction)}; the residual stream of {vlm.name} has width {vlm.d_model}. "
                f"Choose a direction made for this model."
            )
        if not 0 <= edit.at < vlm.n_layers:
            raise InterpError(f"{edit.name} acts after layer {edit.at}; {vlm.name} has layers 0 to {vlm.n_layers - 1}.")
    own = {plain_name(name) for name in vlm.names}  # it may be called one thing by an SAE and another by a contrast
    models = {vlm.name if plain_name(edit.model_name) in own else plain_name(edit.model_name) for edit in edits if edit.model_name}
    if len(models) > 1:
        raise InterpError(f"The edits belong to different models ({', '.join(sorted(models))}); choose directions of one model.")
    return edits
