"""`/models`."""

from typing import Any

from gradio.events import api

from ...service.service import Service


def models(service: Service) -> None:
    """Add `/models` to the current gr.Blocks."""

    def models() -> list[dict[str, Any]]:
        """The models known by name.

        Returns a list with, for each model: name, checkpoint, layers, default_layer, saes, concepts, loaded (in memory now), fits (whether there is enough free
        memory), memory_gb (needed on this machine; on a GPU: memory_4bit_gb, memory_16bit_gb), licence, gated (the licence must be accepted on the hub
        first), revision, requires (packages not in requirements.txt), proved ("real weights", or "shape" if tested with random weights only), about, adapters (its
        fine-tunes: name, as model takes it, loaded, about).
        """
        return service.models()

    api(models, api_name="models")
