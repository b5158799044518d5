"""Concepts for the page and the API: a dictionary in one run, what is near a concept, and steering from one to another."""

from typing import Any

import torch

from ..attention.changed import longest_answer
from ..concepts.here import ConceptsHere, concepts_here
from ..errors import InterpError
from ..lens.lens import Lens
from ..presets import PRESETS
from ..saes.sae import Sae
from ..steering.edits import Contrast, Edit
from ..steering.results import SteeringResult
from ..steering.steer import steer
from ..tracing.trace import Trace
from ..validation import mapping
from ..web.payloads.concepts import ConceptDetails, ConceptsPayload, SteeredConcepts, concepts_payload, shift_payload, steered_concepts
from .concept_learning import ConceptLearning
from .concept_shelf import ConceptShelf
from .concept_shifts import Compared, ConceptShifts
from .requests import ConceptsLook, StepRequest
from .service import Service
from .zerogpu import on_gpu, seconds

_NEAR = 6  # features listed beside a concept


class ConceptsService:
    """Concepts with a service's model. A view's `run` is a lens's key and the name of a dictionary, see `payload`."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.shelf = ConceptShelf(fixed=not service.can_switch)
        self.shifts = ConceptShifts(service, self.shelf)
        self.learning = ConceptLearning(service, self.shelf)

    def here(self, trace: Trace, dictionary: str = "") -> ConceptsHere:
        """How much of each concept is in a trace, cached."""
        concepts = self.shelf.get(dictionary, trace.model_name)
        return self.service.derived(trace, ("concepts", concepts), lambda: concepts_here(concepts, trace))

    def payload(self, key: str, dictionary: str, compared: Compared | None = None, look: ConceptsLook | None = None) -> ConceptsPayload:
        """The view's data for the trace of a remembered lens. `compared`: what a fine-tune did to this dictionary; `look`: what to open with.

        Concepts that the dictionary does not have are not opened with.
        """
        trace = self.service.remembered(key, Lens).trace
        name = self.shelf.meant(dictionary, trace.model_name)
        here = self.here(trace, name)
        made = concepts_payload(here, name, self.shelf.about(name, trace.model_name), run=f"{key} {name}")
        if compared is not None:
            made["shift"] = shift_payload(compared.shift, compared.answers)
        if look is not None:
            concept, target = (each if each is not None and each < len(here.concepts) else None for each in (look.concept, look.target))
            made["look"] = {"concept": concept, "target": target, "value": look.value, "where": look.where}
        return made

    def concept_details(self, run: str, concept: Any) -> ConceptDetails:
        """For the view: the SAE features whose directions are nearest to a concept's, if an SAE of its layer is known."""
        here = self._about(run)
        number, sae = here.concepts.check(concept), self._sae(here)
        if sae is None:
            return {"concept": number, "sae": None, "features": []}
        found = sae.nearest(here.direction(number), min(_NEAR, sae.d_sae))
        labels = [sae.labels.get(feature) for feature, _ in found]
        return {
            "concept": number,
            "sae": sae.name,
            "features": [
                {"feature": feature, "cosine": cosine, "label": label.text if label else ""}
                for (feature, cosine), label in zip(found, labels, strict=True)
            ],
        }

    def steer_concepts(self, run: str, request: Any) -> SteeredConcepts:
        """For the view: the answer with a step from one concept to another, and with a random step of the same length. `request`: a `StepRequest`."""
        here, asked = self._about(run), StepRequest.of(mapping("The request", request))
        edit = step(here, asked)
        steered, control = (self._steered(here.trace, each) for each in (edit, _random(edit)))
        return steered_concepts(steered, control)

    def _steered(self, trace: Trace, edit: Edit) -> SteeringResult:
        new = longest_answer(trace)
        how: dict[str, Any] = {"max_new_tokens": new, "allow": seconds(new, rows=2)}
        return on_gpu(steer, trace.vlm, trace.image, trace.prompt, [edit], **how)

    def _about(self, run: str) -> ConceptsHere:
        """What a view's `run` stands for."""
        key, _, name = str(run).partition(" ")
        return self.here(self.service.remembered(key, Lens).trace, name)

    def _sae(self, here: ConceptsHere) -> Sae | None:
        """The SAE that is known for the layer of these concepts."""
        model = here.trace.model_name
        known = PRESETS[model].saes if model in PRESETS else ()
        name = next((each.name for each in known if each.layer == here.concepts.layer), None)
        return None if name is None else self.service.saes.get(name, model)


def step(here: ConceptsHere, asked: StepRequest) -> Edit:
    """The edit that leads from one concept to another. Raises InterpError for concepts that do not exist or are the same, and for no places.

    For k-means, whose atoms are states, a step of 1 is all of the way; the directions of other methods have length 1, and 1 is the median norm of the
    states there.
    """
    concepts = here.concepts
    vector = concepts.vector(asked.source, asked.target)
    where: Any = asked.where
    if where == "places":
        places = here.places(asked.source)
        if not places:
            raise InterpError(
                f"Concept {asked.source} is the strongest one on no patch of this picture. Let the step act on the whole picture."
            )
        where = {"positions": places}
    amount: dict[str, Any] = {"amount" if concepts.method == "k-means" else "strength": asked.value}
    return Edit(vector=vector, where=where, **amount)


def _random(edit: Edit) -> Edit:
    """The same edit along a random direction of the same length."""
    vector = edit.vector
    assert isinstance(vector, Contrast)
    drawn = torch.randn(vector.vector.shape, generator=torch.Generator().manual_seed(0))
    drawn *= vector.vector.norm() / drawn.norm()
    how: dict[str, Any] = {edit.unit: edit.value}
    return Edit(vector=drawn, layer=edit.at, where=edit.where, **how)
