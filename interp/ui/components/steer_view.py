"""The view of what steering did as a gradio component. Knows gradio; knows nothing of models, edits or how a payload is made."""

from ...web.payloads.steer import SCHEMA
from ...web.standalone import SHARED
from .view import View

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
"""


class SteerView(View):
    """Two answers side by side and what the edits did. Its value is a steer payload (a dict), or None for "nothing yet".

    Made to be set after every token: a payload that only lengthens the answers changes nothing else. While both answers grow, the figures of
    the payload before stay, dimmed and named as such, so that the page keeps its place.

    Event `select`: the reader chose a value of the sweep; `gr.SelectData` has `index` (in the sweep's points) and `value` (the number).
    """

    KIND, SCHEMA, LABEL = "steer", SCHEMA, "Steering"
    MARKUP, STYLES, SCRIPTS = "steer.html", ("lens.css", "steer.css"), SCRIPTS
    ON_LOAD = _ON_LOAD
