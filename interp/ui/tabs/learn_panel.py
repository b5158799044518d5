"""The part of the tab "Concepts" that learns a dictionary from a visitor's own pictures."""

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

import gradio as gr

from ...concepts.collect import PROMPT
from ...errors import InterpError
from ...service.concept_learning import LIMITS
from ...service.concept_shelf import Learned
from ...service.concepts_service import ConceptsService
from ...service.requests import LearnRequest
from ...service.streaming import Done, stream
from ...steering.batch import StoppedError
from ..components.inputs import AT_ONCE, PicturesZip, Whole
from ..components.messages import FAILED, message
from ..controls import Controls, Updates, Values

_WHAT = (
    "The model answers each picture, and the states you choose are split into concepts, which the tab then shows on your picture. {limits} To learn from more, "
    "use `interp.collect` and `interp.learn_concepts` in Python."
)
_PLACES = [
    ("every patch", "patches"),
    ("the answer", "answer"),
    ("the end of the answer", "end"),
    ("the end of the prompt", "last"),
    ("the picture, averaged", "image"),
]
_METHODS = [("k-means", "k-means"), ("semi-NMF (slower)", "semi-nmf"), ("PCA", "pca")]


class LearnPanel:
    """The panel. `mine` holds what this visitor had learned, as [label, name, model]; `dictionary` is set to what was learned last."""

    def __init__(self, finding: ConceptsService, controls: Controls, dictionary: gr.Dropdown, mine: gr.State) -> None:
        self._finding, self._controls, self._dictionary, self._mine = finding, controls, dictionary, mine
        service = finding.service
        with gr.Accordion("Learn from your own pictures", open=False, elem_id="concepts-learn"):
            on = service.can_learn
            gr.Markdown(_WHAT.format(limits=LIMITS) if on else service.why_not_learn)
            with gr.Group(visible=on):
                with gr.Row():
                    self._zip = PicturesZip(label="Zip of pictures", file_types=[".zip"], height=120, elem_id="concepts-zip")
                    self._folder = gr.Textbox(
                        label="or a folder on this machine", lines=1, visible=service.own_files, elem_id="concepts-folder"
                    )
                with gr.Row():
                    self._prompt = gr.Textbox(PROMPT, label="Asked of each picture", elem_id="concepts-prompt", min_width=220)
                    self._where = gr.Dropdown(
                        _PLACES,
                        value="patches",
                        label="States of (or a word of the answer)",
                        allow_custom_value=True,
                        elem_id="concepts-where",
                        min_width=200,
                    )
                with gr.Row():
                    self.layer = Whole(
                        finding.learning.layer(service.default_model),
                        label="Layer (empty: the middle one)",
                        elem_id="concepts-layer",
                        min_width=120,
                    )
                    self._method = gr.Dropdown(_METHODS, value="k-means", label="Method", elem_id="concepts-method", min_width=140)
                    self._n = Whole(20, label="Concepts", elem_id="concepts-n", min_width=100)
                with gr.Row():
                    self._go = gr.Button("Learn", variant="primary", elem_id="concepts-learn-run", min_width=120)
                    stop = gr.Button("Stop", elem_id="concepts-learn-stop", min_width=80)
            self.message = gr.HTML("", elem_id="concepts-learned")
        stop.click(self.stop, None, None, **AT_ONCE)

    def bind(self) -> gr.events.Dependency:
        """Make the button work. What it returns is followed by showing what was learned."""
        fields = {self._zip, self._folder, self._prompt, self._where, self.layer, self._method, self._n}
        inputs: set[Any] = {*fields, self._controls.model, self._controls.max_new_tokens, self._mine}
        outputs = [self.message, self._dictionary, self._mine]
        # A queue of its own: other visitors' runs go on between two batches of pictures.
        learning: dict[str, Any] = {
            "api_visibility": "private",
            "concurrency_id": "learn",
            "concurrency_limit": 4,
            "show_progress": "hidden",
        }
        return self._go.click(self.learn, inputs, outputs, **learning)

    def choices(self, model: str, mine: list[list[str]] | None) -> list[tuple[str, str]]:
        """The dictionaries of a model, and this visitor's own, as (label, name)."""
        own = [(label, name) for label, name, of in mine or () if of == model and self._finding.shelf.learned(name)]
        return [*((name, name) for name in self._finding.shelf.names(model)), *own]

    def learn(self, values: Values, request: gr.Request) -> Iterator[Updates]:
        """Learn, with progress, until it is done or stopped; what is shown stays until then."""
        asked = {
            "pictures": values[self._zip],
            "folder": (values[self._folder] or "").strip(),
            "prompt": values[self._prompt],
            "model": values[self._controls.model] or "",
            "layer": values[self.layer],
            "where": values[self._where],
            "n": values[self._n],
            "method": values[self._method],
            "max_new_tokens": values[self._controls.max_new_tokens],
        }
        try:
            # Closed, and the run ended, as soon as the visitor leaves.
            with contextlib.closing(self._steps(LearnRequest.of(asked), values[self._mine] or [], request)) as steps:
                yield from steps
        except StoppedError:
            yield {self.message: message("Stopped. Nothing was learned, and what is shown stays.")}
        except InterpError as error:
            yield {self.message: message(str(error), error=True)}
        except Exception:
            yield {self.message: FAILED}
            raise

    def _steps(self, asked: LearnRequest, mine: list[list[str]], request: gr.Request) -> Generator[Updates, None, None]:
        learning = self._finding.learning
        yield {self.message: message("Looking through the pictures …")}
        with learning.runs.running(request.session_hash) as stop:
            for step in stream(lambda tell: learning.learn(asked, tell, stop)):
                if isinstance(step, Done):
                    yield self._learned(step.result, mine)
                else:
                    yield {self.message: message(step)}

    def _learned(self, learned: Learned, mine: list[list[str]]) -> Updates:
        model = learned.concepts.model_name
        mine = [*mine, [learned.label, learned.name, model]]
        return {
            self.message: message(f"Learned, and shown above. {learned.about}"),
            self._mine: mine,
            self._dictionary: gr.Dropdown(self.choices(model, mine), value=learned.name),
        }

    def stop(self, request: gr.Request) -> None:
        """Stop this visitor's learning."""
        self._finding.learning.runs.stop(request.session_hash)
