"""The view of which features carried a word as a gradio component."""

from ...web.payloads.attribution import SCHEMA
from .view import View

# Runs once per component, after the scripts in its head. Each of the three is one of the creator's server functions or absent.
_ON_LOAD = """
const attributeWord = server && server.attribute_word ? (run, spec) => server.attribute_word(run, spec) : null;
const featureWords = server && server.feature_words ? (run, feature) => server.feature_words(run, feature) : null;
const withoutFeatures = server && server.without_features ? (run, request) => server.without_features(run, request) : null;
const chose = (spec) => trigger('select', { index: spec.token, value: spec });
const { openSteer, steerTab, openStudy, studyTab } = Microscope;
const tabs = { steer: openSteer, hasSteer: steerTab, study: openStudy, hasStudy: studyTab };
const view = Microscope.mountAttribution(element, { attributeWord, featureWords, withoutFeatures, chose, ...tabs });
"""


class AttributionView(View):
    """Which features carried a word of the answer. Its value is an attribution payload (a dict), or None for "nothing yet".

    Server functions, each optional; `run` is the payload's "run". Raising `InterpError` or returning {"error": str} shows the text in the view:

    - `attribute_word(run, spec)`: the `WordAttribution` of a `WordSpec` that the view does not have yet.
    - `feature_words(run, feature)`: what one feature did for every token of the answer, as `FeatureWords`.
    - `without_features(run, {"token", "features"})`: the answer without these features, as `WithoutFeatures`.

    Event `select`: a word is shown; `gr.SelectData` has `index` (the token's number in the answer) and `value` (its `WordSpec`).

    A DOM event "llava:feature" on the document, with {sae, feature} as its detail, shows in which words that feature mattered. With
    {of: {image, prompt, answer}} beside it, a feature of another run than the one shown waits for the next payload.

    On a page that has a tab "Steer", a button hands the selected feature over to it: a DOM event "llava:steer" on the document.
    On one that has a tab "Study", where a study of this SAE is open, another does: "llava:study".
    """

    KIND, SCHEMA, LABEL = "attribution", SCHEMA, "Attribution"
    FOLDER = "attribution"
    ON_LOAD = _ON_LOAD
