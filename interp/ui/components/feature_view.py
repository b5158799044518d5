"""The view of SAE features as a gradio component."""

from ...web.payloads.features import SCHEMA
from .view import View

# Runs once per component, after the scripts in its head. Each of the three is one of the creator's server functions or absent.
_ON_LOAD = """
const featuresAt = server && server.features_at ? (where, run) => server.features_at(run, where) : null;
const findFeatures = server && server.find_features ? (text, run) => server.find_features(run, text) : null;
const featureDetails = server && server.feature_details ? (feature, run) => server.feature_details(run, feature) : null;
const { openSteer, steerTab, openAttribution, attributionTab, openStudy, studyTab } = Microscope;
const others = { words: openAttribution, hasWords: attributionTab, study: openStudy, hasStudy: studyTab };
const handOver = { steer: openSteer, hasSteer: steerTab, ...others };
const view = Microscope.mountFeatures(element, { featuresAt, findFeatures, featureDetails, ...handOver });
"""


class FeatureView(View):
    """The interactive view of the features that are active on a picture. Its value is a feature payload (a dict), or None for "nothing yet".

    Server functions, each optional; `run` is the payload's "run". Raising `InterpError` or returning {"error": str} shows the text in the view:

    - `features_at(run, where)`: {"where", "looked_at", "active", "features"} of other tokens; `where` is {"patches": [[row, column]], "grid": g},
      {"box": [row, column, row, column], "grid": g} with both corners inside, or {"positions": [row of T]}. Rows and columns count from 0.
      Without it the view ranks the features it holds, and says so.
    - `find_features(run, text)`: {"features", "note"} of the whole dictionary by label or number.
    - `feature_details(run, feature)`: {"neighbours": [{"feature", "cosine", "label"}]}.

    A DOM event "llava:patch" on the document, with {position: row of T} as its detail, locks that place and lists its features. With
    {of: {image, prompt, answer}} beside it, a place of another picture than the one shown waits for the next payload. "llava:locate", with {sae, feature},
    selects a feature, or says that another SAE must be chosen.

    On a page that has a tab "Steer", a button hands the selected feature over to it: a DOM event "llava:steer" on the document. On one that has a tab
    "Attribution", another does: "llava:feature"; and "llava:study" where a study of this SAE is open.
    """

    KIND, SCHEMA, LABEL = "feature", SCHEMA, "SAE features"
    FOLDER = "features"
    ON_LOAD = _ON_LOAD
