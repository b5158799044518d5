"""All endpoints."""

import gradio as gr

from ...service.attention_service import AttentionService
from ...service.attribution_service import AttributionService
from ...service.concepts_service import ConceptsService
from ...service.service import Service
from ...service.steer_service import SteerService
from ...service.study_service import StudyService
from ...service.whatif_service import WhatIfService
from .attention import attention
from .attribution import attribution
from .concepts import concept_shift, concepts, learn_concepts
from .features import sae_features
from .knockout import knockout
from .lens import logit_lens
from .models import models
from .steer import steer, steer_sweep
from .study import feature, find_features


def add_endpoints(
    service: Service,
    steering: SteerService,
    explaining: AttentionService,
    changing: WhatIfService,
    attributing: AttributionService,
    finding: ConceptsService,
    studying: StudyService,
) -> None:
    """Add every endpoint to the current gr.Blocks."""
    with gr.Group(visible=False):
        models(service)
        logit_lens(service)
        attention(explaining)
        knockout(changing)
        sae_features(service)
        attribution(attributing)
        concepts(finding)
        concept_shift(finding)
        learn_concepts(finding)
        steer(steering)
        steer_sweep(steering)
        feature(studying)
        find_features(studying)
