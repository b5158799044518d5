"""The tab "Study": the features of a study of many pictures, each with all that the study knows of it. There is one only if the app was started with a study."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ...errors import InterpError
from ...service.study_service import StudyService
from ..components.inputs import QUEUE
from ..components.messages import message
from ..components.study_view import StudyView
from ..controls import Updates
from ..snippets import address

TAB = "Study"


class StudyTab:
    """The tab. It needs no run and no model."""

    def __init__(self, studying: StudyService) -> None:
        self._studying = studying
        with gr.Tab(TAB, id="study", elem_id="study-tab") as tab:
            self._message = gr.HTML("", elem_id="study-message")
            self.view = StudyView(server_functions=[studying.study_feature, studying.find_in_study, studying.hand_over])
            with gr.Accordion("Do this from Python", open=False):
                self._code = gr.Code(language="python", label="gradio_client", interactive=False, show_label=False)
        tab.select(self._look, self.view, [self._message, self.view], **QUEUE, show_progress="hidden")
        self.view.select(self._snippet, None, self._code, api_visibility="private", show_progress="hidden", queue=False)

    def linked(self, query: Mapping[str, str]) -> Updates:
        """What shows the feature of a link, {"feature", "study"}. Raises InterpError if there is none."""
        feature = query["feature"]
        return {self.view: self._studying.payload(query.get("study"), int(feature) if feature.isdecimal() else feature)}

    def _look(self, shown: dict[str, Any] | None) -> Updates:
        """Open with a feature, unless one is shown."""
        try:
            return {self._message: "", self.view: gr.skip() if shown else self._studying.payload()}
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
