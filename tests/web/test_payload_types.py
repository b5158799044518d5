"""The types that the browser code is checked against are those of the Python payloads."""

from __future__ import annotations

from interp.web.payloads.attention import AttentionPayload, MapSpec, Score
from interp.web.payloads.attribution import (
    AttributedItem,
    AttributionPayload,
    FeatureWords,
    WithoutFeatures,
    WordAttribution,
    WordScore,
)
from interp.web.payloads.concepts import (
    ConceptDetails,
    ConceptDictionary,
    ConceptExample,
    ConceptItem,
    ConceptsPayload,
    ShiftedItem,
    ShiftPayload,
    SteeredConcepts,
)
from interp.web.payloads.edits import EditItem, EditsPayload
from interp.web.payloads.features import FeatureItem, FeaturePayload
from interp.web.payloads.flow import FlowBlock, FlowCurves
from interp.web.payloads.lens import LensPayload
from interp.web.payloads.steer import SteerPayload, SweepPayload, SweepPoint
from interp.web.payloads.study import (
    ControlItem,
    FigureItem,
    FoundIndexed,
    FoundLabel,
    HandOver,
    IndexedHistogram,
    IndexedItem,
    IndexedNeighbour,
    IndexedPicture,
    StudyFacts,
    StudyPart,
    StudyPayload,
)
from interp.web.payloads.whatif import Fewest, WhatIf
from tests.web import (
    attention_payload,
    attribution_payload,
    concepts_payload,
    edits_payload,
    feature_payload,
    lens_payload,
    steer_payload,
    study_payload,
)
from tests.web.typescript import FILE, declarations


def test_the_declarations_for_the_browser_are_up_to_date():
    assert FILE.read_text(encoding="utf-8") == declarations(), "run: python -m tests.web.typescript"


def test_the_payloads_made_up_for_tests_have_the_same_fields_as_real_ones():
    def differing(made, declared):
        return set(made) ^ set(declared.__annotations__)

    # Views also read payloads without these two.
    optional = {"run", "regions"}
    assert differing(lens_payload.payload(), LensPayload) <= optional
    assert differing(feature_payload.payload(), FeaturePayload) <= optional
    assert not differing(feature_payload.payload()["features"][0], FeatureItem)
    made = attribution_payload.payload()
    assert differing(made, AttributionPayload) <= optional
    assert not differing(made["words"][0], WordAttribution)
    assert not differing(made["words"][0]["features"][0], AttributedItem)
    assert not differing(attribution_payload.feature_words(made), FeatureWords)
    assert not differing(attribution_payload.feature_words(made)["words"][0], WordScore)
    assert not differing(attribution_payload.without(), WithoutFeatures)
    assert not differing(attention_payload.payload(), AttentionPayload)
    assert not differing(attention_payload.spec(), MapSpec)
    assert not differing(attention_payload.score(), Score)
    assert not differing(attention_payload.what_if(), WhatIf)
    assert not differing(attention_payload.fewest(), Fewest)
    assert not differing(attention_payload.flow(), FlowCurves)
    assert not differing(attention_payload.flow()["blocks"][0], FlowBlock)
    made = concepts_payload.payload(shift=concepts_payload.shift())
    assert differing(made, ConceptsPayload) <= optional
    assert not differing(made["dictionary"], ConceptDictionary)
    assert not differing(made["concepts"][0], ConceptItem)
    assert not differing(made["concepts"][0]["examples"][0], ConceptExample)
    assert not differing(made["shift"], ShiftPayload)
    assert not differing(made["shift"]["concepts"][0], ShiftedItem)
    assert not differing(concepts_payload.details(), ConceptDetails)
    assert not differing(concepts_payload.steered(), SteeredConcepts)
    made = study_payload.payload()
    assert not differing(made, StudyPayload)
    assert not differing(study_payload.part(), StudyPart)
    assert not differing(made["study"], StudyFacts)
    assert not differing(made["feature"], IndexedItem)
    for name, kind in {"top": IndexedPicture, "scores": FigureItem, "neighbours": IndexedNeighbour}.items():
        assert not differing(made["feature"][name][0], kind)
    assert not differing(made["feature"]["scores"][0]["controls"][0], ControlItem)
    assert not differing(made["feature"]["histogram"], IndexedHistogram)
    assert not differing(study_payload.found((1, "dog")), FoundIndexed)
    assert not differing(study_payload.found((1, "dog"))["features"][0], FoundLabel)
    assert not differing(study_payload.hand_over(), HandOver)
    assert not differing(edits_payload.payload(), EditsPayload)
    assert not differing(edits_payload.chip(), EditItem)
    assert not differing(steer_payload.payload(), SteerPayload)
    assert not differing(steer_payload.sweep(), SweepPayload)
    assert not differing(steer_payload.sweep()["points"][0], SweepPoint)
