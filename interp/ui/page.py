"""The page: picture and prompt on the left, what the model sees on the right."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr

from ..service.attention_service import AttentionService
from ..service.attribution_service import AttributionService
from ..service.concepts_service import ConceptsService
from ..service.questions import Questions
from ..service.service import Service
from ..service.steer_service import SteerService
from ..service.study_service import StudyService
from ..service.whatif_service import WhatIfService
from . import controls as left
from .api.endpoints import add_endpoints
from .blocks import PageBlocks
from .components.inputs import AT_ONCE, QUEUE, QUIETLY
from .components.messages import message
from .controls import Updates, Values
from .opening import Opening
from .tabs import attention_tab, attribution_tab, concepts_tab, features_tab, lens_tab, steer_tab
from .tabs.attention_tab import AttentionTab, WordStates
from .tabs.attribution_tab import AttributionStates, AttributionTab
from .tabs.concepts_tab import ConceptsStates, ConceptsTab
from .tabs.features_tab import FeaturesTab
from .tabs.lens_tab import LensStates, LensTab
from .tabs.steer_tab import SteerTab
from .tabs.study_tab import StudyTab

TITLE = "LLaVA Microscope"
CSS = """
.gradio-container { max-width: 1500px !important; margin: 0 auto !important; }
#about p { margin: 0; opacity: .8; }
#message:not(:has(.message)), #sae-message:not(:has(.message)), #why-message:not(:has(.message)),
#attribution-message:not(:has(.message)), #concepts-message:not(:has(.message)), #study-message:not(:has(.message)), #concepts-learned:not(:has(.message)), #concepts-compared:not(:has(.message)), #steer-message:not(:has(.message)) { display: none; }
.message { padding: .5rem .75rem; border-radius: 8px; border: 1px solid var(--border-color-primary); font-size: .9rem; overflow-wrap: anywhere; }
.message.error { border-color: #dc2626; color: #b91c1c; background: #fef2f2; }
.dark .message.error { color: #fecaca; background: #450a0a; }
/* As wide as the column, however many tabs there are: those without room go into gradio's menu, instead of widening the page. */
#tabs { width: 0; min-width: 100%; }
.off-screen { position: absolute !important; left: -9999px; height: 1px; overflow: hidden; }
"""


def build(service: Service) -> gr.Blocks:
    """Build the whole app, without launching it."""
    steering, questions = SteerService(service), Questions(service)
    explaining, changing = AttentionService(service), WhatIfService(service)
    attributing, finding, studying = AttributionService(service), ConceptsService(service), StudyService(service)

    def left_page(request: gr.Request) -> None:
        for runs in (steering.runs, finding.learning.runs):
            runs.stop(request.session_hash)

    demo: gr.Blocks
    with PageBlocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400)) as demo:
        _header(service.notice)
        # Outside gr.Tabs, which would count them as tabs.
        lenses, selected, attributed, words = LensStates(), gr.State(lens_tab.TAB), AttributionStates(), WordStates()
        run_key, dictionary = lenses.run, ConceptsStates()
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                controls = left.lay_out(service)
            with gr.Column(scale=5, min_width=340), gr.Tabs(elem_id="tabs") as tabs:
                lens = LensTab(service, questions, explaining, controls, lenses)
                why = AttentionTab(explaining, changing, controls, run_key, words)
                features = FeaturesTab(service, questions, controls, run_key)
                attribution = AttributionTab(attributing, controls, run_key, features.sae, attributed)
                steer = SteerTab(service, steering, questions, controls, run_key, features.sae)
                concepts = ConceptsTab(finding, controls, run_key, dictionary)
                study = StudyTab(studying) if service.studies.names else None
        opening = Opening(service, steering, controls, lens, steer, tabs, selected, words.linked, attribution, concepts, study)
        shown: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": controls.answer, **QUEUE}
        runs = [gr.on([controls.run.click, controls.prompt.submit], lens.run, lens.inputs, lens.outputs, **shown)]
        chosen = [examples.load_input_event for examples in (*controls.examples, steer.examples)]
        runs += [event.success(lens.run, lens.inputs, lens.outputs, **shown) for event in chosen]
        runs.append(demo.load(opening.open, None, opening.outputs, **QUIETLY))
        following = (why, features, attribution, steer, concepts)
        listeners = {
            attention_tab.TAB: why.look,
            features_tab.TAB: features.look,
            attribution_tab.TAB: attribution.look,
            steer_tab.TAB: steer.after_run,
            concepts_tab.TAB: concepts.look,
        }
        inputs = {selected}.union(*(tab.inputs for tab in following))
        outputs = [component for tab in following for component in tab.outputs]
        for run in runs:
            # The last run counts, also if it ends while the one before is still being looked at.
            run.then(_follow(selected, listeners), inputs, outputs, trigger_mode="always_last", **QUIETLY)
        tabs.select(_open_tab, None, selected, **AT_ONCE)
        demo.unload(left_page)
        add_endpoints(service, steering, explaining, changing, attributing, finding, studying)
    return demo


def _header(notice: str) -> None:
    gr.Markdown(
        f"# {TITLE}\nWhat does each patch of a picture mean to a vision-language model, layer by layer? "
        "Which patches did a word of the answer look at and need? Which learned features are active, and how does the answer change when you turn one up or "
        "down? What concepts are its states made of?"
    )
    if notice:
        gr.HTML(message(notice, error=True), elem_id="notice")


def _follow(selected: gr.State, listeners: Mapping[str, Callable[[Values, gr.Request], Iterator[Updates]]]) -> Any:
    """The listener that shows a new run in the tab that is open, by the tab's name."""

    def follow(values: Values, request: gr.Request) -> Iterator[Updates]:
        listener = listeners.get(values[selected])
        # Never nothing: gradio empties all outputs of a generator that ends without a yield.
        yield from [gr.skip()] if listener is None else listener(values, request)

    return follow


def _open_tab(event: gr.SelectData) -> str:
    return str(event.value)
