"""`/models`."""

from typing import Any

from gradio.events import api

from ...service.service import Service


def models(service: Service) -> None:
    """Put `/models` into the current gr.Blocks."""

    def models() -> list[dict[str, Any]]:
        """The models that are known by name.

        Returns a list with, for each: name, checkpoint, layers, default_layer, saes, loaded (in memory now), fits (this machine's free memory),
        memory_gb (needed here; memory_4bit_gb and memory_16bit_gb on a GPU), licence, gated (must be accepted on the hub first), revision, requires
        (packages beside requirements.txt), proved ("real weights" if its figures were measured on them, "shape" if it was only tested with random
        weights), about.
        """
        return service.models()

    api(models, api_name="models")
