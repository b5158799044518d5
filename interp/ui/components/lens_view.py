"""The lens view as a gradio component."""

from ...web.payloads.lens import SCHEMA
from .view import View

# Runs once per component, after the scripts in its head. `find_word` is one of the creator's server functions or absent.
_ON_LOAD = """
const findWord = server && server.find_word ? (word, payload) => server.find_word(payload.run ?? null, word) : null;
const { openFeatures, featuresTab, openWhy, whyTab } = Microscope;
const view = Microscope.mountLens(element, { findWord, features: openFeatures, hasFeatures: featuresTab, why: openWhy, hasWhy: whyTab });
"""


class LensView(View):
    """The interactive logit lens. Its value is a lens payload (a dict), or None for "nothing to look at yet".

    A server function named `find_word`, called as `find_word(run, word)` with the payload's "run", answers searches with
    {"spellings": [str], "values": base64 of uint8 [layers, T]} or {"error": str}; raising `InterpError` is the same as the latter.
    Without it the view searches the words it holds, and says so.

    On a page that has a tab of SAE features, a button hands the place that is read over to it: a DOM event "llava:patch" on the document. Where the
    place predicts a word of the answer, another button hands the word over to the tab that explains it: "llava:word".
    """

    KIND, SCHEMA, LABEL = "lens", SCHEMA, "Logit lens"
    FOLDER = "lens"
    ON_LOAD = _ON_LOAD
