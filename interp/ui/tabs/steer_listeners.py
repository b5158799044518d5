"""The listeners of the tab "Steer"."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ...errors import InterpError
from ...lens.lens import Lens
from ...service.questions import Questions
from ...service.requests import SETTINGS, SteerRequest, TraceRequest
from ...service.service import Service
from ...service.steer_service import SteerRun, SteerService
from ...service.streaming import Done, stream
from ...steering.batch import StoppedError
from ...steering.edits import Edit
from ...steering.results import SteeringResult, Sweep
from ...web.payloads.edits import requests
from ...web.payloads.steer import SweepPayload, running_payload, running_sweep, steer_payload, sweep_payload
from ..components.downloads import switched
from ..components.edits_view import EditsView
from ..components.lens_view import LensView
from ..components.messages import FAILED, FIRST_SAE, message
from ..components.steer_view import SteerView
from ..controls import Updates, Values, named
from ..snippets import snippet


@dataclass(frozen=True)
class SteerParts:
    """The components that the listeners read and update."""

    run_key: gr.State
    """The key of the last run's lens."""
    sae: gr.Dropdown
    settings: Mapping[str, Any]
    """By field name of `SteerRequest`."""
    edits: EditsView
    message: gr.HTML
    view: SteerView
    key: gr.State
    """The key of the steered answer shown."""
    code: gr.Code
    downloads: list[gr.Button]
    plain_lens: LensView
    steered_lens: LensView


@dataclass(frozen=True)
class Asked:
    """One press of the button: the editor's value, and the settings by field name of `SteerRequest`."""

    editor: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def chips(self) -> list[dict[str, Any]]:
        """All edits, including those switched off."""
        chips: list[dict[str, Any]] = self.editor.get("edits", [])
        return chips

    @property
    def labels(self) -> dict[tuple[str, int], str]:
        """The labels of the edited features."""
        return {(chip["sae"], chip["feature"]): str(chip["label"]) for chip in self.chips}

    @property
    def swept(self) -> int:
        """The chip that the sweep varies: the chosen one if it is on, else the first that is."""
        on = [i for i, chip in enumerate(self.chips) if chip.get("on", True)]
        swept: int = self.editor.get("swept", 0)
        return swept if swept in on else on[0]


