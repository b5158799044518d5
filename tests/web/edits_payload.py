"""An edits payload made up for tests. Written from the contract alone, so that the tests do not lean on the code that makes real payloads."""

from __future__ import annotations

from typing import Any

from tests.web.feature_payload import payload as feature_payload
from tests.web.lens_payload import what

DOG, PIZZA, BLUE = 1428, 77, 5002
SCENE = ("prompt", "answer", "finished", "notes", "image", "seen", "grids", "tokens")


def drawn(kind: int, side: int = 8) -> list[list[int]]:
    """The patches on which something is drawn."""
    return [[r, c] for r in range(side) for c in range(side) if what((c + 0.5) / side * 96, (r + 0.5) / side * 96) == kind]


def chip(feature: int = DOG, label: str = "dog", **fields: Any) -> dict[str, Any]:
    """One edit. The dog is active where it is drawn."""
    made = {
        "sae": "emoji-llava-sae",
        "layer": 6,
        "feature": feature,
        "label": label,
        "unit": "strength",
        "value": -0.3,
        "where": "all",
        "max": 6.3,
        "active": drawn(0),
        "on": True,
    }
    return made | fields


def pizza(**fields: Any) -> dict[str, Any]:
    return chip(**{"feature": PIZZA, "label": "pizza", "unit": "target", "value": 0, "max": 4.0, "active": drawn(1)} | fields)


def blue(**fields: Any) -> dict[str, Any]:
    """A feature of which nothing is known here."""
    return chip(**{"feature": BLUE, "label": "", "unit": "amount", "value": 2.5, "max": None, "active": []} | fields)


def scene(**fields: Any) -> dict[str, Any]:
    made = {"finished": True, **feature_payload(**fields)}
    return {"model": made["model"], **{name: made[name] for name in SCENE}}


def payload(**fields: Any) -> dict[str, Any]:
    """A payload with no edits yet; `fields` replace fields."""
    made = {
        "schema": "llava-microscope/edits/1",
        "run": "r1",
        "model": "emoji-llava",
        "scene": scene(),
        "edits": [],
        "swept": 0,
        "presets": [
            {"name": "No dog", "note": "The dog's feature is switched off everywhere.", "edits": [chip(unit="target", value=0)]},
            {"name": "More pizza", "note": "Pizza up, dog down.", "edits": [pizza(unit="strength", value=0.4), chip()]},
        ],
        "published": [
            {"model": "llava-gemma-2b", "text": "feature 4501 at amount -3: the dog goes"},
            {"model": "llava-1.5-7b", "text": "feature 12 at strength 0.5: all is red"},
        ],
        "sae": {"name": "emoji-llava-sae", "layer": 6, "features": 8192},
    }
    return made | fields
