"""The view of SAE features as a gradio component. Knows gradio; knows nothing of models, dictionaries or how a payload is made."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from .feature_payload import SCHEMA
from .lens_view import as_server_function
from .standalone import SHARED, checked, script, static

# In this order, as in standalone.SCRIPTS: features.js, the last, uses them all.
SCRIPTS = (
    *SHARED,
    "features_data.js",
    "features_picture.js",
    "features_stage.js",
    "features_list.js",
    "features_near.js",
    "features_table.js",
    "features_card.js",
    "features.js",
)

# Runs once per component, after the scripts in its head. Each of the three is one of the creator's server functions or absent.
_ON_LOAD = """
const featuresAt = server && server.features_at ? (where, run) => server.features_at(run, where) : null;
const findFeatures = server && server.find_features ? (text, run) => server.find_features(run, text) : null;
const featureDetails = server && server.feature_details ? (feature, run) => server.feature_details(run, feature) : null;
const { openSteer, steerTab } = LlavaLens;
const view = LlavaLens.mountFeatures(element, { featuresAt, findFeatures, featureDetails, steer: openSteer, hasSteer: steerTab });
view.set(props.value || null);
watch('value', () => view.set(props.value || null));
"""


class FeatureView(gr.HTML):
    """The interactive view of the features that a picture lights up. Its value is a feature payload (a dict), or None for "nothing yet".

    Server functions, each optional; `run` is the payload's "run". Raising `InterpError` or returning {"error": str} shows the text in the view:

    - `features_at(run, where)`: {"where", "looked_at", "active", "features"} of other tokens; `where` is {"patches": [[row, column]], "grid": g},
      {"box": [row, column, row, column], "grid": g} with both corners inside, or {"positions": [row of T]}. Rows and columns count from 0.
      Without it the view ranks the features it holds, and says so.
    - `find_features(run, text)`: {"features", "note"} of the whole dictionary by label or number.
    - `feature_details(run, feature)`: {"neighbours": [{"feature", "cosine", "label"}]}.

    A DOM event "llava:patch" on the document, with {position: row of T} as its detail, locks that place and lists its features. With
    {of: {image, prompt, answer}} beside it, a place of another picture than the one shown waits for the next payload.

    On a page that has a tab "Steer", a button hands the selected feature over to it: a DOM event "llava:steer" on the document.
    """

    def __init__(
        self,
        value: dict[str, Any] | None = None,
        *,
        label: str | None = "SAE features",
        server_functions: list[Callable[..., Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            value,
            label=label,
            html_template=static("features.html"),
            css_template=static("lens.css") + static("features.css"),
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
        """Send a feature payload to the page; None empties the view."""
        return None if value is None else checked(value, SCHEMA, "feature")

    def api_info(self) -> dict[str, Any]:
        """What API clients are told the value is."""
        return {"type": "object", "description": f"feature view payload, schema {SCHEMA}", "properties": {"schema": {"type": "string"}}}

    def example_payload(self) -> Any:
        """An empty view."""
        return None

    def example_value(self) -> Any:
        """An empty view."""
        return None
