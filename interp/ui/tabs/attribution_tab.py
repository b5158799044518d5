"""The tab "Attribution": which features of the chosen SAE carried a word of the last run's answer."""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from ...attribution.attribute import Attribution
from ...errors import InterpError
from ...lens.lens import Lens
from ...service.attribution_service import AttributionService
from ...service.requests import AttributionRequest
from ...tracing.trace import Trace
from ...web.payloads.attribution import AttributionPayload
from .. import share
from ..components.attribution_view import AttributionView
from ..components.downloads import download_buttons, switched
from ..components.inputs import AT_ONCE, QUIETLY
from ..components.messages import FAILED, FIRST_SAE, message
from ..controls import Controls, Updates, Values
from ..files import write_attribution_csv, write_attribution_html, write_attribution_json, write_filters
from ..snippets import snippet
from .link_row import LinkRow

TAB = "Attribution"
_WORKING = message("Attributing the first word …")


@dataclass(frozen=True)
class AttributionStates:
    """The tab's states. They are made outside gr.Tabs, which would count them as tabs."""

    shown: gr.State = field(default_factory=gr.State)
    """What is shown: {"run", "sae", "words": `WordSpec`s of the words looked at, the last one first}, or None."""
    linked: gr.State = field(default_factory=gr.State)
    """The `AttributionRequest` that a link opens with, until it is shown."""


class AttributionTab:
    """The tab. `run_key` is the key of the last run's lens, `sae` the SAE chosen for features, `linked` what a link opens with."""

    def __init__(
        self, attributing: AttributionService, controls: Controls, run_key: gr.State, sae: gr.Dropdown, states: AttributionStates
    ) -> None:
        self._attributing, self._controls, self._run_key = attributing, controls, run_key
        self.sae, self._shown, self.linked = sae, states.shown, states.linked
        with gr.Tab(TAB, id="attribution", elem_id="attribution-tab") as tab:
            self._message = gr.HTML("", elem_id="attribution-message")
            functions = [attributing.attribute_word, attributing.feature_words, attributing.without_features]
            self._view = AttributionView(server_functions=functions)
            files = [
                ("Download as HTML", "attribution-html", lambda state: write_attribution_html(self._payload(state))),
                ("Download as JSON", "attribution-json", lambda state: write_attribution_json(self._last(state))),
                ("Download as CSV", "attribution-csv", lambda state: write_attribution_csv(self._last(state))),
                ("Download filters.json", "attribution-filters", lambda state: write_filters(self._last(state))),
            ]
            self._downloads = download_buttons(files, lambda state: state, states.shown)
            link = LinkRow("word", "attribution")
            with gr.Accordion("Do this from Python", open=False):
                self._code = gr.Code(language="python", label="gradio_client", interactive=False, show_label=False)
        self.inputs: set[Any] = {run_key, sae, states.shown, states.linked}
        self.outputs = [self._message, self._view, states.shown, states.linked, self._code, *self._downloads]
        tab.select(self.look, self.inputs, self.outputs, **QUIETLY)
        asked: set[Any] = {states.shown, controls.image, controls.max_new_tokens}
        self._view.select(self._chosen, asked, [states.shown, self._code], **AT_ONCE)
        link.shows(self._linked, asked, controls.image, self._message)

    def look(self, values: Values, _request: gr.Request) -> Iterator[Updates]:
        """Attribute the answer's first content word, unless the run is already shown with the chosen SAE."""
        service, run, shown = self._attributing.service, values[self._run_key], values[self._shown]
        try:
            if run is None:
                yield {self._message: ""}
                return
            trace = service.remembered(run, Lens).trace
            sae = service.saes.meant(values[self.sae], trace.model_name)
            if shown and (shown["run"], shown["sae"]) == (run, sae):
                yield {self._message: ""}
                return
            yield {self._message: _WORKING if not sae or service.saes.holds(sae, trace.model_name) else FIRST_SAE}
            payload = self._opened(run, sae, values[self.linked])
        except InterpError as error:
            nothing = {self._view: None, self._shown: None, self._code: "", **switched(self._downloads, on=False)}
            yield {self._message: message(str(error), error=True), **nothing}
            return
        except Exception:
            yield {self._message: FAILED}
            raise
        state = {"run": run, "sae": sae, "words": [payload["words"][0]["spec"]]}
        yield {self._message: "", self._view: payload, self._shown: state, self.linked: None, **switched(self._downloads, on=True)}

    def _opened(self, run: str, sae: str, linked: AttributionRequest | None) -> AttributionPayload:
        if linked:
            with contextlib.suppress(InterpError):  # a link to a word that this answer does not have opens as usual
                return self._attributing.payload(run, sae, [dataclasses.replace(linked, sae=sae)])
        return self._attributing.payload(run, sae)

    def _chosen(self, values: Values, event: gr.SelectData, request: gr.Request) -> Updates:
        """Note that a word is shown, for the downloads and the Python code."""
        state, spec = values[self._shown], event.value
        if state is None:
            return {self._code: ""}
        words = [spec, *(word for word in state["words"] if word != spec)]
        trace, asked = self._trace(state), self._request(state, spec)
        arguments: dict[str, Any] = {
            "prompt": trace.prompt,
            "model": trace.model_name,
            "sae": asked.sae,
            "token": asked.token,
            "baseline": asked.baseline,
            "top_k": asked.top_k,
            "max_new_tokens": values[self._controls.max_new_tokens],
        }
        then = 'for feature in found["features"]:\n    print(feature["feature"], feature["label"], feature["score"], feature["exact"])'
        code = snippet(request, "/attribution", values[self._controls.image], arguments, result="found, filters", then=then)
        return {self._shown: {**state, "words": words}, self._code: code}

    def _linked(self, values: Values) -> dict[str, Any]:
        """What a link to the word that is shown, and to what it is compared with, holds."""
        state = values[self._shown]
        if state is None:
            raise InterpError("nothing is shown yet.")
        trace, asked = self._trace(state), dataclasses.asdict(self._request(state, state["words"][0]))
        return share.attribution_state(trace.prompt, trace.model_name, values[self._controls.max_new_tokens], asked)

    def _trace(self, state: dict[str, Any]) -> Trace:
        return self._attributing.service.remembered(state["run"], Lens).trace

    def _request(self, state: dict[str, Any], spec: dict[str, Any]) -> AttributionRequest:
        names = {"token": spec["token"], "baseline": spec["baseline"], "top_k": spec["top"]}
        return AttributionRequest.of({"sae": state["sae"], **names})

    def _last(self, state: dict[str, Any]) -> Attribution:
        """The attribution of the word that is shown."""
        return self._attributing.attribution(self._trace(state), self._request(state, state["words"][0]))

    def _payload(self, state: dict[str, Any]) -> AttributionPayload:
        """The view's data with every word looked at, for a page without a server."""
        requests = [self._request(state, spec) for spec in state["words"]]
        return {**self._attributing.payload(state["run"], state["sae"], requests), "run": None}
