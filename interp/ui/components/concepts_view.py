"""The view of what a model's states are made of as a gradio component."""

from ...web.payloads.concepts import SCHEMA
from .view import View

# Runs once per component, after the scripts in its head. Each of the two is one of the creator's server functions or absent.
_ON_LOAD = """
const conceptDetails = server && server.concept_details ? (run, concept) => server.concept_details(run, concept) : null;
const steerConcepts = server && server.steer_concepts ? (run, request) => server.steer_concepts(run, request) : null;
const chose = (look) => trigger('select', { index: look.concept, value: look });
const view = Microscope.mountConcepts(element, { conceptDetails, steerConcepts, chose });
"""


class ConceptsView(View):
    """A dictionary of concepts, and where they are on a picture. Its value is a concepts payload (a dict), or None for "nothing yet".

    Server functions, each optional; `run` is the payload's "run". Raising `InterpError` or returning {"error": str} shows the text in the view:

    - `concept_details(run, concept)`: the SAE features nearest to a concept, as `ConceptDetails`.
    - `steer_concepts(run, {"source", "target", "value", "where"})`: answers with a step from one concept to another, as `SteeredConcepts`.

    Event `select`: the reader chose a concept or set the step; `gr.SelectData` has `index` (the concept) and `value` (a `ConceptLook`).
    """

    KIND, SCHEMA, LABEL = "concepts", SCHEMA, "Concepts"
    FOLDER = "concepts"
    ON_LOAD = _ON_LOAD
