"""The tab "Logit lens": runs the model and shows, exports and reproduces its lens."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr

from ...errors import InterpError
from ...lens.lens import Lens
from ...service.questions import Questions
from ...service.requests import LensRequest
from ...service.service import Service
from ...service.streaming import Done, stream
from ...web.payloads.lens import lens_payload
from ..components.downloads import download_buttons, switched
from ..components.lens_view import LensView
from ..components.messages import FAILED, message
from ..controls import Controls, Updates, Values, about_model, named
from ..files import write_html, write_json
from ..snippets import snippet

TAB = "Logit lens"
_LOOKING = "Reading the picture and the prompt …"


class LensTab:
    """The tab. A run updates `outputs`, which include parts of the left column, and `run_key`, by which the other tabs find the run."""

    def __init__(self, service: Service, questions: Questions, controls: Controls, run_key: gr.State) -> None:
        self._service, self._controls, self._run_key = service, controls, run_key
        with gr.Tab(TAB, id="lens"):
            self._view = LensView(label=TAB, server_functions=[questions.find_word])
            files = [("Download as HTML", "html", write_html), ("Download as JSON", "json", write_json)]
            self._downloads = download_buttons(files, lambda key: service.remembered(key, Lens), run_key)
            with gr.Accordion("Do this from Python", open=False):
                self._code = gr.Code(language="python", label="gradio_client", interactive=False, show_label=False)
        self.inputs = set(controls.of_a_lens.values())
        self.outputs = [
            controls.answer,
            controls.message,
            controls.about,
            self._view,
            run_key,
            self._code,
            *self._downloads,
        ]

    def run(self, values: Values, request: gr.Request) -> Iterator[Updates]:
        """Run the model with the settings of the left column."""
        yield from self.answer(named(self._controls.of_a_lens, values), request)

    def answer(self, asked: Mapping[str, Any], request: gr.Request) -> Iterator[Updates]:
        """Run the model; `asked` has the fields of `LensRequest`."""
        controls = self._controls
        yield {controls.answer: "", controls.message: message(_LOOKING)}
        try:
            for step in steps(self._service, LensRequest.of(asked)):
                if isinstance(step, Done):
                    yield self._result(step.result, asked, request)
                else:
                    text, doing = step
                    yield {controls.answer: text, controls.message: message(doing)}
        except InterpError as error:
            yield {controls.message: message(str(error), error=True)}
        except Exception:
            yield {controls.message: FAILED}
            raise

    def _result(self, lens: Lens, asked: Mapping[str, Any], request: gr.Request) -> Updates:
        key = self._service.remember(lens)
        arguments = {name: asked[name] for name in ("prompt", "model", "top_k", "max_new_tokens", "layers")}
        code = snippet(
            request, "/logit_lens", asked["image"], arguments, result="summary, html, everything", then='print(summary["answer"])'
        )
        return {
            self._controls.answer: lens.trace.answer,
            self._controls.message: "",
            self._controls.about: about_model(self._service, lens.trace.vlm.name),
            self._view: lens_payload(lens, run=key),
            self._run_key: key,
            self._code: code,
            **switched(self._downloads, on=True),
        }


def steps(service: Service, asked: LensRequest) -> Iterator[Any]:
    """Yields (answer so far, status) while the model is loaded, if needed, and answers; then `Done` with the lens."""

    def look(show: Callable[[tuple[str, str]], None]) -> Lens:
        service.vlm(asked.model, on_progress=lambda doing: show(("", doing)))
        show(("", _LOOKING))
        trace = service.trace(asked, on_text=lambda text: show((text, "Answering …")))
        show((trace.answer, f"Reading {trace.n_layers} layers …"))
        return service.read(trace, asked.top_k, every=asked.layers == "all")

    yield from stream(look)
