"""The editor of steering edits as a gradio component. Knows gradio; knows nothing of models, features or what an edit does."""

from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.events import EventListener, Events

from .edits_payload import SCHEMA
from .lens_view import as_server_function
from .standalone import SHARED, checked, script, static

# In this order, as in standalone.SCRIPTS: edits.js, the last, uses them all. Two are the feature view's: figures in words, and asking the server.
SCRIPTS = (
    *SHARED,
    "features_data.js",
    "features_list.js",
    "edits_data.js",
    "edits_patches.js",
    "edits_search.js",
    "edits_chip.js",
    "edits_lists.js",
    "edits.js",
)

# Runs once per component, after the scripts in its head. `steerable` is one of the creator's server functions or absent.
_ON_LOAD = """
const view = LlavaLens.mountEdits(element, {
  steerable: server && server.steerable ? (text, run) => server.steerable(run, text, props.value?.sae?.name ?? null) : null,
  changed: (payload) => { props.value = payload; trigger('input'); },
  run: () => trigger('run'),
});
view.set(props.value || null);
watch('value', () => view.set(props.value || null));
"""


class EditsView(gr.HTML):
    """The list of edits that steer a model. Its value is an edits payload (a dict), both ways, or None for "nothing to steer yet".

    Every change of the visitor sets the value, whole, with its new "edits" and "swept", and triggers `input`; while something is dragged a few
    times a second, and at the end with the last value. `run` is triggered, after `input`, when an answer is wanted: a preset was chosen, or Enter
    pressed in a number box. Listen with `view.input(f, view, ..., trigger_mode="always_last")`: gradio's default drops what comes while `f` runs.

    A value set from Python replaces what is shown. Cards whose features stay are kept, and with them the focus. A value of another "run" that
    repeats edits from before the visitor's newest changes was made before them: the changes stay, and `input` tells them with the new value. They also
    stay when the same value comes again within a second: gradio delivers the last value of a generator twice.

    The server function `steerable(run, text, sae)`, optional, answers the search for features of the payload's SAE by label or number: {"features": [edit, ...], "note": str}.
    `run` is the payload's "run". Raising `InterpError` or returning {"error": str} shows the text in the view.

    A DOM event "llava:steer" on the document, with {sae, layer, feature, label, max, active} as its detail, adds that feature, or leads to it where
    it is in the list.
    """

    EVENTS = [  # noqa: RUF012 - as gradio declares it
        Events.change,
        Events.input,
        EventListener("run", doc="This listener is triggered when the visitor wants an answer with the edits as they are."),
    ]

    def __init__(
        self,
        value: dict[str, Any] | None = None,
        *,
        label: str | None = "Edits",
        server_functions: list[Callable[..., Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            value,
            label=label,
            html_template=static("edits.html"),
            css_template=static("lens.css") + static("edits.css"),
            js_on_load=_ON_LOAD,
            # In the head for the reasons that hold for the lens view.
            head=f"<script>{script(SCRIPTS)}</script>",
            apply_default_css=False,
            server_functions=[as_server_function(f) for f in server_functions or []],
            **kwargs,
        )

    def preprocess(self, payload: dict[str, Any] | None) -> dict[str, Any] | None:  # type: ignore[override]
        """The payload as it is."""
        return payload or None

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:  # type: ignore[override]
        """Send an edits payload to the page; None empties the view."""
        return None if value is None else checked(value, SCHEMA, "edits")

    def api_info(self) -> dict[str, Any]:
        """What API clients are told the value is."""
        return {"type": "object", "description": f"edits payload, schema {SCHEMA}", "properties": {"schema": {"type": "string"}}}

    def example_payload(self) -> Any:
        """An empty view."""
        return None

    def example_value(self) -> Any:
        """An empty view."""
        return None
