"""The lens view as a gradio component."""

from ...web.payloads.lens import SCHEMA
from .view import View

# Runs once per component, after the scripts in its head. The first three are server functions of the creator or absent.
_ON_LOAD = """
const run = (payload) => payload.run ?? null;
const findWord = server && server.find_word ? (word, method, payload) => server.find_word(run(payload), word, method) : null;
const readLens = server && server.read_lens ? (method, payload) => server.read_lens(run(payload), method) : null;
const wordMap = server && server.word_map ? (spec, payload) => server.word_map(run(payload), spec) : null;
const chose = (what) => trigger('select', { index: what.layer, value: what });
const { openFeatures, featuresTab, openWhy, whyTab } = Microscope;
const asked = { findWord, readLens, wordMap, chose };
const view = Microscope.mountLens(element, { ...asked, features: openFeatures, hasFeatures: featuresTab, why: openWhy, hasWhy: whyTab });
"""


class LensView(View):
    """The interactive lenses. Its value is a lens payload (a dict), or None for "nothing to look at yet".

    Server functions, each optional; `run` is the payload's "run". Raising `InterpError` or returning {"error": str} shows the text in the view:

    - `find_word(run, word, method)`: {"spellings": [str], "values": base64 of uint8 [layers, T], "range": [low, high]} of a word in one lens.
      Without it the view searches the words it holds, and says so.
    - `read_lens(run, method)`: what another lens reads in the same run, as `LensReading`. Without it only what the payload holds can be chosen.
    - `word_map(run, spec)`: the activation map of a token of the answer, as `MapValues`. Without it there is no activation map.

    Event `select`: the reader chose a lens, a layer or a place; `gr.SelectData` has `value`, {"method", "layer", "row", "read"}: layer by number, `row`
    the locked position or null, `read` the lenses that were read so far.

    On a page that has a tab of SAE features, a button hands the place that is read over to it: a DOM event "llava:patch" on the document. Where the
    place predicts a word of the answer, another button hands the word over to the tab that explains it: "llava:word".
    """

    KIND, SCHEMA, LABEL = "lens", SCHEMA, "Lens"
    FOLDER = "lens"
    ON_LOAD = _ON_LOAD
