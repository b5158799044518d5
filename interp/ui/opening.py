"""What the page shows first: the answer for an example, or the state stored in a link."""

from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr

from ..errors import InterpError
from ..service.requests import AttributionRequest, ConceptsLook
from ..service.service import Service
from ..service.steer_service import SteerService
from ..web.payloads.edits import EditsPayload
from . import share
from .components.messages import message
from .controls import EXAMPLES, PICTURES, PROMPTS, Controls, Updates, example
from .tabs import attention_tab, attribution_tab, concepts_tab, study_tab
from .tabs.attribution_tab import AttributionTab
from .tabs.concepts_tab import ConceptsTab
from .tabs.lens_tab import LensTab
from .tabs.steer_tab import TAB, SteerTab
from .tabs.study_tab import StudyTab


class Opening:
    """The listener of the page's load event. `selected` holds the name of the open tab, `linked` the word that a link explains."""

    def __init__(
        self,
        service: Service,
        steering: SteerService,
        controls: Controls,
        lens: LensTab,
        steer: SteerTab,
        tabs: gr.Tabs,
        selected: gr.State,
        linked: gr.State,
        attribution: AttributionTab,
        concepts: ConceptsTab,
        study: StudyTab | None,
    ) -> None:
        self._service, self._steering, self._controls, self._lens, self._steer = service, steering, controls, lens, steer
        self._tabs, self._selected, self._linked, self._attribution, self._concepts = tabs, selected, linked, attribution, concepts
        self._study = study
        others = [attribution.linked, attribution.sae, *concepts.opening]
        self.outputs = [*lens.outputs, *steer.linked.values(), tabs, selected, linked, *others, *(study.opening if study else [])]

    def open(self, request: gr.Request) -> Iterator[Updates]:
        """The first lens, then the values from a link, or what is wrong with it."""
        settings: dict[str, Any] = {"image": example(PICTURES[0]), "prompt": PROMPTS[0], "model": "", "max_new_tokens": 32}
        updates: Updates = {}
        said, look = "", None
        if "feature" in request.query_params:
            try:
                yield self._of_a_study(request.query_params)
            except InterpError as error:
                said = message(f"{error} The page opens as usual.", error=True)
        elif packed := request.query_params.get(share.PARAMETER):
            try:
                state = share.unpack(packed)
                asked, editor, word = share.settings(state), self._steering.linked_editor(state), share.word(state)
                image, said = _picture(state, settings["image"])
                look = share.lens(state)
                settings = {**asked, "image": image}
                if carried := share.carried(state):
                    updates = self._attribute(settings, carried)
                elif made_of := share.concepts(state):
                    updates = self._made_of(settings, made_of)
                elif look is not None:
                    updates = self._of_a_trace(settings)
                else:
                    updates = self._set(settings, editor) if word is None else self._explain(settings, word)
            except InterpError as error:
                said = message(str(error), error=True)
        model = settings["model"] or self._service.default_model
        yield from self._lens.answer({**settings, "model": model, "top_k": 5, "layers": "auto"}, request, look)
        if said:
            updates[self._controls.message] = said
        if updates:
            yield updates

    def _of_a_study(self, query: Mapping[str, str]) -> Updates:
        """At once: it needs no model."""
        if self._study is None:
            self._service.studies.get(query.get("study"))  # which says how to open one
            raise AssertionError
        return {**self._study.opened(query), self._tabs: gr.Tabs(selected="study"), self._selected: study_tab.TAB}

    def _set(self, settings: dict[str, Any], editor: EditsPayload) -> Updates:
        values = {**settings, "edits": editor}
        fields = {component: values[name] for name, component in self._steer.linked.items()}
        return {**fields, self._tabs: gr.Tabs(selected="steer"), self._selected: TAB}

    def _explain(self, settings: dict[str, Any], word: dict[str, Any]) -> Updates:
        shown = {self._tabs: gr.Tabs(selected="why"), self._selected: attention_tab.TAB, self._linked: word}
        return {**self._of_a_trace(settings), **shown}

    def _attribute(self, settings: dict[str, Any], carried: AttributionRequest) -> Updates:
        """Only an SAE that is known here is chosen: a link must not make a server load another."""
        known = carried.sae in self._service.saes.names(settings["model"])
        sae = {self._attribution.sae: carried.sae} if known else {}
        shown = {self._tabs: gr.Tabs(selected="attribution"), self._selected: attribution_tab.TAB, self._attribution.linked: carried}
        return {**self._of_a_trace(settings), **shown, **sae}

    def _made_of(self, settings: dict[str, Any], look: ConceptsLook) -> Updates:
        chosen = self._concepts.opened(look, settings["model"] or self._service.default_model)
        return {**self._of_a_trace(settings), self._tabs: gr.Tabs(selected="concepts"), self._selected: concepts_tab.TAB, **chosen}

    def _of_a_trace(self, settings: dict[str, Any]) -> Updates:
        return {component: settings[name] for name, component in self._controls.of_a_trace.items()}


def _picture(state: dict[str, Any], otherwise: str) -> tuple[str, str]:
    """The path of a link's picture and "", or `otherwise` and an error message."""
    try:
        return share.picture(state.get("picture"), EXAMPLES), ""
    except InterpError as error:
        return otherwise, message(str(error), error=True)
