"""Makes a public endpoint from inputs, outputs, a description and a plain function."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from ...service.service import Service
from ..components.inputs import Picture, Text
from ..components.messages import reported

PROMPT = "Describe the image."


def publish(
    name: str,
    answer: Callable[[Mapping[str, Any]], Any],
    inputs: Sequence[Component],
    outputs: Component | Sequence[Component],
    description: str,
    *,
    optional: str = "",
    queue: str = "model",
) -> None:
    """Add `/name` to the current gr.Blocks. `answer` gets the inputs by label and may raise InterpError.

    Inputs without a value are required, unless they are `optional` or come after it: left out, these are None. Calls of one `queue` are answered one
    after the other.
    """
    names = [str(component.label) for component in inputs]

    @reported
    def call(*values: Any) -> Any:
        return answer(dict(zip(names, values, strict=True)))

    # Clients read the names of the parameters from it, and which may be left out.
    required = names.index(optional) if optional else len(names)
    defaults = [inspect.Parameter.empty] * required + [None] * (len(names) - required)
    parameters = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
        for name, default in zip(names, defaults, strict=True)
    ]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    gr.Button(visible=False).click(
        call, list(inputs), outputs, api_name=name, api_description=description, concurrency_id=queue, concurrency_limit=1
    )


def question(service: Service) -> list[Component]:
    """The inputs that all endpoints with a picture share: image, prompt, model."""
    return [Picture(label="image", type="filepath"), Text(PROMPT, label="prompt"), Text(service.default_model, label="model")]
