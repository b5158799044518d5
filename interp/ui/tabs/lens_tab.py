"""The tab "Lens": runs the model and shows, exports and reproduces what its lenses read."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from ...errors import InterpError
from ...lens.lens import Lens
from ...service.attention_service import AttentionService
from ...service.questions import Questions
from ...service.requests import LensLook, LensRequest
from ...service.service import Service
from ...service.streaming import Done, stream
from .. import share
from ..components.downloads import download_buttons, switched
from ..components.inputs import AT_ONCE
from ..components.lens_view import LensView
from ..components.messages import FAILED, message
from ..controls import Controls, Updates, Values, about_model, named
from ..files import write_html, write_json
from ..snippets import snippet
from .link_row import LinkRow

TAB = "Lens"
_LOOKING = "Reading the picture and the prompt …"
_MAP = "activation_map"


@dataclass(frozen=True)
class LensStates:
    """The tab's states. They are made outside gr.Tabs, which would count them as tabs."""

    run: gr.State = field(default_factory=gr.State)
    """The key of the last run, by which the other tabs find it."""
    look: gr.State = field(default_factory=gr.State)
    """What is looked at: a `LensLook`, None before the first run."""


class LensTab:
    """The tab. A run updates `outputs`, which include parts of the left column."""

    def __init__(
        self, service: Service, questions: Questions, explaining: AttentionService, controls: Controls, states: LensStates
    ) -> None:
        self._service, self._questions, self._controls, self._states = service, questions, controls, states
        with gr.Tab(TAB, id="lens"):
            self._view = LensView(label=TAB, server_functions=[questions.find_word, questions.read_lens, explaining.word_map])
            files = [
                ("Download as HTML", "html", lambda lenses: write_html(lenses[0], lenses[1:])),
                ("Download as JSON", "json", lambda lenses: write_json(lenses[0])),
            ]
            self._downloads = download_buttons(files, self._lenses, states.run, states.look)
            link = LinkRow("lens", "lens")
            with gr.Accordion("Do this from Python", open=False):
                self._code = gr.Code(language="python", label="gradio_client", interactive=False, show_label=False)
        self.inputs = {*controls.of_a_lens.values(), states.look}
        self.outputs = [controls.answer, controls.message, controls.about, self._view, states.run, self._code, *self._downloads]
        shown: set[Any] = {states.run, states.look, *controls.of_a_lens.values()}
        self._view.select(self._looked, shown, [self._code, states.look], **AT_ONCE)
        link.shows(self._linked, shown, controls.image, controls.message)

    def run(self, values: Values, request: gr.Request) -> Iterator[Updates]:
        """Run the model with the settings of the left column, and stay with the lens that was chosen for this model."""
        look = values[self._states.look] or LensLook()
        asked = named(self._controls.of_a_lens, values)
        kept = LensLook(method=look.method) if look.model == asked["model"] else None
        yield from self.answer(asked, request, kept)

    def answer(self, asked: Mapping[str, Any], request: gr.Request, look: LensLook | None = None) -> Iterator[Updates]:
        """Run the model; `asked` has the fields of `LensRequest`, `look` what to open with."""
        controls = self._controls
        yield {controls.answer: "", controls.message: message(_LOOKING)}
        try:
            for step in steps(self._service, LensRequest.of(asked), look or LensLook()):
                if isinstance(step, Done):
                    yield self._result(step.result, asked, request, look or LensLook())
                else:
                    text, doing = step
                    yield {controls.answer: text, controls.message: message(doing)}
        except InterpError as error:
            yield {controls.message: message(str(error), error=True)}
        except Exception:
            yield {controls.message: FAILED}
            raise

    def _result(self, lens: Lens, asked: Mapping[str, Any], request: gr.Request, look: LensLook) -> Updates:
        shelf, vlm = self._service.lens_shelf, lens.trace.vlm
        view = self._questions.lens_view(lens, layer=look.layer, locked=look.row)
        lacks = look.method not in {"", _MAP, lens.method}
        return {
            self._controls.answer: lens.trace.answer,
            self._controls.message: message(f"{shelf.lacking(look.method, vlm)} Another lens is shown.", error=True) if lacks else "",
            self._controls.about: about_model(self._service, vlm.name),
            self._view: view,
            self._states.run: view["run"],
            self._code: self._snippet(lens, asked, LensLook(method=lens.method), request),
            **switched(self._downloads, on=True),
        }

    def _looked(self, values: Values, event: gr.SelectData, request: gr.Request) -> Updates:
        """Keep what is looked at, with Python code that gets it from this server."""
        try:
            look = LensLook.of(event.value if isinstance(event.value, dict) else {})
            lens = self._service.remembered(values[self._states.run], Lens)
        except InterpError:  # the run is gone; the view says so when it asks for something
            return {self._states.look: None}
        return {self._states.look: look, self._code: self._snippet(lens, named(self._controls.of_a_lens, values), look, request)}

    @staticmethod
    def _snippet(lens: Lens, asked: Mapping[str, Any], look: LensLook, request: gr.Request) -> str:
        common = {"prompt": lens.trace.prompt, "model": lens.trace.model_name, "max_new_tokens": asked["max_new_tokens"]}
        if look.method == _MAP:
            own = {"token": look.token, "method": _MAP}
            return snippet(
                request,
                "/attention",
                asked["image"],
                {**common, **own},
                result="summary, everything",
                then='for row in summary["map"][0]:\n    print(row)',
            )
        own = {"top_k": lens.ids.shape[-1], "layers": asked["layers"], "method": look.method}
        then = 'print(summary["answer"])\nfor row in summary["patch_words"][0]:\n    print([patch["word"] for patch in row])'
        return snippet(request, "/logit_lens", asked["image"], {**common, **own}, result="summary, html, everything", then=then)

    def _lenses(self, run: str, look: LensLook | None) -> list[Lens]:
        """The lens that is looked at, then the others that were read."""
        own = self._service.remembered(run, Lens)
        if look is None:
            return [own]
        shown = look.read[-1:] if look.method == _MAP else (look.method,)
        methods = dict.fromkeys([*shown, own.method, *look.read])
        return [own if method == own.method else self._service.read_again(own, method) for method in methods]

    def _linked(self, values: Values) -> dict[str, Any]:
        """What a link to what is looked at holds. A link to an activation map leads to the tab that tests maps."""
        look = values[self._states.look] or LensLook()
        trace = self._service.remembered(values[self._states.run], Lens).trace
        about = trace.prompt, trace.model_name, values[self._controls.max_new_tokens]
        if look.method == _MAP:
            return share.word_state(*about, {"token": look.token, "method": _MAP})
        return share.lens_state(*about, look)


def steps(service: Service, asked: LensRequest, look: LensLook = LensLook()) -> Iterator[Any]:  # noqa: B008 - it is frozen
    """Yields (answer so far, status) while the model is loaded, if needed, and answers; then `Done` with the lens.

    The lens is the one that `look` names if the model has it, else the one that the model opens with.
    """

    def work(show: Callable[[tuple[str, str]], None]) -> Lens:
        vlm = service.vlm(asked.model, on_progress=lambda doing: show(("", doing)))
        show(("", _LOOKING))
        trace = service.trace(asked, on_text=lambda text: show((text, "Answering …")))
        show((trace.answer, f"Reading {trace.n_layers} layers …"))
        method = look.method if look.method in service.lens_shelf.methods(vlm) else ""
        return service.read(trace, asked.top_k, every=asked.layers == "all", method=method)

    yield from stream(work)
