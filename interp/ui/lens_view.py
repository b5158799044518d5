"""The lens view as a gradio component. Knows gradio; knows nothing of models, traces or how a payload is made."""

import inspect
from collections.abc import Callable
from typing import Any

import gradio as gr

from ..errors import InterpError
from .payload import SCHEMA
from .standalone import checked, script, static

# Runs once per component, after the scripts in its head. `find_word` is one of the creator's server functions or absent.
_ON_LOAD = """
const findWord = server && server.find_word ? (word, payload) => server.find_word(payload.run ?? null, word) : null;
const view = LlavaLens.mount(element, { findWord, features: LlavaLens.openFeatures, hasFeatures: LlavaLens.featuresTab });
view.set(props.value || null);
watch('value', () => view.set(props.value || null));
"""


def as_server_function(function: Callable[..., Any]) -> Callable[[Any], Any]:
    """`function(run, word)` in the shape gradio calls: one list of arguments in, and an `InterpError` as {"error": text}."""
    several = len(inspect.signature(function).parameters) > 1

    # No functools.wraps: gradio would read the signature of the wrapped function and count its arguments.
    def call(data: Any) -> Any:
        try:
            return function(*data) if several else function(data)
        except InterpError as error:
            return {"error": str(error)}

    call.__name__ = function.__name__
    return call


class LensView(gr.HTML):
    """The interactive logit lens. Its value is a lens payload (a dict), or None for "nothing to look at yet".

    A server function named `find_word`, called as `find_word(run, word)` with the payload's "run", answers searches with
    {"spellings": [str], "values": base64 of uint8 [layers, T]} or {"error": str}; raising `InterpError` is the same as the latter.
    Without it the view searches the words it holds, and says so.

    On a page that has a tab of SAE features, a button hands the place that is read over to it: a DOM event "llava:patch" on the document.
    """

    def __init__(
        self,
        value: dict[str, Any] | None = None,
        *,
        label: str | None = "Logit lens",
        server_functions: list[Callable[..., Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            value,
            label=label,
            html_template=static("lens.html"),
            css_template=static("lens.css"),
            js_on_load=_ON_LOAD,
            # In the head and not in js_on_load: several views on a page share it, and gradio takes every quoted word
            # in js_on_load for the name of an event.
            head=f"<script>{script()}</script>",
            apply_default_css=False,
            server_functions=[as_server_function(f) for f in server_functions or []],
            **kwargs,
        )

    def preprocess(self, payload: dict[str, Any] | None) -> dict[str, Any] | None:  # type: ignore[override]
        """The payload as it is."""
        return payload or None

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:  # type: ignore[override]
        """Send a lens payload to the page; None empties the view."""
        return None if value is None else checked(value)

    def api_info(self) -> dict[str, Any]:
        """What API clients are told the value is."""
        return {"type": "object", "description": f"lens view payload, schema {SCHEMA}", "properties": {"schema": {"type": "string"}}}

    def example_payload(self) -> Any:
        """An empty view."""
        return None

    def example_value(self) -> Any:
        """An empty view."""
        return None
