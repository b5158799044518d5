"""The page: a picture and a prompt at the left, what the model sees at the right. Wires gradio to `Service`; computes nothing itself."""

import html
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from ..errors import InterpError
from ..lens import Lens
from ..presets import ASSETS, PRESETS
from .api import add_endpoints, write_html, write_json
from .components import Picture, download_buttons, message
from .features_tab import features_tab
from .lens_view import LensView
from .payload import lens_payload
from .service import MAX_NEW_TOKENS, Service

TITLE = "LLaVA Microscope"
Progress = tuple[str, str]  # the answer so far, what is being done
PICTURES = (
    "dog-and-pizza",
    "three-things",
    "one-owl",
    "two-cameras",
    "whale-at-the-border",
    "outside-the-crop",
    "held-out-vendor",
)
PROMPTS = (
    "Describe the image.",
    "What is on the left?",
    "What is on the right?",
    "How many objects are there?",
    "What color is the background?",
    "Is there a dog?",
)
SHARED = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}
CSS = """
.gradio-container { max-width: 1500px !important; margin: 0 auto !important; }
#about p { margin: 0; opacity: .8; }
#message:not(:has(.message)), #sae-message:not(:has(.message)) { display: none; }
.message { padding: .5rem .75rem; border-radius: 8px; border: 1px solid var(--border-color-primary); font-size: .9rem; overflow-wrap: anywhere; }
.message.error { border-color: #dc2626; color: #b91c1c; background: #fef2f2; }
.dark .message.error { color: #fecaca; background: #450a0a; }
.off-screen { position: absolute !important; left: -9999px; height: 1px; overflow: hidden; }
"""


