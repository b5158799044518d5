"""The tab "SAE features": ranks the features of the last run's trace without running the model again."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ...errors import InterpError
from ...lens.lens import Lens
from ...saes.features import RANKINGS, Features
from ...service.questions import Questions
from ...service.requests import MAX_FEATURES, Ranking
from ...service.service import Service
from ...tracing.select import KINDS
from ...web.payloads.features import feature_payload
from ..components.downloads import download_buttons, switched
from ..components.feature_view import FeatureView
from ..components.inputs import QUIETLY
from ..components.messages import FAILED, FIRST_SAE, message
from ..controls import Controls, Updates, Values, named
from ..files import write_features_csv, write_features_json
from ..snippets import snippet

TAB = "SAE features"
_RANK_NAMES = {"mean": "mean activation", "max": "maximum activation", "frequency": "share of tokens"}


class FeaturesTab:
    """The tab. `run_key` is the key of the last run's lens, `sae` the SAE chosen here."""

    def __init__(self, service: Service, questions: Questions, controls: Controls, run_key: gr.State) -> None:
        self._service, self._controls, self._run_key = service, controls, run_key
        names = service.saes.names()
        with gr.Tab(TAB, id="features", elem_id="sae-tab") as tab:
            with gr.Row():
                self.sae = gr.Dropdown(
                    names,
                    value=names[0] if names else None,
                    label="SAE (name or folder)" if service.can_switch else "SAE",
                    allow_custom_value=service.can_switch,
                    elem_id="sae",
                    min_width=190,
                )
                where = gr.Dropdown(
                    [(f"{kind} tokens", kind) for kind in KINDS], value="image", label="Tokens", elem_id="where", min_width=190
                )
                rank_by = gr.Dropdown(
                    [(_RANK_NAMES[n], n) for n in RANKINGS], value="mean", label="Rank by", elem_id="rank-by", min_width=190
                )
                top_k = gr.Slider(1, MAX_FEATURES, 20, step=1, label="Features", elem_id="sae-top-k")
            self._message = gr.HTML("", elem_id="sae-message")
            self._view = FeatureView(server_functions=[questions.features_at, questions.find_features, questions.feature_details])
            self._key, self._shown = gr.State(), gr.State()
            self._downloads = download_buttons(
                [("Download as JSON", "features-json", write_features_json), ("Download as CSV", "features-csv", write_features_csv)],
                lambda key: service.remembered(key, Features),
                self._key,
            )
            with gr.Accordion("Do this from Python", open=False):
                self._code = gr.Code(language="python", label="gradio_client", interactive=False, show_label=False)
        self._ranking = {"sae": self.sae, "where": where, "rank_by": rank_by, "top_k": top_k}
        inputs: set[Any] = {run_key, controls.image, controls.max_new_tokens, *self._ranking.values(), self._shown}
        self.inputs = inputs
        self.outputs = [self._message, self._view, self._key, self._shown, self._code, *self._downloads]
        tab.select(self.look, inputs, self.outputs, **QUIETLY)
        for control in (self.sae, where, rank_by):
            control.input(self.look, inputs, self.outputs, **QUIETLY)
        top_k.release(self.look, inputs, self.outputs, **QUIETLY)
        controls.model.change(self._known, controls.model, self.sae, api_visibility="private", show_progress="hidden")

    def _known(self, model: str | None) -> gr.Dropdown:
        """The SAEs of the chosen model."""
        names = self._service.saes.names(model or "")
        return gr.Dropdown(names, value=names[0] if names else None)

    def look(self, values: Values, request: gr.Request) -> Iterator[Updates]:
        """Rank the features, unless this ranking is already shown."""
        service, run, shown = self._service, values[self._run_key], values[self._shown]
        wanted = [run, *(values[component] for component in self._ranking.values())]
        if run is None or wanted == shown:
            yield {self._message: ""}
            return
        try:
            trace, ranking = service.remembered(run, Lens).trace, Ranking.of(named(self._ranking, values))
            if not service.saes.holds(ranking.sae, trace.model_name):
                yield {self._message: FIRST_SAE}
            found = service.features(trace, ranking)
        except InterpError as error:
            said = {self._message: message(str(error), error=True)}
            # After a wrong setting, features of the same picture stay.
            yield said if shown and shown[0] == run else {**said, **self._nothing()}
            return
        except Exception:
            yield {self._message: FAILED}
            raise
        key = service.remember(found)
        yield {
            self._message: "",
            self._view: feature_payload(found, run=key, study=service.studies.of(found.encoding.sae)),
            self._key: key,
            self._shown: wanted,
            self._code: self._snippet(found, ranking, values, request),
            **switched(self._downloads, on=True),
        }

    def _nothing(self) -> Updates:
        return {self._view: None, self._key: None, self._shown: None, self._code: "", **switched(self._downloads, on=False)}

    def _snippet(self, found: Features, ranking: Ranking, values: Values, request: gr.Request) -> str:
        """Python code that gets the same result from this server."""
        trace = found.encoding.trace
        arguments: dict[str, Any] = {
            "prompt": trace.prompt,
            "model": trace.model_name,
            "sae": ranking.sae,
            "where": ranking.where,
            "rank_by": ranking.rank_by,
            "top_k": ranking.top_k,
            "max_new_tokens": values[self._controls.max_new_tokens],
        }
        then = 'for feature in found["features"]:\n    print(feature["feature"], feature["label"], feature["score"])'
        return snippet(request, "/sae_features", values[self._controls.image], arguments, result="found", then=then)
