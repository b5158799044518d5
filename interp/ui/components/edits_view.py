"""The editor of steering edits as a gradio component."""

from gradio.events import EventListener, Events

from ...web.payloads.edits import SCHEMA
from .view import View

# Runs once per component, after the scripts in its head. `steerable` is one of the creator's server functions or absent.
_ON_LOAD = """
const view = Microscope.mountEdits(element, {
  steerable: server && server.steerable ? (text, run) => server.steerable(run, text, props.value?.sae?.name ?? null) : null,
  changed: (payload) => { props.value = payload; trigger('input'); },
  run: () => trigger('run'),
});
"""


class EditsView(View):
    """The list of edits that steer a model. Its value is an edits payload (a dict), both ways, or None for "nothing to steer yet".

    Every change by the visitor sets the whole value, with its new "edits" and "swept", and triggers `input`: during a drag a few times a second,
    and at its end with the last value. `run` is triggered after `input` when an answer is wanted: a preset was chosen, or Enter pressed in a number
    box. Listen with `view.input(f, view, ..., trigger_mode="always_last")`: gradio's default drops what comes while `f` runs.

    A value set from Python replaces what is shown. Cards whose features stay are kept, and with them the focus. A value of another "run" with edits
    older than the visitor's newest changes was made before them: the changes stay, and `input` reports them with the new value. They also stay when
    the same value comes again within a second: gradio delivers the last value of a generator twice.

    The optional server function `steerable(run, text, sae)` searches the payload's SAE by label or number: {"features": [edit, ...], "all": [edit, ...],
    "note": str}, where "all", optional, is offered as one entry. `run` is the payload's "run". Raising `InterpError` or returning {"error": str} shows the text in the view.

    A DOM event "llava:steer" on the document, with {sae, layer, feature, label, max, active} as its detail, adds that feature, or leads to it if
    it is already in the list.
    """

    KIND, SCHEMA, LABEL = "edits", SCHEMA, "Edits"
    FOLDER = "edits"
    ON_LOAD = _ON_LOAD

    EVENTS = [  # type: ignore[assignment]  # noqa: RUF012 - gradio declares it in two ways
        Events.change,
        Events.input,
        EventListener("run", doc="Triggered when the visitor wants an answer with the current edits."),
    ]
