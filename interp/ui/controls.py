"""The left column: picture, prompt, model and run settings."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..models.names import parted
from ..presets import ASSETS
from ..service.requests import MAX_NEW_TOKENS
from ..service.service import Service
from .components.inputs import AT_ONCE, Picture

EXAMPLES = ASSETS / "examples"
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
_MODEL_INFO = "A name from the list, a Hugging Face hub id or a folder; with a PEFT adapter (hub id or folder): MODEL + ADAPTER."
Values = Mapping[Any, Any]
"""What gradio passes to a listener whose inputs are a set: the value of each component."""
Updates = dict[Any, Any]
"""What a listener returns or yields: new values by component."""


@dataclass(frozen=True)
class Controls:
    """The components of the column."""

    image: Picture
    prompt: gr.Textbox
    run: gr.Button
    message: gr.HTML
    answer: gr.Textbox
    examples: list[Any]
    model: gr.Dropdown
    about: gr.HTML
    max_new_tokens: gr.Slider
    top_k: gr.Slider
    layers: gr.Radio

    @property
    def of_a_trace(self) -> dict[str, Any]:
        """The components of a `TraceRequest`, by field name."""
        return {"image": self.image, "prompt": self.prompt, "model": self.model, "max_new_tokens": self.max_new_tokens}

    @property
    def of_a_lens(self) -> dict[str, Any]:
        """The components of a `LensRequest`, by field name."""
        return {**self.of_a_trace, "top_k": self.top_k, "layers": self.layers}


def named(components: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """The values of these components by name. An emptied text box or list is empty text."""
    return {name: "" if values[component] is None and name != "image" else values[component] for name, component in components.items()}


def example(name: str) -> str:
    """The path of an example picture."""
    return str(EXAMPLES / f"{name}.webp")


def lay_out(service: Service) -> Controls:
    """Build the column."""
    image = Picture(
        example(PICTURES[0]), label="Picture", type="filepath", sources=["upload", "clipboard", "webcam"], height=280, elem_id="picture"
    )
    prompt = gr.Textbox(PROMPTS[0], label="Prompt", lines=1, max_lines=4, elem_id="prompt", submit_btn=False)
    run = gr.Button("Run", variant="primary", elem_id="run")
    message = gr.HTML("", elem_id="message")
    answer = gr.Textbox(label="Answer", interactive=False, lines=2, elem_id="answer")
    examples = [
        gr.Examples([[example(name)] for name in PICTURES], image, label="Example pictures", api_visibility="private"),
        gr.Examples([[text] for text in PROMPTS], prompt, label="Example prompts", api_visibility="private"),
    ]
    model = gr.Dropdown(
        model_names(service),
        value=service.default_model,
        label="Model",
        allow_custom_value=service.can_switch,
        interactive=service.can_switch,
        info=_MODEL_INFO if service.can_switch else "This server runs one model.",
        elem_id="model",
    )
    about = gr.HTML(about_model(service, service.default_model), elem_id="about")
    # Shown before the model is loaded.
    model.change(lambda name: about_model(service, name), model, about, **AT_ONCE)
    with gr.Accordion("Settings", open=False):
        max_new_tokens = gr.Slider(1, MAX_NEW_TOKENS, 32, step=1, label="Maximum answer length (tokens)")
        top_k = gr.Slider(1, 20, 5, step=1, label="Words per layer and position")
        layers = gr.Radio(
            [("as many as are quick to read", "auto"), ("all", "all")],
            value="auto",
            label="Layers",
            info="Matters only for large models.",
        )
    return Controls(image, prompt, run, message, answer, examples, model, about, max_new_tokens, top_k, layers)


def model_names(service: Service) -> list[str]:
    """The models to choose from: the app's own first, then each preset, followed by its fine-tunes."""
    known = (name for preset in service.models() for name in (preset["name"], *(tuned["name"] for tuned in preset["adapters"])))
    return list(dict.fromkeys([service.default_model, *known]))


def about_model(service: Service, model: str | None) -> str:
    """What a model is, what it needs and how it was tested, as HTML."""
    base, adapter = parted(model or "")
    known = next((preset for preset in service.models() if preset["name"] == base), None)
    if known is None:
        return f"<p>{html.escape(model or '')}</p>"
    text = known["about"]
    if adapter is not None:
        text = next((tuned["about"] for tuned in known["adapters"] if tuned["name"] == model), f"With the adapter {adapter}: {text}")
    if known["proved"] != "real weights":
        gate = " (must be accepted on the hub first)" if known["gated"] else ""
        needs = "".join(f" and the package {package}" for package in known["requires"])
        room = "" if known["fits"] else " That exceeds the free memory."
        text += (
            f" Licence: {known['licence']}{gate}. Needs about {known['memory_gb']:g} GB of memory here{needs}.{room}"
            " Tested with random weights only."
        )
    return f"<p>{html.escape(text)}</p>"
