"""The payload of the editor of edits: chips, presets, and the picture they may be placed on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, cast

from ...saes.features import Encoding
from ...steering.published import KNOWN_STEERING, KnownSteering
from ...tracing.trace import Trace
from .scene import Grid, Picture, scene

SCHEMA = "llava-microscope/edits/1"


class PatchPlace(TypedDict):
    """Chosen patches: [row, column] pairs of one grid."""

    patches: list[list[int]]
    grid: int


class EditItem(TypedDict):
    """One edit of the list. `value` is in its `unit`; `max` and `active`: its largest activation on the picture and the patches where it is active, if known."""

    sae: str
    layer: int | None
    feature: int
    label: str
    unit: str
    value: float
    where: str | PatchPlace
    max: float | None
    active: list[list[int]]
    on: bool


Chip = EditItem


class EditScene(TypedDict):
    """The picture that edits may be placed on."""

    image: Picture
    seen: list[float]
    grids: list[Grid]


class EditPreset(TypedDict):
    """Edits that are known to work, offered by name."""

    name: str
    note: str
    edits: list[EditItem]


class PublishedEdits(TypedDict):
    """Edits published for another model, in words."""

    model: str
    text: str


class EditorSae(TypedDict):
    """The SAE that is searched."""

    name: str
    layer: int
    features: int


class EditsPayload(TypedDict):
    """The editor's data. `swept`: the index of the edit that a sweep varies."""

    schema: str
    run: str | None
    model: str
    scene: EditScene | None
    edits: list[EditItem]
    swept: int
    presets: list[EditPreset]
    published: list[PublishedEdits]
    sae: EditorSae | None


def edits_payload(
    trace: Trace | None,
    encoding: Encoding | None,
    chips: Sequence[Chip],
    *,
    model: str,
    names: Iterable[str] = (),
    run: str | None = None,
    swept: int = 0,
) -> EditsPayload:
    """The editor's data. `encoding`: of the trace by the SAE that is searched. `names`: other names of the model, under which edits may be known."""
    names = {model, *names}
    sae = encoding.sae if encoding else None
    return {
        "schema": SCHEMA,
        "run": run,
        "model": model,
        "scene": None if trace is None else _scene(trace),
        "edits": list(chips),
        "swept": swept,
        "presets": [preset(known, encoding) for known in KNOWN_STEERING if known.model in names],
        "published": [{"model": known.model, "text": _in_words(known)} for known in KNOWN_STEERING if known.model not in names],
        "sae": None if sae is None else {"name": sae.name, "layer": sae.layer, "features": sae.d_sae},
    }


def _scene(trace: Trace) -> EditScene:
    shown = scene(trace)
    return {"image": shown["image"], "seen": shown["seen"], "grids": shown["grids"]}


def chip(sae_name: str, layer: int | None, feature: int, label: str, **changes: Any) -> Chip:
    """One edit as the editor shows it; by default at strength 0."""
    base = {"sae": sae_name, "layer": layer, "feature": feature, "label": label}
    usual = {"unit": "strength", "value": 0.0, "where": "all", "max": None, "active": [], "on": True}
    return cast("Chip", {**base, **usual, **changes})


def found_chips(encoding: Encoding, features: Sequence[int]) -> list[Chip]:
    """Features as chips that know where they are active on the picture; the editor decides how they are pushed."""
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


def preset(known: KnownSteering, encoding: Encoding | None) -> EditPreset:
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
