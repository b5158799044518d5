"""The tab "Concepts": what the model's states are made of, where that is on the last run's picture, and what a fine-tune moved."""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from ...errors import InterpError
from ...lens.lens import Lens
from ...service.concept_shifts import Compared
from ...service.concepts_service import ConceptsService
from ...service.requests import ConceptsLook, ShiftRequest
from ...service.streaming import Done, stream
from ...web.payloads.concepts import ConceptsPayload
from .. import share
from ..components.concepts_view import ConceptsView
from ..components.downloads import download_buttons, switched
from ..components.inputs import AT_ONCE, QUIETLY
from ..components.messages import FAILED, message
from ..controls import Controls, Updates, Values
from ..files import write_concepts_html, write_concepts_json, write_concepts_zip
from ..snippets import snippet
from .learn_panel import LearnPanel
from .link_row import LinkRow

TAB = "Concepts"
_COMPARE = (
    "Both models answer the dictionary's pictures, and each concept is followed from one to the other. The fine-tune is loaded beside the model for as long as "
    "that takes."
)


@dataclass(frozen=True)
class ConceptsStates:
    """The tab's states. They are made outside gr.Tabs, which would count them as tabs."""

    shown: gr.State = field(default_factory=gr.State)
    """What is shown: {"run", "dictionary", "model", "compared": the key of a comparison with a fine-tune, or None}, or None."""
    look: gr.State = field(default_factory=gr.State)
    """What the reader looks at there: a `ConceptsLook`, or None for what it opened with."""
    linked: gr.State = field(default_factory=gr.State)
    """The `ConceptsLook` that a link opens with, until it is shown."""
    mine: gr.State = field(default_factory=gr.State)
    """What this visitor had learned: [label, name, model] each."""


