"""Edits as plain JSON, as `/steer` takes them and a share link holds them."""

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InterpError
from ..saes.sae import Sae
from ..steering.edits import UNITS, Edit
from ..validation import as_whole, shown
from ..web.payloads.edits import Chip, chip

KEYS = ("feature", *UNITS, "where", "sae")
MAX_EDITS = 32


def edits_from(items: Any, find_sae: Callable[[str | None], Sae]) -> list[Edit]:
    """A list of dictionaries {feature, strength or amount or target, where="all", sae=None} as edits. `find_sae` gets the name, None for the default.

    Raises InterpError for anything else.
    """
    if not isinstance(items, list) or not items:
        raise InterpError(
            f'edits is {shown(items)}; it must be a list of at least one edit, such as [{{"feature": 7, "target": 0, "where": "all"}}].'
        )
    if len(items) > MAX_EDITS:
        raise InterpError(f"edits holds {len(items)} edits; at most {MAX_EDITS} are applied together.")
    return [edit_from(item, find_sae) for item in items]


def edit_from(item: Any, find_sae: Callable[[str | None], Sae]) -> Edit:
    """One edit. See `edits_from`."""
    if not isinstance(item, Mapping) or "feature" not in item:
        raise InterpError(f'An edit is {shown(item)}; it must name a feature, such as {{"feature": 7, "target": 0}}.')
    if unknown := sorted(set(item) - set(KEYS)):
        raise InterpError(f"An edit has {shown(unknown[0])}; it may have {', '.join(KEYS)}.")
    feature, name = item["feature"], item.get("sae")
    if as_whole(feature) is None:
        raise InterpError(f"feature is {shown(feature)}; it must be a whole number, as /sae_features returns them.")
    if name is not None and not isinstance(name, str):
        raise InterpError(f"The sae of an edit is {shown(name)}; it must be a name.")
    units = {unit: item.get(unit) for unit in UNITS}
    return Edit(sae=find_sae(name), feature=as_whole(feature), where=item.get("where") or "all", **units)


def linked_chip(item: Any, find_sae: Callable[[str | None], Sae]) -> Chip:
    """An edit from a link as the editor shows it, its name read from the SAE. Raises InterpError for one that cannot be applied."""
    if not isinstance(item, Mapping):
        raise InterpError(f"An edit of this link is {shown(item)}; it must name a feature.")
    unit, value = item.get("unit"), item.get("value")
    edit = edit_from({"feature": item.get("feature"), "sae": item.get("sae"), "where": item.get("where"), str(unit): value}, find_sae)
    assert edit.sae is not None
    assert edit.feature is not None
    label = edit.sae.labels.get(edit.feature)
    text = label.text if label else f"feature {edit.feature}"
    return chip(
        edit.sae.name, edit.at, edit.feature, text, unit=edit.unit, value=edit.value, where=edit.where, on=item.get("on") is not False
    )
