"""Steering for the page and the API: answers, sweeps, the contents of the edits editor, and stopping a run."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InterpError
from ..lens.lens import Lens
from ..saes.features import Encoding
from ..steering.edits import Edit
from ..steering.results import SteeringResult, Sweep
from ..steering.steer import steer, steer_sweep, steered_trace
from ..tracing.trace import Trace
from ..validation import sequence, shown, whole_number
from ..web.payloads.edits import Chip, EditsPayload, edits_payload, found_chips, renewed
from .edit_requests import MAX_EDITS, edits_from, linked_chip
from .questions import matching
from .requests import Ranking, SteerRequest, TraceRequest
from .runs import Runs
from .service import Service
from .zerogpu import on_gpu, seconds

MAX_SWEEP = 16  # values in one sweep
MAX_WORDS = 8  # watched while steering
OnText = Callable[[list[str]], None]
_WATCHED = 3  # words watched by default


@dataclass(frozen=True)
class SteerRun:
    """A steered answer, and the request for the plain trace of the same input, needed for a lens of the steered run."""

    steered: SteeringResult
    plain: TraceRequest


class SteerService:
    """Steering with a service's model and SAEs."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.runs = Runs()

    def edits(self, items: Any, model: str = "", sae: str = "") -> list[Edit]:
        """Edits from dictionaries as `/steer` takes them. `sae`: for those that name no SAE."""
        name = self.service.vlm(model).name
        return edits_from(items, lambda own: self.service.saes.get(own or sae, name))

    def steer(
        self, request: SteerRequest, edits: Sequence[Edit], *, on_text: OnText | None = None, stop: threading.Event | None = None
    ) -> SteeringResult:
        """The plain and the steered answer."""
        how = {"words": _words(request.words), "on_text": on_text, "stop": stop, **request.sampling}
        allow = seconds(request.max_new_tokens, rows=2)
        return on_gpu(steer, self.service.vlm(request.model), request.image, request.prompt, edits, allow=allow, **how)

    def sweep(
        self,
        request: SteerRequest,
        edit: Edit,
        values: Any,
        *,
        others: Sequence[Edit] = (),
        on_text: OnText | None = None,
        stop: threading.Event | None = None,
    ) -> Sweep:
        """One edit at several values; `others` stay as they are."""
        if len(sequence("strengths", values, f"1 to {MAX_SWEEP} numbers, such as [-0.5, 0, 0.5]")) > MAX_SWEEP:
            raise InterpError(f"strengths has {len(values)} entries; it must have at most {MAX_SWEEP}.")
        how = {"others": others, "on_text": on_text, "stop": stop, **request.sampling}
        allow = seconds(request.max_new_tokens, rows=len(values) + 1)
        return on_gpu(steer_sweep, self.service.vlm(request.model), request.image, request.prompt, edit, values, allow=allow, **how)

    def editor(self, trace: Trace, run: str, sae: str | None, current: dict[str, Any] | None) -> EditsPayload:
        """The editor's contents for a trace; its current edits stay if they belong to the same model."""
        chips = current["edits"] if current and current["model"] == trace.model_name else []
        about: dict[str, Any] = {
            "model": trace.model_name,
            "names": trace.vlm.names,
            "run": run,
            "swept": current["swept"] if current and chips else 0,
        }
        if not sae and not self.service.saes.names(trace.model_name):
            return edits_payload(trace, None, chips, **about)
        return on_gpu(_renewed_editor, trace, self._encoding(trace, sae), chips, allow=seconds(), **about)

    def linked_editor(self, state: dict[str, Any]) -> EditsPayload:
        """The editor's contents from a link, before there is a trace. Raises InterpError for edits that cannot be applied."""
        model = state.get("model") or self.service.default_model
        if model != self.service.default_model and not self.service.can_switch:
            raise InterpError(f"This link is for {shown(model)}; this server runs only {self.service.default_model}.")
        items = state.get("edits")
        chips = [linked_chip(item, lambda name: self.service.saes.get(name, model)) for item in items] if isinstance(items, list) else []
        swept = whole_number("swept", state.get("swept", 0), 0, max(0, len(chips) - 1))
        return edits_payload(None, None, chips, model=model, swept=swept)

    def steerable(self, run: str, text: str, sae: str | None = None) -> dict[str, Any]:
        """Features of an SAE by number or label, as chips to add to the edits.

        "all": chips that switch off the features with `text` as a whole word in their name, the most active first, at most `MAX_EDITS`.
        """
        encoding = self._encoding(self.service.remembered(run, Lens).trace, sae)
        chosen, note = matching(encoding.sae, text)
        chips = on_gpu(found_chips, encoding, chosen, allow=seconds())
        off = on_gpu(found_chips, encoding, encoding.sae.labels.named(text), allow=seconds())
        return {
            "features": sorted(chips, key=_most_active),
            "all": [{**chip, "unit": "target", "value": 0.0, "where": "image"} for chip in sorted(off, key=_most_active)[:MAX_EDITS]],
            "note": note,
        }

    def _encoding(self, trace: Trace, sae: str | None) -> Encoding:
        return self.service.features(trace, Ranking(sae or "", where="all", top_k=1)).encoding

    def watchable(self, model: str, labels: Iterable[str]) -> str:
        """The labels that are a single token of the model, to be watched while steering."""
        vlm, words = self.service.vlm(model), []
        for label in dict.fromkeys(labels):
            with contextlib.suppress(InterpError):
                vlm.vocabulary.resolve(label, vlm.tokenizer)
                words.append(label)
        return ", ".join(words[:_WATCHED])

    def both_lenses(self, run: str | None) -> tuple[Lens, Lens]:
        """The lens that the model opens with, of the plain and of the steered run."""
        plain, steered = (self.service.read(trace, method="") for trace in self.both_traces(run))
        return plain, steered

    def both_traces(self, run: str | None) -> tuple[Trace, Trace]:
        """The traces of the plain and the steered run."""
        kept = self.service.remembered(run, SteerRun)
        plain = self.service.trace(kept.plain)
        edits, answer = [applied.edit for applied in kept.steered.applied], kept.steered.steered_answer
        return plain, on_gpu(steered_trace, plain, edits, answer, allow=seconds(len(answer.ids)))


def _most_active(chip: Chip) -> float:
    return -(chip["max"] or 0)


def _renewed_editor(trace: Trace, encoding: Encoding, chips: Sequence[Chip], **about: Any) -> EditsPayload:
    return edits_payload(trace, encoding, renewed(chips, encoding), **about)


def _words(text: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if len(words) > MAX_WORDS:
        raise InterpError(f"words has {len(words)} entries; at most {MAX_WORDS} words can be watched.")
    return words
