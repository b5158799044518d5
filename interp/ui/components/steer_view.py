"""The view of what steering did as a gradio component."""

from ...web.payloads.steer import SCHEMA
from .view import View

# Runs once per component, after the scripts in its head.
_ON_LOAD = """
const view = Microscope.mountSteer(element, { select: (index, value) => trigger('select', { index, value }) });
"""


class SteerView(View):
    """Two answers side by side and what the edits did. Its value is a steer payload (a dict), or None for "nothing yet".

    It may be set after every token: a payload that only lengthens the answers changes nothing else. While both answers grow, the figures of
    the previous payload stay, dimmed and labelled as such, so that the page does not jump.

    Event `select`: the reader chose a value of the sweep; `gr.SelectData` has `index` (in the sweep's points) and `value` (the number).
    """

    KIND, SCHEMA, LABEL = "steer", SCHEMA, "Steering"
    FOLDER = "steer"
    ON_LOAD = _ON_LOAD
