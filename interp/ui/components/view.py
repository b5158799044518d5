"""The base of the interactive views as gradio components."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import gradio as gr

from ...errors import InterpError
from ...web.bundle import bundle, markup, static
from ...web.standalone import checked

# Ends the script that runs once per component, after those in its head: it has made `view`.
FOLLOW = """
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


class View(gr.HTML):
    """A component whose value is a payload (a dict) of one schema, or None for "nothing yet". Subclasses name the schema and the script that draws it."""

    KIND: ClassVar[str]
    """What its payload is called in messages."""
    SCHEMA: ClassVar[str]
    LABEL: ClassVar[str]
    FOLDER: ClassVar[str]
    """Its folder in web/static: view.html, view.css and view.js, beside what is shared."""
    ON_LOAD: ClassVar[str]
    """The script that makes `view`."""

    def __init__(
        self,
        value: dict[str, Any] | None = None,
        *,
        label: str = "",
        server_functions: Sequence[Callable[..., Any]] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            value,
            label=label or self.LABEL,
            html_template=markup(self.FOLDER),
            css_template=static("shared/view.css") + static(f"{self.FOLDER}/view.css"),
            js_on_load=self.ON_LOAD + FOLLOW,
            # In the head, not in js_on_load: several views on a page share it, and gradio takes every quoted word in
            # js_on_load for the name of an event.
            head=f"<script>{bundle(f'{self.FOLDER}/view.js')}</script>",
            apply_default_css=False,
            server_functions=[as_server_function(f) for f in server_functions],
            **kwargs,
        )

    def preprocess(self, payload: dict[str, Any] | None) -> dict[str, Any] | None:  # type: ignore[override]
        """The payload as it is."""
        return payload or None

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:  # type: ignore[override]
        """Send a payload to the page; None empties the view."""
        return None if value is None else checked(value, self.SCHEMA, self.KIND)

    def api_info(self) -> dict[str, Any]:
        """What API clients are told the value is."""
        return {"type": "object", "description": f"{self.KIND} payload, schema {self.SCHEMA}", "properties": {"schema": {"type": "string"}}}

    def example_payload(self) -> Any:
        """An empty view."""
        return None

    def example_value(self) -> Any:
        """An empty view."""
        return None
