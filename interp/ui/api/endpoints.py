"""All endpoints."""

import gradio as gr

from ...service.service import Service
from ...service.steer_service import SteerService
from .features import sae_features
from .lens import logit_lens
from .models import models
from .steer import steer, steer_sweep


def add_endpoints(service: Service, steering: SteerService) -> None:
    """Add every endpoint to the current gr.Blocks."""
    with gr.Group(visible=False):
        models(service)
        logit_lens(service)
        sae_features(service)
        steer(steering)
        steer_sweep(steering)
