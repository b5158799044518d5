"""The tab "Steer": edits, the plain and the steered answer, a sweep, both lenses, a link. Lays it out and wires it; computes nothing itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ...service.service import Service
from ...service.steer_service import SteerRun, SteerService
from ..api import write_steering_json
from ..components.edits_view import EditsView
from ..components.inputs import QUEUE, download_buttons
from ..components.lens_view import LensView
from ..components.steer_view import SteerView
from .steer_listeners import EXAMPLES, TAB, SteerListeners, emptied, pick

Listener = tuple[Callable[..., Any], list[Any], list[Any]]


@dataclass(frozen=True)
class SteerTab:
    """What the page needs of this tab."""

    after_run: list[Listener]
    """Listeners for after a run, each with its inputs and outputs, in order."""
    linked: list[Any]
    """What a link sets: the editor, temperature, seed, words, sweep."""


def steer_tab(
    service: Service, steering: SteerService, run_key: gr.State, selected: gr.State, controls: dict[str, Any], sae: gr.Dropdown
) -> SteerTab:
    """Build the tab. `run_key` names the last run's lens, `selected` the open tab, `sae` is the dictionary chosen for features."""
    with gr.Tab(TAB, id="steer", elem_id="steer-tab") as tab:
        edits = EditsView(server_functions=[steering.steerable])
        with gr.Row(elem_id="steer-controls"):
            go = gr.Button("Steer", variant="primary", elem_id="steer-run", min_width=120)
            stop = gr.Button("Stop", elem_id="steer-stop", min_width=80)
            reset = gr.Button("Reset", elem_id="steer-reset", min_width=80)
            sweep = gr.Checkbox(value=True, label="Sweep", info="several values at once", elem_id="steer-sweep", min_width=140)
            words = gr.Textbox(
                label="Words to watch",
                placeholder="dog, pizza (empty: the names of the edited features)",
                elem_id="steer-words",
                min_width=220,
            )
        told = gr.HTML("", elem_id="steer-message")
        view = SteerView()
        controls["examples"].append(
            gr.Examples(
                [[str(file)] for file in sorted(EXAMPLES.glob("*.webp"))],
                controls["image"],
                label="Try these edits on another picture",
                api_visibility="private",
            )
        )
        with gr.Accordion("Logit lens of the steered run beside the plain one", open=False, elem_id="steer-lenses"):
            compare = gr.Button("Read both", size="sm", elem_id="steer-compare")
            with gr.Row():
                with gr.Column(min_width=320):
                    gr.Markdown("**Without edits**")
                    plain_lens = LensView(label="Without edits", server_functions=[service.find_word])
                with gr.Column(min_width=320):
                    gr.Markdown("**SteeringResult**: layers below the first edit are the same on both sides")
                    steered_lens = LensView(label="SteeringResult", server_functions=[service.find_word])
        with gr.Accordion("Sampling", open=False):
            temperature = gr.Slider(0, 2, 0, step=0.05, label="Temperature (0: always the likeliest word)", elem_id="steer-temperature")
            seed = gr.Number(0, precision=0, minimum=0, label="Seed: the same noise for every answer", elem_id="steer-seed")
        key = gr.State()
        downloads = download_buttons(
            [("Download as JSON", "steering-json", write_steering_json)], lambda k: service.remembered(k, SteerRun).steered, key
        )
        with gr.Row():
            share_button = gr.Button("Make a link", size="sm", elem_id="steer-share")
            link = gr.Textbox(label="Link to this state", interactive=False, buttons=["copy"], elem_id="steer-link", visible=False)
        with gr.Accordion("Do the same from Python", open=False):
            snippet = gr.Code(language="python", label="gradio_client", interactive=False, show_label=False)
    asked = [edits, controls["image"], controls["prompt"], controls["model"], controls["max_new_tokens"], temperature, seed, words, sweep]
    outputs = [told, view, key, snippet, *downloads]
    on = SteerListeners(service, steering, downloads)
    quietly = {**QUEUE, "show_progress": "hidden"}
    at_once: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    tab.select(on.look, [run_key, sae, edits], [told, edits], **quietly)
    for press in (go.click, edits.run, words.submit):
        press(on.answer, asked, outputs, trigger_mode="always_last", **quietly)
    view.select(pick, edits, edits, **at_once).then(on.answer, asked, outputs, **quietly)
    stop.click(on.stop, None, None, **at_once)
    reset.click(on.stop, None, None, **at_once).then(emptied, edits, [edits, view, told], **at_once)
    compare.click(on.lenses, key, [told, plain_lens, steered_lens], show_progress="minimal", **QUEUE)
    share_button.click(on.link, asked, [told, link], **at_once)
    after_run: list[Listener] = [
        (on.look_if_open, [selected, run_key, sae, edits], [told, edits]),
        (on.answer_if_open, [selected, *asked], outputs),
    ]
    return SteerTab(after_run, [edits, temperature, seed, words, sweep])
