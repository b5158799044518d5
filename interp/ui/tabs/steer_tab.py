"""The tab "Steer": edits, the plain and the steered answer, a sweep, both lenses, a link."""

import gradio as gr

from ...service.questions import Questions
from ...service.service import Service
from ...service.steer_service import SteerRun, SteerService
from ..components.downloads import download_buttons
from ..components.edits_view import EditsView
from ..components.inputs import AT_ONCE, QUEUE, QUIETLY, Whole
from ..components.lens_view import LensView
from ..components.steer_view import SteerView
from ..controls import EXAMPLES, Controls
from ..files import write_steering_json
from .link_row import LinkRow
from .steer_listeners import SteerListeners, SteerParts, pick

TAB = "Steer"


class SteerTab:
    """The tab. `run_key` is the key of the last run's lens, `sae` the SAE chosen for features.

    `linked`: the components that a link sets, by setting, with the editor as "edits". Choosing one of `examples` starts a run.
    """

    def __init__(
        self,
        service: Service,
        steering: SteerService,
        questions: Questions,
        controls: Controls,
        run_key: gr.State,
        sae: gr.Dropdown,
    ) -> None:
        with gr.Tab(TAB, id="steer", elem_id="steer-tab") as tab:
            edits = EditsView(server_functions=[steering.steerable])
            with gr.Row(elem_id="steer-controls"):
                go = gr.Button("Steer", variant="primary", elem_id="steer-run", min_width=120)
                stop = gr.Button("Stop", elem_id="steer-stop", min_width=80)
                reset = gr.Button("Reset", elem_id="steer-reset", min_width=80)
                sweep = gr.Checkbox(value=True, label="Sweep values", elem_id="steer-sweep", min_width=140)
                words = gr.Textbox(
                    label="Words to watch",
                    placeholder="those edited",
                    elem_id="steer-words",
                    min_width=220,
                )
            told = gr.HTML("", elem_id="steer-message")
            view = SteerView()
            pictures = [[str(file)] for file in sorted(EXAMPLES.glob("*.webp"))]
            self.examples = gr.Examples(pictures, controls.image, label="Try these edits on another picture", api_visibility="private")
            with gr.Accordion("Compare the logit lenses of both runs", open=False, elem_id="steer-lenses"):
                compare = gr.Button("Compare", size="sm", elem_id="steer-compare")
                with gr.Row():
                    with gr.Column(min_width=320):
                        gr.Markdown("**Without edits**")
                        plain_lens = LensView(label="Without edits", server_functions=[questions.find_word, questions.read_lens])
                    with gr.Column(min_width=320):
                        gr.Markdown("**Steered** (layers below the first edit are identical)")
                        steered_lens = LensView(label="Steered", server_functions=[questions.find_word, questions.read_lens])
            with gr.Accordion("Sampling", open=False):
                temperature = gr.Slider(0, 2, 0, step=0.05, label="Temperature (0: greedy decoding)", elem_id="steer-temperature")
                seed = Whole(0, minimum=0, label="Seed (shared by both answers)", elem_id="steer-seed")
            key = gr.State()
            files = [("Download as JSON", "steering-json", write_steering_json)]
            downloads = download_buttons(files, lambda key: service.remembered(key, SteerRun).steered, key)
            link = LinkRow("state", "steer")
            with gr.Accordion("Do this from Python", open=False):
                code = gr.Code(language="python", label="gradio_client", interactive=False, show_label=False)
        settings = {**controls.of_a_trace, "temperature": temperature, "seed": seed, "words": words, "sweep": sweep}
        parts = SteerParts(run_key, sae, settings, edits, told, view, key, code, downloads, plain_lens, steered_lens)
        on = SteerListeners(service, steering, questions, parts)
        asked, looked = {edits, *settings.values()}, {run_key, sae, edits}
        outputs = [told, view, key, code, *downloads]
        tab.select(on.look, looked, [told, edits], **QUIETLY)
        runs = [press(on.answer, asked, outputs, trigger_mode="always_last", **QUIETLY) for press in (go.click, edits.run, words.submit)]
        runs.append(view.select(pick, edits, edits, **AT_ONCE).then(on.answer, asked, outputs, **QUIETLY))
        stop.click(on.stop, None, None, **AT_ONCE)
        # Cancelled, not stopped: a run that is stopped still shows what it has, and that could come after the reset.
        reset.click(on.empty, edits, [edits, view, told], cancels=runs, **AT_ONCE)
        compare.click(on.lenses, key, [told, plain_lens, steered_lens], show_progress="minimal", **QUEUE)
        link.shows(on.linked, asked, controls.image, told)
        self.after_run, self.inputs, self.outputs = on.after_run, {*looked, *asked}, [edits, *outputs]
        self.linked = {"edits": edits, **settings}
