"""The view of what steering did as a gradio component. Knows gradio; knows nothing of models, edits or how a payload is made."""

from typing import Any

import gradio as gr

from .standalone import SHARED, checked, script, static
from .steer_payload import SCHEMA

# In this order, as in standalone.SCRIPTS: steer.js, the last, uses them all.
SCRIPTS = (
    *SHARED,
    "steer_data.js",
    "steer_answers.js",
    "steer_push.js",
    "steer_tokens.js",
    "steer_words.js",
    "steer_sweep.js",
    "steer.js",
)

# Runs once per component, after the scripts in its head.
_ON_LOAD = """
const view = LlavaLens.mountSteer(element, { select: (index, value) => trigger('select', { index, value }) });
view.set(props.value || null);
watch('value', () => view.set(props.value || null));
"""


class SteerView(gr.HTML):
    """Two answers side by side and what the edits did. Its value is a steer payload (a dict), or None for "nothing yet".

    Made to be set after every token: a payload that only lengthens the answers changes nothing else. While both answers grow, the figures of
    the payload before stay, dimmed and named as such, so that the page keeps its place.

    Event `select`: the reader chose a value of the sweep; `gr.SelectData` has `index` (in the sweep's points) and `value` (the number).
    """

    def __init__(self, value: dict[str, Any] | None = None, *, label: str | None = "Steering", **kwargs: Any) -> None:
        super().__init__(
            value,
            label=label,
            html_template=static("steer.html"),
            css_template=static("lens.css") + static("steer.css"),
            js_on_load=_ON_LOAD,
            # In the head for the reasons that hold for the lens view.
            head=f"<script>{script(SCRIPTS)}</script>",
            apply_default_css=False,
            **kwargs,
        )

    def preprocess(self, payload: dict[str, Any] | None) -> dict[str, Any] | None:  # type: ignore[override]
        """The payload as it is."""
        return payload or None

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:  # type: ignore[override]
        """Send a steer payload to the page; None empties the view."""
        return None if value is None else checked(value, SCHEMA, "steer")

    def api_info(self) -> dict[str, Any]:
        """What API clients are told the value is."""
        return {"type": "object", "description": f"steer view payload, schema {SCHEMA}", "properties": {"schema": {"type": "string"}}}

    def example_payload(self) -> Any:
        """An empty view."""
        return None

    def example_value(self) -> Any:
        """An empty view."""
        return None
