"""The table of checkpoints that are known by a short name. Knows nothing of torch: reading it costs nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ASSETS = Path(__file__).parents[1] / "assets"


@dataclass(frozen=True)
class KnownSae:
    """A sparse autoencoder for a preset's residual stream."""

    name: str
    source: str
    """What `interp.load_sae` takes: a release and id of sae-lens, a hub repository, or a folder."""
    layer: int


@dataclass(frozen=True)
class Preset:
    """One known checkpoint."""

    name: str
    checkpoint: str
    """Hub id or folder."""
    revision: str | None
    layers: int
    default_layer: int
    """Where its lens is read first, about three quarters deep."""
    memory_gb: float
    """Needed on the device, 4-bit where that is the default."""
    proved: str
    """"real weights" where its figures were measured on them, "shape" where only random weights of its exact classes were run."""
    about: str
    """One line for the page."""
    quantize: Literal["auto", "4bit", "none"] = "auto"
    """Overrides what "auto" means for this checkpoint."""
    saes: tuple[KnownSae, ...] = ()
    """The first is the one that is used where none is named."""


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="emoji-llava",
            checkpoint=str(ASSETS / "emoji-llava"),
            revision=None,
            layers=8,
            default_layer=5,
            memory_gb=0.1,
            proved="real weights",
            about=(
                "Knows 120 emoji and nothing else; built to be readable; says nothing about how readable large models are. "
                "For the real thing choose another model, such as llava-interleave-0.5b."
            ),
            quantize="none",
            saes=(KnownSae("emoji-llava-sae", str(ASSETS / "emoji-llava-sae"), layer=3),),
        ),
        Preset(
            name="llava-interleave-0.5b",
            checkpoint="llava-hf/llava-interleave-qwen-0.5b-hf",
            revision=None,
            layers=24,
            default_layer=17,
            memory_gb=3.5,
            proved="shape",
            about="A small real LLaVA (Qwen 0.5B and SigLIP) that runs on a CPU. Downloads about 1.7 GB once.",
        ),
    )
}
