"""The tab "Why this word?": what a word of the last run's answer looked at and needed."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from ...errors import InterpError
from ...lens.lens import Lens
from ...service.attention_service import AttentionService
from ...service.requests import MapRequest
from ...service.whatif_service import WhatIfService
from ...tracing.trace import Trace
from ...web.payloads.attention import AttentionPayload
from .. import share
from ..components.attention_view import AttentionView
from ..components.downloads import download_buttons, switched
from ..components.inputs import AT_ONCE, QUIETLY
from ..components.messages import FAILED, message
from ..controls import Controls, Updates, Values
from ..files import write_attention_html, write_attention_json
from ..snippets import snippet
from .link_row import LinkRow

TAB = "Why this word?"
_READING = message("Reading the attention …")


@dataclass(frozen=True)
class WordStates:
    """The tab's states. They are made outside gr.Tabs, which would count them as tabs."""

    shown: gr.State = field(default_factory=gr.State)
    """The key of the run that is shown."""
    chosen: gr.State = field(default_factory=gr.State)
    """The `MapSpec` that is looked at."""
    linked: gr.State = field(default_factory=gr.State)
    """What a link opens with, until it is shown: {"token", "method"}."""


class AttentionTab:
    """The tab. `run_key` is the key of the last run's lens."""

    def __init__(
        self, explaining: AttentionService, changing: WhatIfService, controls: Controls, run_key: gr.State, states: WordStates
    ) -> None:
        self._explaining, self._controls, self._run_key, self._states = explaining, controls, run_key, states
        with gr.Tab(TAB, id="why", elem_id="why-tab") as tab:
            self._message = gr.HTML("", elem_id="why-message")
            functions = [explaining.word_map, explaining.test_map, changing.what_if, changing.fewest_patches, changing.word_flow]
            self._view = AttentionView(server_functions=functions)
            files = [
                ("Download as HTML", "why-html", lambda lens: write_attention_html(explaining.kept_payload(lens.trace))),
                ("Download as JSON", "why-json", lambda lens: write_attention_json(explaining.attention(lens.trace))),
            ]
            self._downloads = download_buttons(files, lambda key: explaining.service.remembered(key, Lens), states.shown)
            link = LinkRow("word", "why")
            with gr.Accordion("Do this from Python", open=False):
                self._code = gr.Code(language="python", label="gradio_client", interactive=False, show_label=False)
        self.inputs: set[Any] = {run_key, states.shown, states.linked}
        self.outputs = [self._message, self._view, states.shown, states.linked, *self._downloads]
        tab.select(self.look, self.inputs, self.outputs, **QUIETLY)
        asked: set[Any] = {states.shown, states.chosen, controls.image, controls.max_new_tokens}
        self._view.select(self._chosen, asked, [self._code, states.chosen], **AT_ONCE)
        link.shows(self._linked, asked, controls.image, self._message)

    def look(self, values: Values, _request: gr.Request) -> Iterator[Updates]:
        """Explain the last run, unless it is already shown."""
        states = self._states
        run, shown = values[self._run_key], values[states.shown]
        if run is None or run == shown:
            yield {self._message: ""}
            return
        try:
            yield {self._message: _READING}
            payload = self._payload(run, values[states.linked] or {})
        except InterpError as error:
            nothing = {self._view: None, states.shown: None, **switched(self._downloads, on=False)}
            yield {self._message: message(str(error), error=True), **nothing}
            return
        except Exception:
            yield {self._message: FAILED}
            raise
        yield {self._message: "", self._view: payload, states.shown: run, states.linked: None, **switched(self._downloads, on=True)}

    def _payload(self, run: str, linked: Mapping[str, Any]) -> AttentionPayload:
        trace, token = self._explaining.service.remembered(run, Lens).trace, None
        with contextlib.suppress(InterpError):  # a link to a word that this answer does not have opens as usual
            token = self._explaining.token(trace, linked.get("token"))
        return self._explaining.payload(trace, run=run, token=token, method=linked.get("method", ""))

    def _chosen(self, values: Values, event: gr.SelectData, request: gr.Request) -> Updates:
        """Keep what is looked at, with Python code that gets it from this server."""
        try:
            spec = MapRequest.of(event.value if isinstance(event.value, dict) else {})
            trace = self._trace(values)
        except InterpError:  # the run is gone; the view says so when it asks for something
            return {self._states.chosen: None}
        how: dict[str, Any] = {"token": spec.token, "method": spec.method}
        if spec.layer is not None:
            how |= {"layer": spec.layer, **({} if spec.head is None else {"head": spec.head})}
        controls = self._controls
        arguments = {"prompt": trace.prompt, "model": trace.model_name, **how, "max_new_tokens": values[controls.max_new_tokens]}
        then = 'print(summary["token"], summary["insertion"], summary["deletion"])\nfor row in summary["map"][0]:\n    print(row)'
        code = snippet(request, "/attention", values[controls.image], arguments, result="summary, everything", then=then)
        return {self._code: code, self._states.chosen: {"token": spec.token, "method": spec.method}}

    def _linked(self, values: Values) -> dict[str, Any]:
        """What a link to the word and the map that are looked at holds."""
        trace, new = self._trace(values), values[self._controls.max_new_tokens]
        return share.word_state(trace.prompt, trace.model_name, new, values[self._states.chosen] or {})

    def _trace(self, values: Values) -> Trace:
        return self._explaining.service.remembered(values[self._states.shown], Lens).trace
