"""The page: a picture and a prompt at the left, what the model sees at the right. Wires gradio to `Service`; computes nothing itself."""

import html
import os
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from ..errors import InterpError
from ..lens.logit_lens import Lens
from ..presets import PRESETS
from ..service.service import MAX_NEW_TOKENS, Service, given
from ..service.steer_service import SteerService
from ..service.streaming import Done, stream
from ..web.payloads.lens import lens_payload
from . import share
from .api import add_endpoints, write_html, write_json
from .components.inputs import FAILED, QUEUE, Picture, address, download_buttons, message, switched
from .components.lens_view import LensView
from .tabs.features_tab import features_tab
from .tabs.steer_listeners import EXAMPLES, TAB
from .tabs.steer_tab import steer_tab

TITLE = "LLaVA Microscope"
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
_LOOKING = "Looking at the picture …"
CSS = """
.gradio-container { max-width: 1500px !important; margin: 0 auto !important; }
#about p { margin: 0; opacity: .8; }
#message:not(:has(.message)), #sae-message:not(:has(.message)), #steer-message:not(:has(.message)) { display: none; }
.message { padding: .5rem .75rem; border-radius: 8px; border: 1px solid var(--border-color-primary); font-size: .9rem; overflow-wrap: anywhere; }
.message.error { border-color: #dc2626; color: #b91c1c; background: #fef2f2; }
.dark .message.error { color: #fecaca; background: #450a0a; }
.off-screen { position: absolute !important; left: -9999px; height: 1px; overflow: hidden; }
"""


def build(service: Service) -> gr.Blocks:
    """The whole app as gr.Blocks, not yet launched."""
    steering_service = SteerService(service)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400)) as demo:
        _header(service.notice)
        run_key, selected = gr.State(), gr.State("Logit lens")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                controls = _controls(service)
            with gr.Column(scale=5, min_width=340), gr.Tabs() as tabs:
                view, snippet, downloads = _lens_tab(service, run_key)
                features = features_tab(service, run_key, selected, controls)
                steering = steer_tab(service, steering_service, run_key, selected, controls, features.sae)
        inputs = [
            controls["image"],
            controls["prompt"],
            controls["model"],
            controls["max_new_tokens"],
            controls["top_k"],
            controls["layers"],
        ]
        outputs = [controls["answer"], controls["message"], view, run_key, snippet, controls["about"], *downloads]

        def run(
            image: str | None, prompt: str, model: str, max_new_tokens: float, top_k: float, layers: str, request: gr.Request
        ) -> Iterator[tuple[Any, ...]]:
            unchanged = [gr.skip()] * (len(outputs) - 2)
            yield ("", message(_LOOKING), *unchanged)
            try:
                for step in _looking(service, image, prompt, model, max_new_tokens, top_k, layers):
                    if not isinstance(step, Done):
                        answer, doing = step
                        yield (answer, message(doing), *unchanged)
                        continue
                    lens: Lens = step.result
                    key = service.remember(lens)
                    code = _snippet(request, image, prompt, model, max_new_tokens, top_k, layers)
                    about, buttons = _about(service, lens.trace.vlm.name), switched(downloads, on=True)
                    yield (lens.trace.answer, "", lens_payload(lens, run=key), key, code, about, *buttons)
            except InterpError as error:
                yield (gr.skip(), message(str(error), error=True), *unchanged)
            except Exception:
                yield (gr.skip(), FAILED, *unchanged)
                raise

        def left(request: gr.Request) -> None:
            steering_service.stop(request.session_hash)

        def opening(request: gr.Request) -> Iterator[tuple[Any, ...]]:
            """The first lens: of an example, or of what a link asks for."""
            asked, set_by_link, said = _asked_by_link(request, service, steering_service, len(opens))
            yield from _with_link(run(*asked, 5, "auto", request), set_by_link, said)

        shown = {"show_progress": "minimal", "show_progress_on": controls["answer"], **QUEUE}
        runs = [gr.on([controls["run"].click, controls["prompt"].submit], run, inputs, outputs, **shown)]
        runs += [listed.load_input_event.success(run, inputs, outputs, **shown) for listed in controls["examples"]]
        after = [(features.refresh, features.inputs, features.outputs), *steering.after_run]
        opens = [controls["image"], controls["prompt"], controls["model"], controls["max_new_tokens"], *steering.linked, tabs, selected]
        runs.append(demo.load(opening, None, [*outputs, *opens], show_progress="hidden", **QUEUE))
        for listener in after:
            runs = [done.then(*listener, show_progress="hidden", **QUEUE) for done in runs]
        tabs.select(_selected, None, selected, api_visibility="private", show_progress="hidden", queue=False)
        demo.unload(left)
        add_endpoints(service, steering_service)
    return demo


def _header(notice: str) -> None:
    gr.Markdown(
        f"# {TITLE}\nWhat does each patch of a picture mean to a vision-language model, layer by layer? "
        "Which learned features does it light up, and what becomes of the answer when one is turned up or down?"
    )
    if notice:
        gr.HTML(message(notice, error=True), elem_id="notice")