def build(service: Service) -> gr.Blocks:
    """The whole app as gr.Blocks, not yet launched."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400)) as demo:
        gr.Markdown(
            f"# {TITLE}\nWhat does each patch of a picture mean to a vision-language model, layer by layer, and which learned features does it light up?"
        )
        run_key = gr.State()
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                controls = _controls(service)
            with gr.Column(scale=5, min_width=340), gr.Tabs() as tabs:
                with gr.Tab("Logit lens", id="lens"):
                    view = LensView(label="Logit lens", server_functions=[service.find_word])
                    files = [("Download as HTML", "html", write_html), ("Download as JSON", "json", write_json)]
                    downloads = download_buttons(files, lambda key: service.remembered(key, Lens), run_key)
                    with gr.Accordion("Do the same from Python", open=False):
                        snippet = gr.Code(language="python", label="gradio_client", interactive=False, show_label=False)
                features = features_tab(service, tabs, run_key, controls, SHARED)
        inputs = [controls["image"], controls["prompt"], controls["model"], controls["max_new_tokens"], controls["top_k"]]
        outputs = [controls["answer"], controls["message"], view, run_key, snippet, controls["about"], *downloads]

        def run(
            image: str | None, prompt: str, model: str, max_new_tokens: float, top_k: float, request: gr.Request
        ) -> Iterator[tuple[Any, ...]]:
            unchanged = [gr.skip()] * (len(outputs) - 2)
            yield ("", message("Looking at the picture …"), *unchanged)
            try:
                for step in _stream(
                    lambda show: service.lens(
                        image,
                        prompt,
                        model,
                        top_k=top_k,
                        max_new_tokens=max_new_tokens,
                        on_text=lambda text: show((text, "Answering …")),
                        on_trace=lambda trace: show((trace.answer, f"Reading {trace.layers} layers …")),
                    )
                ):
                    if isinstance(step, tuple):
                        answer, doing = step
                        yield (answer, message(doing), *unchanged)
                        continue
                    key = service.remember(step)
                    code = _snippet(request, image, prompt, model, max_new_tokens, top_k)
                    about, buttons = _about(step.trace.vlm.name), [gr.Button(interactive=True)] * len(downloads)
                    yield (step.trace.answer, "", lens_payload(step, run=key), key, code, about, *buttons)
            except InterpError as error:
                yield (gr.skip(), message(str(error), error=True), *unchanged)
            except Exception:
                yield (gr.skip(), message("The server failed; its log says why. Nothing you entered is lost.", error=True), *unchanged)
                raise

        def opening(request: gr.Request) -> tuple[Any, ...]:
            *_, last = run(_example(PICTURES[0]), PROMPTS[0], service.default_model, 32, 5, request)
            return last

        shown = {"show_progress": "minimal", "show_progress_on": controls["answer"], **SHARED}
        runs = [gr.on([controls["run"].click, controls["prompt"].submit], run, inputs, outputs, **shown)]
        runs += [listed.load_input_event.success(run, inputs, outputs, **shown) for listed in controls["examples"]]
        for done in runs:
            done.then(features.refresh, features.inputs, features.outputs, show_progress="hidden", **SHARED)
        demo.load(opening, None, outputs, show_progress="hidden", **SHARED)
        add_endpoints(service)
    return demo


def _controls(service: Service) -> dict[str, Any]:
    controls: dict[str, Any] = {}
    controls["image"] = Picture(
        _example(PICTURES[0]), label="Picture", type="filepath", sources=["upload", "clipboard", "webcam"], height=280, elem_id="picture"
    )
    controls["prompt"] = gr.Textbox(PROMPTS[0], label="Prompt", lines=1, max_lines=4, elem_id="prompt", submit_btn=False)
    controls["run"] = gr.Button("Run", variant="primary", elem_id="run")
    controls["message"] = gr.HTML("", elem_id="message")
    controls["answer"] = gr.Textbox(label="Answer", interactive=False, lines=2, elem_id="answer")
    controls["examples"] = [
        gr.Examples([[_example(name)] for name in PICTURES], controls["image"], label="Pictures to try", api_visibility="private"),
        gr.Examples([[prompt] for prompt in PROMPTS], controls["prompt"], label="Questions to try", api_visibility="private"),
    ]
    names = list(dict.fromkeys([service.default_model, *PRESETS]))
    controls["model"] = gr.Dropdown(
        names,
        value=service.default_model,
        label="Model",
        allow_custom_value=service.can_switch,
        interactive=service.can_switch,
        info="A name from the list, a hub id or a folder." if service.can_switch else "This server runs one model.",
        elem_id="model",
    )
    controls["about"] = gr.HTML(_about(service.default_model), elem_id="about")
    with gr.Accordion("Settings", open=False):
        controls["max_new_tokens"] = gr.Slider(1, MAX_NEW_TOKENS, 32, step=1, label="Longest answer, in tokens")
        controls["top_k"] = gr.Slider(1, 20, 5, step=1, label="Words kept for each layer and position")
    return controls


def _stream(work: Callable[[Callable[[Progress], None]], Lens]) -> Iterator[Progress | Lens]:
    """Run `work` in a thread; yield the newest progress it shows, then what it returns, or raise what it raised."""
    steps: queue.Queue[Progress | Lens | BaseException] = queue.Queue()

    def body() -> None:
        try:
            steps.put(work(steps.put))
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
            steps.put(error)

    threading.Thread(target=body, daemon=True).start()
    while True:
        step = steps.get()
        while isinstance(step, tuple) and not steps.empty():  # the page is slower than the model: only the newest text counts
            step = steps.get()
        if isinstance(step, BaseException):
            raise step
        yield step
        if not isinstance(step, tuple):
            return


def _about(model: str) -> str:
    preset = PRESETS.get(model)
    return f"<p>{html.escape(preset.about if preset else model)}</p>"


def _example(name: str) -> str:
    return str(ASSETS / "examples" / f"{name}.webp")


def _snippet(request: gr.Request, image: str | None, prompt: str, model: str, max_new_tokens: float, top_k: float) -> str:
    """Python lines that get the same result from this server."""
    server = os.environ.get("SPACE_ID") or str(request.request.base_url if request.request else "").rstrip("/")
    name = os.path.basename(image or "picture.png")  # noqa: PTH119 - a name to show, not a file to open
    return (
        "from gradio_client import Client, handle_file\n\n"
        f"client = Client({server!r})\n"
        "summary, html, everything = client.predict(\n"
        f"    image=handle_file({name!r}),  # your picture\n"
        f"    prompt={prompt!r},\n"
        f"    model={model!r},\n"
        f"    top_k={int(top_k)},\n"
        f"    max_new_tokens={int(max_new_tokens)},\n"
        '    api_name="/logit_lens",\n'
        ")\n"
        'print(summary["answer"])\n'
    )
