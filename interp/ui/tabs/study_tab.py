"""The tab "Study": the features of a study of many pictures, each with all that the study knows of it. There is one only if the app was started with a study."""

from collections.abc import Mapping

import gradio as gr

from ...errors import InterpError
from ...service.study_service import StudyService
from ..components.inputs import AT_ONCE
from ..components.messages import message
from ..components.study_view import StudyView
from ..controls import Updates
from ..snippets import address

TAB = "Study"


class StudyTab:
    """The tab. It needs no run and no model. `opening`: what `opened` sets."""

    def __init__(self, studying: StudyService) -> None:
        self._studying = studying
        with gr.Tab(TAB, id="study", elem_id="study-tab") as tab:
            self._message = gr.HTML("", elem_id="study-message")
            self._view = StudyView(server_functions=[studying.study_feature, studying.find_in_study, studying.hand_over])
            self._shown = gr.State(value=False)
            with gr.Accordion("Do this from Python", open=False):
                self._code = gr.Code(language="python", label="gradio_client", interactive=False, show_label=False)
        self.opening = [self._view, self._shown]
        # Not in the queue of what needs the model.
        tab.select(self._look, self._shown, [self._message, *self.opening], api_visibility="private", show_progress="hidden")
        self._view.select(self._snippet, None, self._code, **AT_ONCE)

    def opened(self, query: Mapping[str, str]) -> Updates:
        """What a link with this query sets. Raises InterpError if its feature or its study does not exist."""
        text = query["feature"]
        number = int(text) if text.isdecimal() and len(text) < 10 else text  # int() refuses thousands of digits
        payload = self._studying.payload(query.get("study"), number)
        return {self._view: payload, self._shown: True}

    def _look(self, shown: bool) -> Updates:  # noqa: FBT001 - gradio passes the value of the state
        """Show a feature, unless one is shown."""
        if shown:
            return {self._message: ""}
        try:
            return {self._message: "", self._view: self._studying.payload(), self._shown: True}
        except InterpError as error:
            return {self._message: message(str(error), error=True)}

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
