"""What the page and the API ask of steering: answers, sweeps, the editor of edits, and which of a visitor's runs may be stopped.

Plain functions over a `Service` that take plain values and raise InterpError. Knows nothing of gradio.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InterpError
from ..lens.logit_lens import Lens
from ..saes.features import Encoding
from ..steering.edits import Edit
from ..steering.results import SteeringResult, Sweep
from ..steering.steer import steer, steer_sweep, steered_trace
from ..tracing.trace import Trace
from ..validation import whole_number
from ..web.payloads.edits import Chip, EditsPayload, edits_payload, found_chips, renewed
from .edit_requests import edits_from, linked_chip
from .service import MAX_NEW_TOKENS, Service, given, matching
from .zerogpu import on_gpu, seconds

MAX_SWEEP = 16  # values in one sweep
MAX_WORDS = 8  # watched while steering
OnText = Callable[[list[str]], None]
_WATCHED = 3  # words, where nobody says which


@dataclass(frozen=True)
class SteerRun:
    """A steered answer with the plain trace of the same input, which a lens of the steered run needs."""

    steered: SteeringResult
    trace: Callable[[], Trace]


class SteerService:
    """Steering with a service's model and SAEs."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._running: dict[str, threading.Event] = {}

    def edits(self, items: Any, model: str | None = None, sae: str | None = None) -> list[Edit]:
        """Edits from dictionaries as `/steer` takes them. `sae`: of those that name none."""
        name = self._service.vlm(model).name
        return edits_from(items, lambda own: self._service.sae(own or sae, name))

    def steer(
        self,
        image: Any,
        prompt: str,
        model: str | None,
        edits: Sequence[Edit],
        *,
        max_new_tokens: float = 32,
        temperature: float = 0,
        seed: float = 0,
        words: str = "",
        on_text: OnText | None = None,
        stop: threading.Event | None = None,
    ) -> SteeringResult:
        """The plain and the steered answer. `words`: to watch, with commas between them."""
        sampling = _sampling(max_new_tokens, temperature, seed)
        how = {"words": _words(words), "on_text": on_text, "stop": stop, "allow": seconds(sampling["max_new_tokens"], rows=2), **sampling}
        return on_gpu(steer, self._service.vlm(model), given(image), prompt, edits, **how)

    def sweep(
        self,
        image: Any,
        prompt: str,
        model: str | None,
        edit: Edit,
        values: Any,
        *,
        others: Sequence[Edit] = (),
        max_new_tokens: float = 32,
        temperature: float = 0,
        seed: float = 0,
        on_text: OnText | None = None,
        stop: threading.Event | None = None,
    ) -> Sweep:
        """One edit at several values, `others` unchanged beside it."""
        if not isinstance(values, list) or not 1 <= len(values) <= MAX_SWEEP:
            raise InterpError(f"strengths is {values!r}; it must be a list of 1 to {MAX_SWEEP} numbers, such as [-0.5, 0, 0.5].")
        sampling = _sampling(max_new_tokens, temperature, seed)
        allow = seconds(sampling["max_new_tokens"], rows=len(values) + 1)
        how = {"others": others, "on_text": on_text, "stop": stop, "allow": allow, **sampling}
        return on_gpu(steer_sweep, self._service.vlm(model), given(image), prompt, edit, values, **how)

    def editor(self, trace: Trace, run: str, sae: str | None, current: dict[str, Any] | None) -> EditsPayload:
        """The editor of edits for a trace, with the edits that it held before if they belong to the same model."""
        chips = current["edits"] if current and current["model"] == trace.model_name else []
        about: dict[str, Any] = {
            "model": trace.model_name,
            "names": trace.vlm.names,
            "run": run,
            "swept": current["swept"] if current and chips else 0,
        }
        if not sae and not self._service.saes(trace.model_name):
            return edits_payload(trace, None, chips, **about)
        encoding = self._service.features(trace, sae, where="all", top_k=1).encoding
        return on_gpu(_renewed_editor, trace, encoding, chips, allow=seconds(), **about)

    def linked_editor(self, state: dict[str, Any]) -> EditsPayload:
        """The editor with the edits of a link, before there is a trace. Raises InterpError for edits that could not be applied."""
        model = state.get("model") or self._service.default_model
        if model != self._service.default_model and not self._service.can_switch:
            raise InterpError(f"This link is for {model!r}; this server runs {self._service.default_model!r} only.")
        items = state.get("edits")
        chips = [linked_chip(item, lambda name: self._service.sae(name, model)) for item in items] if isinstance(items, list) else []
        swept = whole_number("swept", state.get("swept", 0), 0, max(0, len(chips) - 1))
        return edits_payload(None, None, chips, model=model, swept=swept)

    def steerable(self, run: str, text: str, sae: str | None = None) -> dict[str, Any]:
        """Features of an SAE by number or label, as chips that can be added to the edits of this run's picture."""
        lens = self._service.remembered(run, Lens)
        encoding = self._service.features(lens.trace, sae, where="all", top_k=1).encoding
        chosen, note = matching(encoding.sae, text)
        chips = on_gpu(found_chips, encoding, chosen, allow=seconds())
        return {"features": sorted(chips, key=lambda chip: -(chip["max"] or 0)), "note": note}

    def watchable(self, model: str, labels: Iterable[str]) -> str:
        """Those of these labels that are one word of the model, to be watched while steering."""
        vlm, words = self._service.vlm(model), []
        for label in dict.fromkeys(labels):
            with contextlib.suppress(InterpError):
                vlm.vocabulary.resolve(label, vlm.tokenizer)
                words.append(label)
        return ", ".join(words[:_WATCHED])

    def both_lenses(self, run: str) -> tuple[Lens, Lens]:
        """The lenses of the plain and of the steered run of a steered answer."""
        plain, steered = map(self._service.read, self.both_traces(run))
        return plain, steered

    def both_traces(self, run: str) -> tuple[Trace, Trace]:
        """The plain and the steered trace of a steered answer."""
        kept = self._service.remembered(run, SteerRun)
        plain = kept.trace()
        edits, answer = [applied.edit for applied in kept.steered.applied], kept.steered.steered_answer
        return plain, on_gpu(steered_trace, plain, edits, answer, allow=seconds(len(answer.ids)))

    @contextlib.contextmanager
    def running(self, visitor: str | None) -> Iterator[threading.Event]:
        """An event that `stop` sets for this visitor, and that is set when the block is left, so that nothing goes on without a reader."""
        event = threading.Event()
        if visitor is not None:
            self._running[visitor] = event
        try:
            yield event
        finally:
            event.set()
            if visitor is not None and self._running.get(visitor) is event:
                del self._running[visitor]

    def stop(self, visitor: str | None) -> None:
        """End what this visitor's page is waiting for."""
        if visitor is not None and (event := self._running.get(visitor)):
            event.set()


def _renewed_editor(trace: Trace, encoding: Encoding, chips: Sequence[Chip], **about: Any) -> EditsPayload:
    return edits_payload(trace, encoding, renewed(chips, encoding), **about)


def _words(text: str) -> tuple[str, ...]:
    if not isinstance(text, str):
        raise InterpError(f"words is {text!r}; it must be words with commas between them.")
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if len(words) > MAX_WORDS:
        raise InterpError(f"words names {len(words)} words; at most {MAX_WORDS} can be watched.")
    return words


def _sampling(max_new_tokens: float, temperature: float, seed: float) -> dict[str, Any]:
    return {
        "max_new_tokens": whole_number("max_new_tokens", max_new_tokens, 1, MAX_NEW_TOKENS),
        "temperature": temperature,
        "seed": whole_number("seed", seed, 0, 2**32 - 1),
    }
