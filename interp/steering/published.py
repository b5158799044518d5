"""Edits with a known effect, by model."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class KnownEdit:
    """One feature, pushed."""

    sae: str
    """What `interp.load_sae` takes, or the name of an SAE of the model's preset."""
    feature: int
    unit: Literal["strength", "amount", "target"]
    value: float
    where: Literal["all", "image", "prompt", "answer"] = "all"


@dataclass(frozen=True)
class KnownSteering:
    """A named set of edits for one model."""

    model: str
    """Preset or checkpoint."""
    name: str
    note: str
    """What happens, and who reported it."""
    edits: tuple[KnownEdit, ...]


KNOWN_STEERING = (
    KnownSteering(
        "emoji-llava",
        "No pizza",
        "Switches off the two strongest pizza features and the one named objects, on the picture: the pizza leaves the answer and nothing replaces "
        "it. Compare with the parts: objects alone also removes the last thing named, pizza alone does not.",
        tuple(KnownEdit("emoji-llava-sae", feature, "target", 0.0, "image") for feature in (1192, 1650, 808)),
    ),
    KnownSteering(
        "emoji-llava",
        "No dog",
        "Sets eight features that fire on dogs to -1 on the picture. Of all sets tried, this one removes the dog with the smallest push, a fifth of "
        "the typical residual norm. The pizza and the background stay, and another noun replaces the dog, as with every set tried.",
        tuple(KnownEdit("emoji-llava-sae", feature, "target", -1.0, "image") for feature in (460, 556, 1635, 1002, 1479, 448, 68, 295)),
    ),
    KnownSteering(
        "emoji-llava",
        "Everything is pizza",
        "Adds the feature named pizza on the whole picture, with a push equal to the typical residual norm.",
        (KnownEdit("emoji-llava-sae", 1192, "strength", 1.0, "image"),),
    ),
    KnownSteering(
        "smol-llava",
        "No pizza",
        "Switches off the one feature named pizza, on the picture: the answer names a cookie in its place, and the dog and the background stay.",
        (KnownEdit("smol-llava-sae", 392, "target", 0.0, "image"),),
    ),
    KnownSteering(
        "smol-llava",
        "No dog",
        "Switches off the one feature named dog, on the picture: the answer names a fence in its place, and the pizza and the background stay.",
        (KnownEdit("smol-llava-sae", 840, "target", 0.0, "image"),),
    ),
    KnownSteering(
        "Intel/llava-gemma-2b",
        "No dog",
        "Published by llava-interpret: on a picture of a dog the answer turns to something else (at -2 the dog stays, at -7 the text breaks down). "
        "The SAE was trained on the text-only base model. Not tried here on the real weights.",
        (KnownEdit("gemma-2b-res-jb/blocks.12.hook_resid_post", 4501, "amount", -3.0),),
    ),
    KnownSteering(
        "llava-hf/llama3-llava-next-8b-hf",
        "More faithful",
        "The features that SSL (EMNLP Findings 2025) found for faithful and for hallucinated answers, with its strength of 0.6. SSL pushes at layer "
        "15, this preset at the SAE's own layer 24. Not tried here on the real weights.",
        (
            KnownEdit("lmms-lab/llama3-llava-next-8b-hf-sae-131k", 47230, "strength", 0.6, "image"),
            KnownEdit("lmms-lab/llama3-llava-next-8b-hf-sae-131k", 36992, "strength", -0.6, "answer"),
        ),
    ),
)