class ConceptsTab:
    """The tab. `run_key` is the key of the last run's lens."""

    def __init__(self, finding: ConceptsService, controls: Controls, run_key: gr.State, states: ConceptsStates) -> None:
        self._finding, self._controls, self._run_key = finding, controls, run_key
        self._shown, self._look, self.linked, self._mine = states.shown, states.look, states.linked, states.mine
        service = finding.service
        self._way_out = (
            "Learn one from pictures of your own, below." if service.can_learn else "Learn one in a copy of your own: python app.py."
        )
        with gr.Tab(TAB, id="concepts", elem_id="concepts-tab") as tab:
            names = finding.shelf.names(service.default_model)
            self.dictionary = gr.Dropdown(
                names,
                value=names[0] if names else None,
                label="Dictionary (name, or folder of your own)" if service.can_switch else "Dictionary",
                allow_custom_value=service.can_switch,
                elem_id="concepts-dictionary",
            )
            self._message = gr.HTML("", elem_id="concepts-message")
            self._view = ConceptsView(server_functions=[finding.concept_details, finding.steer_concepts])
            self.panel = LearnPanel(finding, controls, self.dictionary, states.mine)
            with gr.Accordion("Compare with a fine-tune", open=False, elem_id="concepts-compare"):
                gr.Markdown(_COMPARE)
                with gr.Row():
                    adapters = finding.shifts.adapters(service.default_model)
                    self._adapter = gr.Dropdown(
                        adapters,
                        value=adapters[0] if adapters else None,
                        label="Fine-tune (adapter: name, folder or hub id)" if service.can_switch else "Fine-tune",
                        allow_custom_value=service.can_switch,
                        elem_id="concepts-adapter",
                        min_width=230,
                    )
                    compare = gr.Button("Compare", elem_id="concepts-compare-run", min_width=120)
                self._said = gr.HTML("", elem_id="concepts-compared")
            files = [
                ("Download as HTML", "concepts-html", lambda state: write_concepts_html({**self._payload(state), "run": None})),
                ("Download as JSON", "concepts-json", lambda state: write_concepts_json(self._here(state))),
                ("Download the dictionary", "concepts-zip", lambda state: write_concepts_zip(self._here(state).concepts)),
            ]
            self._downloads = download_buttons(files, lambda state: state, states.shown)
            link = LinkRow("concept", "concepts")
            with gr.Accordion("Do this from Python", open=False):
                self._code = gr.Code(language="python", label="gradio_client", interactive=False, show_label=False)
        inputs: set[Any] = {run_key, self.dictionary, states.shown, states.linked, controls.image, controls.max_new_tokens}
        self.inputs = inputs
        self.outputs = [self._message, self._view, states.shown, states.look, states.linked, self._code, *self._downloads]
        self.opening = [self.linked, self.dictionary, self._mine]
        tab.select(self.look, inputs, self.outputs, **QUIETLY)
        self.dictionary.input(self.look, inputs, self.outputs, **QUIETLY)
        self.panel.bind().then(self.look, inputs, self.outputs, **QUIETLY)
        compare.click(self._compare, {states.shown, self._adapter}, [self._said, self._view, states.shown], **QUIETLY)
        chosen = [self.dictionary, self._adapter]
        fitting = [*chosen, self.panel.layer]
        controls.model.change(
            self.of_model, {controls.model, states.mine, *chosen}, fitting, api_visibility="private", show_progress="hidden"
        )
        self._view.select(self._looked, None, states.look, **AT_ONCE)
        asked: set[Any] = {states.shown, states.look, controls.image, controls.max_new_tokens}
        link.shows(self._linked, asked, controls.image, self._message)

    def opened(self, look: ConceptsLook, model: str) -> Updates:
        """What a link sets. Only a dictionary that is known here is chosen: a link must not make a server read another folder."""
        learned = self._finding.shelf.learned(look.dictionary)
        mine = [[learned.label, learned.name, learned.concepts.model_name]] if learned else []
        choices = self.panel.choices(model, mine)
        known = look.dictionary in (name for _, name in choices)
        chosen = {self.dictionary: gr.Dropdown(choices, value=look.dictionary), self._mine: mine} if known else {}
        return {self.linked: look, **chosen}

    def of_model(self, values: Values) -> Updates:
        """The dictionaries, the fine-tunes and the usual layer of the chosen model. What was chosen stays if it is one of them."""
        model = values[self._controls.model] or ""
        known = {
            self.dictionary: self.panel.choices(model, values[self._mine]),
            self._adapter: [(name, name) for name in self._finding.shifts.adapters(model)],
        }
        fields: Updates = {}
        for box, choices in known.items():
            names = [name for _, name in choices]
            fields[box] = gr.Dropdown(choices, value=values[box] if values[box] in names else next(iter(names), None))
        return {**fields, self.panel.layer: self._finding.learning.layer(model)}

    def look(self, values: Values, request: gr.Request) -> Iterator[Updates]:
        """Show the dictionary on the last run, unless it is already shown."""
        finding, run, shown, linked = self._finding, values[self._run_key], values[self._shown], values[self.linked]
        nothing = {self._view: None, self._shown: None, self._code: "", **switched(self._downloads, on=False)}
        try:
            if run is None:
                yield {self._message: ""}
                return
            trace = finding.service.remembered(run, Lens).trace
            dictionary = finding.shelf.meant(values[self.dictionary], trace.model_name)
            if not dictionary:
                yield {self._message: message(f"{finding.shelf.lacking(trace.model_name)} {self._way_out}"), **nothing}
                return
            if shown and (shown["run"], shown["dictionary"]) == (run, dictionary):
                yield {self._message: ""}
                return
            same = shown and (shown["model"], shown["dictionary"]) == (trace.model_name, dictionary)
            state = {"run": run, "dictionary": dictionary, "model": trace.model_name, "compared": shown["compared"] if same else None}
            lacks = linked is not None and dictionary != finding.shelf.meant(linked.dictionary, trace.model_name)
            payload = self._payload(state, None if lacks else linked)
        except InterpError as error:
            yield {self._message: message(str(error), error=True), **nothing}
            return
        except Exception:
            yield {self._message: FAILED}
            raise
        said = message(f"This link's dictionary {linked.dictionary} is not known here. Another is shown.", error=True) if lacks else ""
        now = {self._view: payload, self._shown: state, self._look: None if lacks else linked, self.linked: None}
        yield {self._message: said, **now, self._code: self._snippet(state, values, request), **switched(self._downloads, on=True)}

    @staticmethod
    def _looked(event: gr.SelectData) -> ConceptsLook | None:
        """Note what the reader looks at, for a link to it."""
        try:
            return ConceptsLook.of(event.value if isinstance(event.value, dict) else {})
        except InterpError:  # no page of ours sends it
            return None

    def _linked(self, values: Values) -> dict[str, Any]:
        """What a link to the concept and the step that are looked at holds."""
        state = values[self._shown]
        if state is None:
            raise InterpError("nothing is shown yet.")
        look = dataclasses.replace(values[self._look] or ConceptsLook(), dictionary=state["dictionary"])
        trace = self._finding.service.remembered(state["run"], Lens).trace
        return share.concepts_state(trace.prompt, trace.model_name, values[self._controls.max_new_tokens], look)

    def _compare(self, values: Values) -> Iterator[Updates]:
        """Show what the chosen fine-tune moved."""
        finding, state = self._finding, values[self._shown]
        if state is None:
            yield {self._said: message("Nothing is shown yet: choose a picture and press Run.", error=True)}
            return
        try:
            asked = ShiftRequest.of({"model": state["model"], "adapter": values[self._adapter], "dictionary": state["dictionary"]})
            yield {self._said: message("Loading the fine-tune …")}
            for step in stream(lambda tell: finding.shifts.shift(asked, tell)):
                if isinstance(step, Done):
                    state = {**state, "compared": finding.service.remember(step.result)}
                    yield {
                        self._said: message("What moved is shown at the top of the tab."),
                        self._view: self._payload(state),
                        self._shown: state,
                    }
                else:
                    yield {self._said: message(step)}
        except InterpError as error:
            yield {self._said: message(str(error), error=True)}
        except Exception:
            yield {self._said: FAILED}
            raise

    def _payload(self, state: dict[str, Any], look: ConceptsLook | None = None) -> ConceptsPayload:
        compared = None
        if state["compared"]:
            with contextlib.suppress(InterpError):  # no longer kept: the concepts are shown without it
                compared = self._finding.service.remembered(state["compared"], Compared)
        return self._finding.payload(state["run"], state["dictionary"], compared, look)

    def _here(self, state: dict[str, Any]) -> Any:
        return self._finding.here(self._finding.service.remembered(state["run"], Lens).trace, state["dictionary"])

    def _snippet(self, state: dict[str, Any], values: Values, request: gr.Request) -> str:
        """Python code that gets the same result from this server."""
        trace = self._finding.service.remembered(state["run"], Lens).trace
        arguments: dict[str, Any] = {
            "prompt": trace.prompt,
            "model": trace.model_name,
            "dictionary": state["dictionary"],
            "max_new_tokens": values[self._controls.max_new_tokens],
        }
        then = 'for concept in found["concepts"]:\n    print(concept["concept"], concept["words"][:3], concept["activation"])'
        return snippet(request, "/concepts", values[self._controls.image], arguments, result="found, file", then=then)
