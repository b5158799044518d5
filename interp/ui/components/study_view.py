"""The view of a study's features as a gradio component."""

from ...web.payloads.study import SCHEMA
from .view import View

# Runs once per component, after the scripts in its head. Each of the three is one of the creator's server functions or absent.
_ON_LOAD = """
const studyFeature = server && server.study_feature ? (study, feature) => server.study_feature(study, feature) : null;
const findInStudy = server && server.find_in_study ? (study, text) => server.find_in_study(study, text) : null;
const handOver = server && server.hand_over ? (study, feature) => server.hand_over(study, feature) : null;
const { openSteer, steerTab, openLocated, featuresTab } = Microscope;
const tabs = { steer: openSteer, hasSteer: steerTab, locate: openLocated, hasFeatures: featuresTab };
const chose = (look) => trigger('select', { index: look.feature, value: look });
const view = Microscope.mountStudy(element, { studyFeature, findInStudy, handOver, chose, ...tabs });
"""


class StudyView(View):
    """A feature of a study. Its value is a study payload (a dict), or None for "nothing yet".

    Server functions, each optional. Raising `InterpError` or returning {"error": str} shows the text in the view:

    - `study_feature(study, feature)`: another feature as `StudyPart`; "any" is one at random, None the one that the study opens with.
    - `find_in_study(study, text)`: features by label, as `FoundIndexed`.
    - `hand_over(study, feature)`: how this page's model knows a feature, as `HandOver`.

    Event `select`: another feature is shown; `gr.SelectData` has `index` (its number) and `value` ({"study", "feature"}).

    A DOM event "llava:study" on the document, with {study, feature} as its detail, shows that feature. Buttons hand the one shown over to the tabs "Steer"
    ("llava:steer") and "SAE features" ("llava:locate"), on a page that has them.
    """

    KIND, SCHEMA, LABEL = "study", SCHEMA, "Study"
    FOLDER = "study"
    ON_LOAD = _ON_LOAD
