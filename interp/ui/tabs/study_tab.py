"""The tab "Study": the features of a study of many pictures, each with all that the study knows of it. There is one only if the app was started with a study."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from ...errors import InterpError
from ...service.study_service import StudyService
from ..components.messages import message
from ..components.study_view import StudyView
from ..controls import Updates, Values
from ..snippets import address

TAB = "Study"


@dataclass(frozen=True)
class StudyStates:
    """The tab's states. They are made outside gr.Tabs, which would count them as tabs."""

    shown: gr.State = field(default_factory=gr.State)
    """Whether the view shows something."""
    linked: gr.State = field(default_factory=gr.State)
    """What a link opens with, until it is shown: {"feature", "study"}, or None."""


class StudyTab:
    """The tab. It needs no run and no model. `selected` is the open tab."""

    def __init__(self, studying: StudyService, selected: gr.State, states: StudyStates) -> None:
        self._studying, self._selected, self._shown, self.linked = studying, selected, states.shown, states.linked
        with gr.Tab(TAB, id="study", elem_id="study-tab") as tab:
            self._message = gr.HTML("", elem_id="study-message")
            self._view = StudyView(server_functions=[studying.study_feature, studying.find_in_study, studying.hand_over])
            with gr.Accordion("Do this from Python", open=False):
                self._code = gr.Code(language="python", label="gradio_client", interactive=False, show_label=False)
        self.inputs: set[Any] = {selected, states.shown, states.linked}
        self.outputs = [self._message, self._view, states.shown, states.linked]
        # Not in the queue of what needs the model.
        quietly: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        tab.select(self._look, self.inputs, self.outputs, **quietly)
        self._view.select(self._snippet, None, self._code, **quietly, queue=False)

    def link(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The value of `linked` for the query of a link. Raises InterpError if its feature or its study does not exist."""
        feature = query["feature"]
        held = self._studying.service.studies.get(query.get("study"))
        return {"study": held.name, "feature": held.check(int(feature) if feature.isdecimal() else feature)}

    def after_run(self, values: Values) -> Iterator[Updates]:
        """As when the tab is opened, if a link has opened it."""
        if values[self._selected] == TAB and values[self.linked]:
            yield from self._look(values)

    def _look(self, values: Values) -> Iterator[Updates]:
        """Show what a link asks for, or else something, unless a feature is shown."""
        linked = values[self.linked]
        if values[self._shown] and not linked:
            yield {self._message: ""}
            return
        try:
            payload = self._studying.payload(**(linked or {}))
        except InterpError as error:
            yield {self._message: message(str(error), error=True), self.linked: None}
            return
        yield {self._message: "", self._view: payload, self._shown: True, self.linked: None}

    @staticmethod
    def _snippet(event: gr.SelectData, request: gr.Request) -> str:
        """Python code that gets what is shown from this server."""
        look = event.value if isinstance(event.value, dict) else {}
        return (
            "from gradio_client import Client\n\n"
            f"client = Client({address(request)!r})\n"
            f"found = client.predict(feature={look.get('feature')!r}, study={look.get('study')!r}, api_name='/feature')\n"
            'print(found["label"], found["pictures"], [each["label"] for each in found["neighbours"]])\n'
        )
