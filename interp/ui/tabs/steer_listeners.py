"""What happens when something is pressed in the tab "Steer": plain methods and generators that gradio calls. Knows no layout."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ...errors import InterpError
from ...lens.logit_lens import Lens
from ...presets import ASSETS
from ...service.service import Service
from ...service.steer_service import SteerRun, SteerService
from ...service.streaming import Done, stream
from ...steering.batch import StoppedError
from ...steering.edits import Edit
from ...steering.results import SteeringResult, Sweep
from ...web.payloads.edits import requests
from ...web.payloads.lens import lens_payload
from ...web.payloads.steer import SweepPayload, running_payload, running_sweep, steer_payload, sweep_payload
from .. import share
from ..components.inputs import FAILED, address, message, switched

TAB = "Steer"
EXAMPLES = ASSETS / "examples"
Editor = dict[str, Any] | None
"""The value of the editor of edits."""


@dataclass(frozen=True)
class SteerRequest:
    """One press of the button: the editor and everything beside it."""

    editor: dict[str, Any]
    image: str | None
    prompt: str
    model: str
    max_new_tokens: int
    temperature: float
    seed: int
    words: str
    sweep: bool

    @classmethod
    def of(cls, values: tuple[Any, ...]) -> "SteerRequest":
        """From the values of the components, in the order of the fields."""
        editor, image, prompt, model, new, temperature, seed, words, sweep = values
        return cls(editor or {}, image, prompt, model, int(new), temperature, int(seed or 0), words or "", bool(sweep))

    @property
    def chips(self) -> list[dict[str, Any]]:
        """The edits, those that are switched off too."""
        return self.editor.get("edits", [])

    @property
    def labels(self) -> dict[tuple[str, int], str]:
        """What the edited features are called."""
        return {(chip["sae"], chip["feature"]): str(chip["label"]) for chip in self.chips}

    @property
    def swept(self) -> int:
        """The chip that the sweep varies: the chosen one, else the first that is switched on."""
        on = [i for i, chip in enumerate(self.chips) if chip.get("on", True)]
        return self.editor.get("swept", 0) if self.editor.get("swept", 0) in on else on[0]

    @property
    def sampling(self) -> dict[str, Any]:
        """How answers are generated."""
        return {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature, "seed": self.seed}


class SteerListeners:
    """The tab's listeners over one service. `buttons`: the download buttons, which wait for a result."""

    def __init__(self, service: Service, steering: SteerService, buttons: list[gr.Button]) -> None:
        self._service, self._steering, self._buttons = service, steering, buttons

    def look(self, run: str | None, sae: str | None, editor: Editor) -> Iterator[tuple[Any, Any]]:
        """Message and editor for the picture of the last run and this SAE: the same edits, with where their features are active there."""
        if run is None:
            yield "", gr.skip()
            return
        try:
            trace = self._service.remembered(run, Lens).trace
            if editor and editor["run"] == run and self._service.sae_name(sae, trace.model_name) == (editor["sae"] or {}).get("name", ""):
                yield "", gr.skip()
                return
            if self._service.saes(trace.model_name) and not self._service.has_sae(sae, trace.model_name):
                yield message("Loading the SAE; the first one takes some seconds …"), gr.skip()
            yield "", self._steering.editor(trace, run, sae, editor)
        except InterpError as error:
            yield message(str(error), error=True), gr.skip()

    def look_if_open(self, selected: str, run: str | None, sae: str | None, editor: Editor) -> Iterator[tuple[Any, Any]]:
        """As `look`, for a visitor who is looking."""
        if selected == TAB:
            yield from self.look(run, sae, editor)

    def answer(self, request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        """The pair, then the sweep: message, view, key, snippet, download buttons. `values`: see `SteerRequest`."""
        ask = SteerRequest.of(values)
        unchanged = [gr.skip()] * (2 + len(self._buttons))
        if not requests(ask.chips):
            yield message("Nothing is pushed yet: add a feature, or choose a preset.", error=True), gr.skip(), *unchanged
            return
        shown: Any = gr.skip()
        try:
            for said, shown, *rest in self._answered(ask, request):
                yield said, shown, *(rest or unchanged)
        except StoppedError:
            if isinstance(shown, dict):
                shown = {**shown, "state": "stopped"}
            yield message("Stopped. What was answered so far stays."), shown, *unchanged
        except InterpError as error:
            yield message(str(error), error=True), gr.skip(), *unchanged
        except Exception:
            yield FAILED, gr.skip(), *unchanged
            raise

    def _answered(self, ask: SteerRequest, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Message and view, and after the pair also key, snippet and buttons."""
        steering, edits = self._steering, requests(ask.chips)
        yield message("Steering …"), gr.skip()
        with steering.running(request.session_hash) as stop:
            made = steering.edits(edits, ask.model)
            words = ask.words.strip() or steering.watchable(ask.model, ask.labels.values())
            sweep = self._sweep(ask) if ask.sweep else None
            waiting = sweep.shown([""] * len(sweep.values)) if sweep else None

            def pair(show: Callable[[Any], None]) -> SteeringResult:
                return steering.steer(ask.image, ask.prompt, ask.model, edits=made, words=words, on_text=show, stop=stop, **ask.sampling)

            for step in stream(pair):
                if not isinstance(step, Done):
                    yield gr.skip(), running_payload(ask.model, ask.prompt, ask.sampling, *step, sweep=waiting)
            steered: SteeringResult = step.result
            key = self._service.remember(SteerRun(steered, lambda: self._trace(ask)))
            shown = steer_payload(steered, ask.sampling, ask.labels, run=key, sweep=waiting)
            ready = [key, _snippet(ask, edits, request), *switched(self._buttons, on=True)]
            yield message("Sweeping …") if sweep else "", shown, *ready
            if sweep:
                for step in stream(lambda show: sweep.run(steering, ask, show, stop)):
                    done = isinstance(step, Done)
                    part = sweep_payload(step.result, ask.labels, current=sweep.current) if done else sweep.shown(step[1:])
                    yield "" if done else gr.skip(), {**shown, "sweep": part}, *ready

    def _sweep(self, ask: SteerRequest) -> "_Sweeping":
        """The sweep of the chosen chip, with the others beside it."""
        chip = ask.chips[ask.swept]
        others = requests(other for i, other in enumerate(ask.chips) if i != ask.swept)
        edit, *unchanged = self._steering.edits([*requests([chip]), *others], ask.model)
        return _Sweeping(edit, unchanged, sweep_values(chip), float(chip["value"]), ask.labels)

    def answer_if_open(self, request: gr.Request, selected: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """As `answer`, for a visitor who is looking and has edits."""
        if selected == TAB and requests(SteerRequest.of(values).chips):
            yield from self.answer(request, *values)

    def _trace(self, ask: SteerRequest) -> Any:
        return self._service.trace(ask.image, ask.prompt, ask.model, max_new_tokens=ask.max_new_tokens)

    def lenses(self, key: str | None) -> tuple[Any, Any, Any]:
        """Message, and the lens of the plain and of the steered run."""
        if key is None:
            return message("Steer first, then read both runs.", error=True), None, None
        try:
            plain, steered = self._steering.both_lenses(key)
        except InterpError as error:
            return message(str(error), error=True), None, None
        remember = self._service.remember
        return "", lens_payload(plain, run=remember(plain)), lens_payload(steered, run=remember(steered))

    def link(self, request: gr.Request, *values: Any) -> tuple[Any, Any]:
        """Message and the box that shows a link to this state. `values`: see `SteerRequest`."""
        ask = SteerRequest.of(values)
        kept = ("sae", "feature", "unit", "value", "where", "on")
        state = {
            "prompt": ask.prompt,
            "model": ask.model,
            **ask.sampling,
            "words": ask.words,
            "sweep": ask.sweep,
            "edits": [{name: chip[name] for name in kept} for chip in ask.chips],
            "swept": ask.editor.get("swept", 0),
        }
        try:
            base = str(request.request.base_url) if request.request else ""
            return "", gr.Textbox(share.link(base, ask.image, state, EXAMPLES), visible=True)
        except (InterpError, OSError) as error:
            return message(f"No link could be made: {error}", error=True), gr.skip()

    def stop(self, request: gr.Request) -> None:
        """End this visitor's run."""
        self._steering.stop(request.session_hash)


@dataclass(frozen=True)
class _Sweeping:
    """One edit at several values, before and while it runs."""

    edit: Edit
    others: list[Edit]
    values: list[float]
    current: float
    labels: dict[tuple[str, int], str]

    def run(self, steering: SteerService, ask: SteerRequest, show: Callable[[Any], None], stop: threading.Event) -> Sweep:
        return steering.sweep(
            ask.image, ask.prompt, ask.model, self.edit, self.values, others=self.others, on_text=show, stop=stop, **ask.sampling
        )

    def shown(self, answers: list[str]) -> SweepPayload:
        """Its part of the view, with these answers so far."""
        return running_sweep(self.edit, self.values, answers, self.labels, others=len(self.others), current=self.current)


def pick(editor: dict[str, Any], event: gr.SelectData) -> dict[str, Any]:
    """Set the swept edit to the value of a card of the sweep."""
    chips = [dict(chip) for chip in editor["edits"]]
    chips[editor["swept"]]["value"] = float(event.value)
    return {**editor, "edits": chips}


def emptied(editor: Editor) -> tuple[Any, None, str]:
    """Editor, view and message as they were before anything was pushed."""
    return editor and {**editor, "edits": [], "swept": 0}, None, ""


def sweep_values(chip: dict[str, Any]) -> list[float]:
    """Seven values around a chip's own, and its own."""
    value, largest = float(chip["value"]), chip.get("max") or 10.0
    if chip["unit"] == "target":
        values = [largest * share for share in (-1, -0.5, 0, 0.5, 1, 1.5, 2)]
    else:
        reach = max(abs(value), 0.5 if chip["unit"] == "strength" else largest)
        values = [reach * share for share in (-1, -0.5, -0.25, 0, 0.25, 0.5, 1)]
    return sorted({float(f"{v:.3g}") for v in values} | {value})


def _snippet(ask: SteerRequest, edits: list[dict[str, Any]], request: gr.Request) -> str:
    """Python lines that get the same result from this server."""
    listed = ",\n        ".join(repr(edit) for edit in edits)
    return (
        "from gradio_client import Client, handle_file\n\n"
        f"client = Client({address(request)!r})\n"
        "result = client.predict(\n"
        f"    image=handle_file({os.path.basename(ask.image or 'picture.png')!r}),  # your picture\n"  # noqa: PTH119 - a name to show
        f"    prompt={ask.prompt!r},\n"
        f"    model={ask.model!r},\n"
        f"    edits=[\n        {listed},\n    ],\n"
        f"    max_new_tokens={ask.max_new_tokens},\n"
        f"    temperature={ask.temperature},\n"
        f"    seed={ask.seed},\n"
        '    api_name="/steer",\n'
        ")\n"
        'print(result["plain"], "->", result["steered"])\n'
    )