def _lens_tab(service: Service, run_key: gr.State) -> tuple[LensView, gr.Code, list[gr.Button]]:
    with gr.Tab("Logit lens", id="lens"):
        view = LensView(label="Logit lens", server_functions=[service.find_word])
        files = [("Download as HTML", "html", write_html), ("Download as JSON", "json", write_json)]
        downloads = download_buttons(files, lambda key: service.remembered(key, Lens), run_key)
        with gr.Accordion("Do the same from Python", open=False):
            snippet = gr.Code(language="python", label="gradio_client", interactive=False, show_label=False)
    return view, snippet, downloads


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
    controls["about"] = gr.HTML(_about(service, service.default_model), elem_id="about")
    # Before it is loaded: a visitor should know what they ask for.
    told = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    controls["model"].change(lambda model: _about(service, model), controls["model"], controls["about"], **told)
    with gr.Accordion("Settings", open=False):
        controls["max_new_tokens"] = gr.Slider(1, MAX_NEW_TOKENS, 32, step=1, label="Longest answer, in tokens")
        controls["top_k"] = gr.Slider(1, 20, 5, step=1, label="Words kept for each layer and position")
        controls["layers"] = gr.Radio(
            [("as many as can be read quickly", "auto"), ("all", "all")], value="auto", label="Layers", info="Matters for large models."
        )
    return controls


def _asked_by_link(
    request: gr.Request, service: Service, steering: SteerService, settable: int
) -> tuple[tuple[str, str, str, int], list[Any], str]:
    """Picture, prompt, model and length of the first answer; what a link sets on the page (`settable` outputs); and what is wrong with the link."""
    usual = (_example(PICTURES[0]), PROMPTS[0], service.default_model, 32)
    packed = request.query_params.get(share.PARAMETER)
    if not packed:
        return usual, [gr.skip()] * settable, ""
    try:
        state = share.unpack(packed)
        settings, editor = share.Settings.of(state), steering.linked_editor(state)
    except InterpError as error:
        return usual, [gr.skip()] * settable, message(str(error), error=True)
    said = ""
    try:
        image = share.picture(state.get("picture"), EXAMPLES)
    except InterpError as error:
        image, said = usual[0], message(str(error), error=True)
    asked = (image, settings.prompt, settings.model, settings.max_new_tokens)
    more = [editor, settings.temperature, settings.seed, settings.words, settings.sweep, gr.Tabs(selected="steer"), TAB]
    return asked, [*asked, *more], said


def _looking(
    service: Service, image: str | None, prompt: str, model: str, max_new_tokens: float, top_k: float, layers: str
) -> Iterator[Any]:
    """(answer so far, what is being done) while the model is loaded, if need be, and answers; then `Done` with the lens."""

    def look(show: Callable[[tuple[str, str]], None]) -> Lens:
        service.vlm(model, on_progress=lambda doing: show(("", doing)))
        show(("", _LOOKING))
        return service.lens(
            image,
            prompt,
            model,
            top_k=top_k,
            max_new_tokens=max_new_tokens,
            layers=layers,
            on_text=lambda text: show((text, "Answering …")),
            on_trace=lambda trace: show((trace.answer, f"Reading {trace.n_layers} layers …")),
        )

    given(image)  # before a model is loaded for it
    yield from stream(look)


def _with_link(steps: Iterator[tuple[Any, ...]], set_by_link: list[Any], said: str) -> Iterator[tuple[Any, ...]]:
    """The steps of a run, the last of them with what a link sets and what is wrong with it."""
    step = next(steps)
    for following in steps:
        yield (*step, *[gr.skip()] * len(set_by_link))
        step = following
    answer, lens_said, *rest = step
    yield (answer, said or lens_said, *rest, *set_by_link)


def _selected(event: gr.SelectData) -> str:
    return str(event.value)


def _about(service: Service, model: str | None) -> str:
    """What a model is, what it needs, and how far it was tried."""
    known = next((preset for preset in service.models() if preset["name"] == model), None)
    if known is None:
        return f"<p>{html.escape(model or '')}</p>"
    text = known["about"]
    if known["proved"] != "real weights":
        gate = ", to be accepted on the hub first" if known["gated"] else ""
        needs = "".join(f", and the package {package}" for package in known["requires"])
        room = "" if known["fits"] else " That is more than is free."
        text += (
            f" Licence: {known['licence']}{gate}. Needs about {known['memory_gb']:g} GB here{needs}.{room}"
            " Not tried here on its real weights: proved by shape, with random ones."
        )
    return f"<p>{html.escape(text)}</p>"


def _example(name: str) -> str:
    return str(EXAMPLES / f"{name}.webp")


def _snippet(request: gr.Request, image: str | None, prompt: str, model: str, max_new_tokens: float, top_k: float, layers: str) -> str:
    """Python lines that get the same result from this server."""
    name = os.path.basename(image or "picture.png")  # noqa: PTH119 - a name to show, not a file to open
    return (
        "from gradio_client import Client, handle_file\n\n"
        f"client = Client({address(request)!r})\n"
        "summary, html, everything = client.predict(\n"
        f"    image=handle_file({name!r}),  # your picture\n"
        f"    prompt={prompt!r},\n"
        f"    model={model!r},\n"
        f"    top_k={int(top_k)},\n"
        f"    max_new_tokens={int(max_new_tokens)},\n"
        f"    layers={layers!r},\n"
        '    api_name="/logit_lens",\n'
        ")\n"
        'print(summary["answer"])\n'
    )
