"""The list of presets, as `/models` returns it."""

from typing import Any

from ..devices import free_bytes, pick_devices
from ..models.names import with_adapter
from ..presets import PRESETS
from .model_slot import ModelSlot


def catalogue(slot: ModelSlot, device: str) -> list[dict[str, Any]]:
    """Every preset, and whether it would fit this machine in place of the loaded model."""
    devices = pick_devices(device)
    free, cpu = (sum(map(free_bytes, devices)) + slot.nbytes) / 1e9, devices[0].type == "cpu"
    return [
        {
            "name": preset.name,
            "checkpoint": preset.checkpoint if "/" in preset.checkpoint and not preset.checkpoint.startswith("/") else preset.name,
            "layers": preset.n_layers,
            "default_layer": preset.default_layer,
            "saes": [{"name": sae.name, "layer": sae.layer, "labels": sae.labels, "note": sae.note} for sae in preset.saes],
            "concepts": [{"name": each.name, "layer": each.layer, "about": each.about} for each in preset.concepts],
            "loaded": preset.name == slot.name,
            "fits": preset.memory_gb(cpu=cpu) <= free,
            "memory_gb": preset.memory_gb(cpu=cpu),
            "memory_4bit_gb": preset.memory_4bit_gb,
            "memory_16bit_gb": preset.memory_16bit_gb,
            "licence": preset.licence,
            "gated": preset.gated,
            "revision": preset.revision,
            "requires": list(preset.requires),
            "adapters": [
                {"name": name, "about": known.about, "loaded": name == slot.name}
                for known in preset.adapters
                for name in [with_adapter(preset.name, known.name)]
            ],
            "proved": preset.proved,
            "about": preset.about,
        }
        for preset in PRESETS.values()
    ]
