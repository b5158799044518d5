"""The SAEs known for each model, and the one in memory."""

import dataclasses
import threading
from pathlib import Path

from ..errors import InterpError
from ..presets import PRESETS
from ..saes.loading import load_sae
from ..saes.sae import Sae
from ..validation import shown


class SaeShelf:
    """At most one SAE in memory: a large one takes gigabytes.

    `source`, unless empty, is the default SAE of `default_model`, instead of the first one known for it; `layer` picks one of several. `fixed`: only
    known SAEs are allowed.
    """

    def __init__(self, default_model: str, source: str, layer: int | None = None, *, fixed: bool) -> None:
        self._default_model, self._layer, self._fixed = default_model, layer, fixed
        source = source.strip()
        if layer is not None and not source:
            known = PRESETS[default_model].saes if default_model in PRESETS else ()
            # If there is none, loading the one of that layer says so.
            source = next((sae.name for sae in known if sae.layer == layer), default_model)
        folder = Path(source)
        self._own = {folder.name if source and folder.is_dir() else source: source} if source else {}
        self._held: dict[str, Sae] = {}
        self._loading = threading.Lock()

    def names(self, model: str = "") -> tuple[str, ...]:
        """The SAEs known for a model, the default first."""
        return tuple(self._sources(model or self._default_model))

    def meant(self, name: str | None, model: str) -> str:
        """The SAE that a name refers to; "" or None is the model's first. "" if the model has none."""
        return (name or next(iter(self.names(model)), "")).strip()

    def holds(self, name: str | None, model: str) -> bool:
        """Whether this SAE is already in memory."""
        return self.meant(name, model) in self._held

    @property
    def in_use(self) -> Sae | None:
        """The SAE in memory."""
        return next(iter(self._held.values()), None)

    def keeps(self, sae: Sae) -> bool:
        """Whether this object is the SAE in memory."""
        return any(held is sae for held in self._held.values())

    def get(self, name: str | None, model: str) -> Sae:
        """An SAE by name: "" for the model's first, one of `names`, or, unless `fixed`, anything `load_sae` takes."""
        known, name = self._sources(model), self.meant(name, model)
        if not name:
            raise InterpError(
                f"No SAE is known for {shown(model)}. Choose a model that has one ({', '.join(p.name for p in PRESETS.values() if p.saes)})"
                + ("." if self._fixed else ", or name an SAE: a sae-lens release/id, a hub repository or a folder.")
                + " Without an SAE, you can steer from Python with a contrast vector: interp.contrast_vector."
            )
        if name not in known and self._fixed:
            raise InterpError(
                f"sae is {shown(name)}; on this server it must be one of {', '.join(known) or 'none'}, or empty for the first."
            )
        with self._loading:
            if name not in self._held:
                # Under the requested name: edits carry that name and look it up again.
                layer = self._layer if name in self._own else None
                sae = dataclasses.replace(load_sae(known.get(name, name), layer=layer), name=name)
                self._held = {name: sae}
            return self._held[name]

    def drop_others(self, model: str) -> None:
        """Drop an SAE that does not belong to this model."""
        self._held = {name: sae for name, sae in self._held.items() if name in self.names(model)}

    def _sources(self, model: str) -> dict[str, str]:
        """Name → what `load_sae` takes."""
        preset = PRESETS.get(model)
        known = {sae.name: sae.source for sae in preset.saes} if preset else {}
        first = self._own if model == self._default_model else {}
        return {**{name: known.get(name, source) for name, source in first.items()}, **known}
