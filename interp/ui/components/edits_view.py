"""The editor of steering edits as a gradio component. Knows gradio; knows nothing of models, features or what an edit does."""

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

    Every change of the visitor sets the value, whole, with its new "edits" and "swept", and triggers `input`; while something is dragged a few
    times a second, and at the end with the last value. `run` is triggered, after `input`, when an answer is wanted: a preset was chosen, or Enter
    pressed in a number box. Listen with `view.input(f, view, ..., trigger_mode="always_last")`: gradio's default drops what comes while `f` runs.

    A value set from Python replaces what is shown. Cards whose features stay are kept, and with them the focus. A value of another "run" that
    repeats edits from before the visitor's newest changes was made before them: the changes stay, and `input` tells them with the new value. They also
    stay when the same value comes again within a second: gradio delivers the last value of a generator twice.

    The server function `steerable(run, text, sae)`, optional, answers the search for features of the payload's SAE by label or number: {"features": [edit, ...], "all": [edit, ...], "note": str}, where "all", optional, is offered as one entry.
    `run` is the payload's "run". Raising `InterpError` or returning {"error": str} shows the text in the view.

    A DOM event "llava:steer" on the document, with {sae, layer, feature, label, max, active} as its detail, adds that feature, or leads to it where
    it is in the list.
    """

    KIND, SCHEMA, LABEL = "edits", SCHEMA, "Edits"
    FOLDER = "edits"
    ON_LOAD = _ON_LOAD

    EVENTS = [  # type: ignore[assignment]  # noqa: RUF012 - gradio declares it in two ways
        Events.change,
        Events.input,
        EventListener("run", doc="This listener is triggered when the visitor wants an answer with the edits as they are."),
    ]
