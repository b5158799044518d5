"""Edits as plain JSON, the form in which `/steer` takes them and share links store them."""

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InterpError
from ..saes.sae import Sae
from ..steering.edits import UNITS, Edit
from ..validation import as_whole, sequence, shown
from ..web.payloads.edits import Chip, chip

KEYS = ("feature", *UNITS, "where", "sae")
MAX_EDITS = 32


def edits_from(items: Any, find_sae: Callable[[str | None], Sae]) -> list[Edit]:
    """Edits from dictionaries {feature, strength or amount or target, where="all", sae=None}. `find_sae` is called with the name, or None for the default.

    Raises InterpError for anything else.
    """
    found = sequence("edits", items, 'at least one edit, such as [{"feature": 7, "target": 0, "where": "all"}]')
    if len(found) > MAX_EDITS:
        raise InterpError(f"edits has {len(found)} entries; it must have at most {MAX_EDITS}.")
    return [edit_from(item, find_sae) for item in found]


def edit_from(item: Any, find_sae: Callable[[str | None], Sae]) -> Edit:
    """One edit. See `edits_from`."""
    if not isinstance(item, Mapping) or "feature" not in item:
        raise InterpError(f'An edit is {shown(item)}; it must be an object with a feature, such as {{"feature": 7, "target": 0}}.')
    if unknown := [key for key in item if key not in KEYS]:
        raise InterpError(f"An edit has the unknown key {shown(unknown[0])}; the keys are {', '.join(KEYS)}.")
    feature, name = item["feature"], item.get("sae")
    if as_whole(feature) is None:
        raise InterpError(f"feature is {shown(feature)}; it must be a whole number, such as /sae_features returns.")
    if name is not None and not isinstance(name, str):
        raise InterpError(f"The sae of an edit is {shown(name)}; it must be a name.")
    units = {unit: item.get(unit) for unit in UNITS}
    return Edit(sae=find_sae(name), feature=as_whole(feature), where=item.get("where") or "all", **units)


def linked_chip(item: Any, find_sae: Callable[[str | None], Sae]) -> Chip:
    """An edit from a link, as the editor shows it, named after the SAE's label. Raises InterpError if it cannot be applied."""
    if not isinstance(item, Mapping):
        raise InterpError(f"An edit in this link is {shown(item)}; it must be an object with a feature.")
    unit, value = item.get("unit"), item.get("value")
    edit = edit_from({"feature": item.get("feature"), "sae": item.get("sae"), "where": item.get("where"), str(unit): value}, find_sae)
    assert edit.sae is not None
    assert edit.feature is not None
    label = edit.sae.labels.get(edit.feature)
    text = label.text if label else f"feature {edit.feature}"
    return chip(
        edit.sae.name, edit.at, edit.feature, text, unit=edit.unit, value=edit.value, where=edit.where, on=item.get("on") is not False
    )