class SteerListeners:
    """The tab's listeners. Each takes the values of its inputs and returns or yields updates."""

    def __init__(self, service: Service, steering: SteerService, questions: Questions, parts: SteerParts) -> None:
        self._service, self._steering, self._questions, self._parts = service, steering, questions, parts

    def _asked(self, values: Values) -> Asked:
        settings = named(self._parts.settings, values)
        return Asked(values[self._parts.edits] or {}, {**settings, "seed": settings["seed"] or 0, "sweep": bool(settings["sweep"])})

    def after_run(self, values: Values, request: gr.Request) -> Iterator[Updates]:
        """As `look`, then `answer` if any edit is on."""
        for step in self.look(values):
            yield step
            values = {**values, **step}
        if requests(self._asked(values).chips):
            yield from self.answer(values, request)

    def look(self, values: Values) -> Iterator[Updates]:
        """Update the editor for the last run and the chosen SAE: the same edits, with their features' activations on this picture."""
        parts, service = self._parts, self._service
        run, sae, editor = values[parts.run_key], values[parts.sae], values[parts.edits]
        if run is None:
            yield {parts.message: ""}
            return
        try:
            trace = service.remembered(run, Lens).trace
            if editor and editor["run"] == run and service.saes.meant(sae, trace.model_name) == (editor["sae"] or {}).get("name", ""):
                yield {parts.message: ""}
                return
            if service.saes.names(trace.model_name) and not service.saes.holds(sae, trace.model_name):
                yield {parts.message: FIRST_SAE}
            yield {parts.message: "", parts.edits: self._steering.editor(trace, run, sae, editor)}
        except InterpError as error:
            yield {parts.message: message(str(error), error=True)}

    def answer(self, values: Values, request: gr.Request) -> Iterator[Updates]:
        """The plain and the steered answer, then the sweep."""
        parts, asked = self._parts, self._asked(values)
        if not requests(asked.chips):
            yield {parts.message: message("No edit is on. Add a feature or choose a preset.", error=True)}
            return
        shown: Any = None
        try:
            # Closed, and the run ended, as soon as the visitor leaves.
            with contextlib.closing(self._answered(asked, request)) as steps:
                for step in steps:
                    shown = step.get(parts.view, shown)
                    yield step
        except StoppedError:
            stopped = {parts.message: message("Stopped. The answer so far stays.")}
            yield {**stopped, parts.view: {**shown, "state": "stopped"}} if shown else stopped
        except InterpError as error:
            yield {parts.message: message(str(error), error=True)}
        except Exception:
            yield {parts.message: FAILED}
            raise

    def _answered(self, asked: Asked, request: gr.Request) -> Generator[Updates, None, None]:
        parts, steering, edits = self._parts, self._steering, requests(asked.chips)
        yield {parts.message: message("Steering …")}
        ask = SteerRequest.of(asked.settings)
        with steering.runs.running(request.session_hash) as stop:
            made = steering.edits(edits, ask.model)
            words = ask.words.strip() or steering.watchable(ask.model, asked.labels.values())
            watched = dataclasses.replace(ask, words=words)
            sweep = self._sweep(asked, ask) if ask.sweep else None
            waiting = sweep.shown([""] * len(sweep.values)) if sweep else None
            for step in stream(lambda show: steering.steer(watched, made, on_text=show, stop=stop)):
                if not isinstance(step, Done):
                    yield {parts.view: running_payload(ask.model, ask.prompt, ask.sampling, *step, sweep=waiting)}
            steered: SteeringResult = step.result
            # With the path of the picture: a decoded one is large.
            plain = TraceRequest(asked.settings["image"], ask.prompt, ask.model, ask.max_new_tokens)
            key = self._service.remember(SteerRun(steered, plain))
            shown = steer_payload(steered, ask.sampling, asked.labels, run=key, sweep=waiting)
            yield {
                parts.message: message("Sweeping …") if sweep else "",
                parts.view: shown,
                parts.key: key,
                parts.code: _snippet(asked, ask, edits, request),
                **switched(parts.downloads, on=True),
            }
            if sweep:
                for step in stream(lambda show: sweep.run(steering, ask, show, stop)):
                    if isinstance(step, Done):
                        part = sweep_payload(step.result, asked.labels, current=sweep.current)
                        yield {parts.message: "", parts.view: {**shown, "sweep": part}}
                    else:
                        yield {parts.view: {**shown, "sweep": sweep.shown(step[1:])}}

    def _sweep(self, asked: Asked, ask: SteerRequest) -> "_Sweeping":
        """The sweep of the chosen chip; the other edits stay as they are."""
        chip = asked.chips[asked.swept]
        others = requests(other for i, other in enumerate(asked.chips) if i != asked.swept)
        edit, *unchanged = self._steering.edits([*requests([chip]), *others], ask.model)
        return _Sweeping(edit, unchanged, sweep_values(chip), float(chip["value"]), asked.labels)

    def lenses(self, key: str | None) -> Updates:
        """The lenses of the plain and the steered run."""
        parts, view = self._parts, self._questions.lens_view
        nothing = {parts.plain_lens: None, parts.steered_lens: None}
        if key is None:
            return {parts.message: message("Steer first.", error=True), **nothing}
        try:
            plain, steered = self._steering.both_lenses(key)
        except InterpError as error:
            return {parts.message: message(str(error), error=True), **nothing}
        return {
            parts.message: "",
            parts.plain_lens: view(plain),
            parts.steered_lens: view(steered),
        }

    def linked(self, values: Values) -> dict[str, Any]:
        """What a link to this state holds."""
        asked, kept = self._asked(values), ("sae", "feature", "unit", "value", "where", "on")
        return {
            **{name: asked.settings[name] for name in SETTINGS},
            "edits": [{name: chip[name] for name in kept} for chip in asked.chips],
            "swept": asked.editor.get("swept", 0),
        }

    def empty(self, editor: dict[str, Any] | None) -> Updates:
        """Remove all edits and the result."""
        emptied = editor and {**editor, "edits": [], "swept": 0}
        return {self._parts.edits: emptied, self._parts.view: None, self._parts.message: ""}

    def stop(self, request: gr.Request) -> None:
        """Stop this visitor's run."""
        self._steering.runs.stop(request.session_hash)


@dataclass(frozen=True)
class _Sweeping:
    """One edit at several values, before and while it runs."""

    edit: Edit
    others: list[Edit]
    values: list[float]
    current: float
    labels: dict[tuple[str, int], str]

    def run(self, steering: SteerService, ask: SteerRequest, show: Callable[[Any], None], stop: threading.Event) -> Sweep:
        return steering.sweep(ask, self.edit, self.values, others=self.others, on_text=show, stop=stop)

    def shown(self, answers: list[str]) -> SweepPayload:
        """Its part of the view, with the answers so far."""
        return running_sweep(self.edit, self.values, answers, self.labels, others=len(self.others), current=self.current)


def pick(editor: dict[str, Any], event: gr.SelectData) -> dict[str, Any]:
    """Set the swept edit to the value chosen in the sweep."""
    chips = [dict(chip) for chip in editor["edits"]]
    chips[editor["swept"]]["value"] = float(event.value)
    return {**editor, "edits": chips}


def sweep_values(chip: dict[str, Any]) -> list[float]:
    """A chip's value and seven values around it."""
    value, largest = float(chip["value"]), chip.get("max") or 10.0
    if chip["unit"] == "target":
        values = [largest * share for share in (-1, -0.5, 0, 0.5, 1, 1.5, 2)]
    else:
        reach = max(abs(value), 0.5 if chip["unit"] == "strength" else largest)
        values = [reach * share for share in (-1, -0.5, -0.25, 0, 0.25, 0.5, 1)]
    return sorted({float(f"{v:.3g}") for v in values} | {value})


def _snippet(asked: Asked, ask: SteerRequest, edits: list[dict[str, Any]], request: gr.Request) -> str:
    """Python code that gets the same result from this server."""
    arguments = {"prompt": ask.prompt, "model": ask.model, "edits": edits, **ask.sampling}
    return snippet(
        request, "/steer", asked.settings["image"], arguments, result="result", then='print(result["plain"], "->", result["steered"])'
    )
