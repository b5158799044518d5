"""Studies for the page and the API: a feature with all that is known of it, search, and handing a feature over to the model that is loaded."""

import itertools
import random
from typing import Any

from ..errors import InterpError
from ..presets import PRESETS
from ..saes.sae import Sae
from ..study.feature_index import FeatureIndex
from ..web.payloads.study import FoundIndexed, HandOver, StudyPart, StudyPayload, found_indexed, study_facts, study_part, study_payload
from .questions import query
from .service import Service

SCHEMA = "llava-microscope/feature/1"
ANY = "any"
"""Instead of a feature's number: one at random, of those that are active on a picture."""
_FOUND = 50  # most features listed by a search


class StudyService:
    """Looks into the studies of a service. `study`: a name, "" for the first."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def feature(self, feature: Any, study: str | None = "") -> dict[str, Any]:
        """All that a study knows of a feature, in plain JSON types. Raises InterpError for a feature or a study that does not exist."""
        held = self.service.studies.get(study)
        return {"schema": SCHEMA, "study": dict(study_facts(held)), **held.feature(feature).to_dict()}

    def payload(self, study: str | None = "", feature: Any = None) -> StudyPayload:
        """The view's data. Without a feature: one that shows what there is to see."""
        held = self.service.studies.get(study)
        return study_payload(self.service.studies.names, self._part(held, feature))

    def study_feature(self, study: str, feature: Any) -> StudyPart:
        """For the view: another feature, or another study. `feature`: a number, `ANY`, or None for the one that the study opens with."""
        return self._part(self.service.studies.get(study), feature)

    def _part(self, held: FeatureIndex, feature: Any) -> StudyPart:
        if feature is None:
            feature = held.about["first"]
        elif feature == ANY and held.alive:
            feature = random.choice(held.alive)
        return study_part(held, held.feature(feature))

    def find_in_study(self, study: str, text: str) -> FoundIndexed:
        """For the view: the features with a label that matches."""
        held = self.service.studies.get(study)
        return found_indexed(held, query("Search for a feature's number or part of its label, of", text), _FOUND)

    def hand_over(self, study: str, feature: Any) -> HandOver:
        """For the view: what steering and the feature list need to know of a feature. Loads its SAE if need be.

        Raises InterpError if the study is of none of the SAEs of the loaded model.
        """
        held = self.service.studies.get(study)
        number, sae = held.check(feature), self._sae(held)
        found = held.feature(number)
        return {"sae": sae.name, "layer": sae.layer, "feature": number, "label": found.label, "max": found.peak}

    def _sae(self, held: FeatureIndex) -> Sae:
        """The SAE of a study, as the page knows it."""
        saes, model = self.service.saes, self.service.model_name
        layers = {each.name: each.layer for each in PRESETS[model].saes} if model in PRESETS else {}
        layer = held.about["sae"]["layer"]
        known = (saes.get(name, model) for name in saes.names(model) if layers.get(name, layer) == layer)
        for sae in itertools.chain([saes.in_use], known):  # the one in use first: another one takes time to load
            if sae is not None and self.service.studies.of(sae) == held.name:
                return sae
        about = held.about
        raise InterpError(
            f"The study {held.name} is of {about['sae']['name']} (layer {layer}) on {about['model']['name']}, and this page runs {model}, none of whose SAEs it is. "
            "Start the app with that model and SAE."
        )
