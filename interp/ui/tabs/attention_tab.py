"""The tab "Why this word?": what a word of the last run's answer looked at and needed."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ...errors import InterpError
from ...lens.logit_lens import Lens
from ...service.attention_service import AttentionService
from ...service.requests import MapRequest
from ...service.whatif_service import WhatIfService
from ..components.attention_view import AttentionView
from ..components.downloads import download_buttons, switched
from ..components.inputs import QUEUE
from ..components.messages import FAILED, message
from ..controls import Controls, Updates, Values
from ..files import write_attention_html, write_attention_json
from ..snippets import snippet

TAB = "Why this word?"
_READING = message("Reading the attention …")


class AttentionTab:
    """The tab. `run_key` is the key of the last run's lens, `selected` the open tab, `shown` a state for the key of the run that is shown here."""

    def __init__(
        self,
        explaining: AttentionService,
        changing: WhatIfService,
        controls: Controls,
        run_key: gr.State,
        selected: gr.State,
        shown: gr.State,
    ) -> None:
        self._explaining, self._controls, self._run_key, self._selected, self._shown = explaining, controls, run_key, selected, shown
        with gr.Tab(TAB, id="why", elem_id="why-tab") as tab:
            self._message = gr.HTML("", elem_id="why-message")
            functions = [explaining.word_map, explaining.test_map, changing.what_if, changing.word_flow]
            self._view = AttentionView(server_functions=functions)
            files = [
                ("Download as HTML", "why-html", lambda lens: write_attention_html(explaining.kept_payload(lens.trace))),
                ("Download as JSON", "why-json", lambda lens: write_attention_json(explaining.attention(lens.trace))),
            ]
            self._downloads = download_buttons(files, lambda key: explaining.service.remembered(key, Lens), shown)
            with gr.Accordion("Do this from Python", open=False):
                self._code = gr.Code(language="python", label="gradio_client", interactive=False, show_label=False)
        inputs: set[Any] = {run_key, shown}
        self.inputs = {selected, *inputs}
        self.outputs = [self._message, self._view, shown, *self._downloads]
        tab.select(self.look, inputs, self.outputs, show_progress="hidden", **QUEUE)
        at_once: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
        asked: set[Any] = {shown, controls.image, controls.max_new_tokens}
        self._view.select(self._chosen, asked, self._code, **at_once)

    def after_run(self, values: Values) -> Iterator[Updates]:
        """As `look`, if this tab is open."""
        if values[self._selected] == TAB:
            yield from self.look(values)

    def look(self, values: Values) -> Iterator[Updates]:
        """Explain the last run, unless it is already shown."""
        run, shown = values[self._run_key], values[self._shown]
        if run is None or run == shown:
            yield {self._message: ""}
            return
        try:
            yield {self._message: _READING}
            payload = self._explaining.payload(self._explaining.service.remembered(run, Lens).trace, run=run)
        except InterpError as error:
            nothing = {self._view: None, self._shown: None, **switched(self._downloads, on=False)}
            yield {self._message: message(str(error), error=True), **nothing}
            return
        except Exception:
            yield {self._message: FAILED}
            raise
        yield {self._message: "", self._view: payload, self._shown: run, **switched(self._downloads, on=True)}

    def _chosen(self, values: Values, event: gr.SelectData, request: gr.Request) -> Updates:
        """Python code that gets the chosen map from this server."""
        controls, spec = self._controls, MapRequest.of(event.value if isinstance(event.value, dict) else {})
        trace = self._explaining.service.remembered(values[self._shown], Lens).trace
        how: dict[str, Any] = {"token": spec.token, "method": spec.method}
        if spec.layer is not None:
            how |= {"layer": spec.layer, **({} if spec.head is None else {"head": spec.head})}
        arguments = {"prompt": trace.prompt, "model": trace.model_name, **how, "max_new_tokens": values[controls.max_new_tokens]}
        then = 'print(summary["token"], summary["insertion"], summary["deletion"])\nfor row in summary["map"][0]:\n    print(row)'
        code = snippet(request, "/attention", values[controls.image], arguments, result="summary, everything", then=then)
        return {self._code: code}
