"""What the editor of edits shows: chips, presets, the picture they may be placed on. Knows neither gradio nor HTML."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...saes.features import Encoding
from ...steering.published import KNOWN_STEERING, KnownSteering
from ...tracing.trace import Trace
from .lens import scene

SCHEMA = "llava-microscope/edits/1"
Chip = dict[str, Any]


def edits_payload(
    trace: Trace | None,
    encoding: Encoding | None,
    chips: Sequence[Chip],
    *,
    model: str,
    names: Iterable[str] = (),
    run: str | None = None,
    swept: int = 0,
) -> dict[str, Any]:
    """The editor's data. `encoding`: of the trace by the dictionary that is searched. `names`: what the model is called, to find what is known for it."""
    names = {model, *names}
    sae = encoding.sae if encoding else None
    return {
        "schema": SCHEMA,
        "run": run,
        "model": model,
        "scene": None if trace is None else {part: value for part, value in scene(trace).items() if part in {"image", "grids", "seen"}},
        "edits": list(chips),
        "swept": swept,
        "presets": [preset(known, encoding) for known in KNOWN_STEERING if known.model in names],
        "published": [{"model": known.model, "text": _in_words(known)} for known in KNOWN_STEERING if known.model not in names],
        "sae": None if sae is None else {"name": sae.name, "layer": sae.layer, "features": sae.d_sae},
    }


def chip(sae_name: str, layer: int | None, feature: int, label: str, **changes: Any) -> Chip:
    """One edit as the editor shows it; by default switched off: pushed by nothing."""
    base = {"sae": sae_name, "layer": layer, "feature": feature, "label": label}
    return {**base, "unit": "strength", "value": 0.0, "where": "all", "max": None, "active": [], "on": True, **changes}


def found_chips(encoding: Encoding, features: Sequence[int]) -> list[Chip]:
    """Features as chips that know where they are active on the picture; how they are pushed is for the editor to say."""
    sae = encoding.sae
    return [
        chip(
            sae.name,
            sae.layer,
            feature.feature,
            feature.label,
            max=feature.max,
            active=feature.map(0).nonzero().tolist() if encoding.trace.grids else [],
        )
        for feature in encoding.some(features, "all", "max")
    ]


def renewed(chips: Sequence[Chip], encoding: Encoding) -> list[Chip]:
    """The same edits on another picture: where each feature is active there."""
    own = [c["feature"] for c in chips if c["sae"] == encoding.sae.name]
    known = {c["feature"]: c for c in found_chips(encoding, own)}
    return [
        {**c, "max": known[c["feature"]]["max"], "active": known[c["feature"]]["active"]} if c["sae"] == encoding.sae.name else c
        for c in chips
    ]


def requests(chips: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The chips that are switched on, as `/steer` takes them."""
    return [{"sae": c["sae"], "feature": c["feature"], c["unit"]: c["value"], "where": c["where"]} for c in chips if c.get("on", True)]


def preset(known: KnownSteering, encoding: Encoding | None) -> dict[str, Any]:
    """A known set of edits as the editor offers it."""
    sae, chips = encoding.sae if encoding else None, []
    for edit in known.edits:
        own = sae if sae is not None and edit.sae == sae.name else None
        label = own.labels.get(edit.feature) if own else None
        how = {"unit": edit.unit, "value": edit.value, "where": edit.where}
        chips.append(chip(edit.sae, own.layer if own else None, edit.feature, label.text if label else f"feature {edit.feature}", **how))
    return {"name": known.name, "note": known.note, "edits": renewed(chips, encoding) if encoding else chips}


def _in_words(known: KnownSteering) -> str:
    edits = ", ".join(f"feature {edit.feature} of {edit.sae} at {edit.unit} {edit.value:g} on {edit.where}" for edit in known.edits)
    return f"{known.name}: {edits}. {known.note}"
