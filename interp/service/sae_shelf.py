"""The SAEs that are known for each model, and the one that is in memory."""

import dataclasses
import threading
from pathlib import Path

from ..errors import InterpError
from ..presets import PRESETS
from ..saes.loading import load_sae
from ..saes.sae import Sae


class SaeShelf:
    """At most one SAE in memory: a large one takes gigabytes.

    `source` is the SAE that `default_model` is looked at with by default, instead of the first that is known for it; "" for none. `fixed`: only
    known SAEs may be asked for.
    """

    def __init__(self, default_model: str, source: str, *, fixed: bool) -> None:
        self._default_model, self._fixed = default_model, fixed
        source = source.strip()
        folder = Path(source)
        self._own = {folder.name if source and folder.is_dir() else source: source} if source else {}
        self._held: dict[str, Sae] = {}
        self._loading = threading.Lock()

    def names(self, model: str = "") -> tuple[str, ...]:
        """The SAEs that are known for a model, the one used by default first."""
        return tuple(self._sources(model or self._default_model))

    def meant(self, name: str | None, model: str) -> str:
        """The SAE that a name means for a model: "" or None its first. "" where none is known."""
        return (name or next(iter(self.names(model)), "")).strip()

    def holds(self, name: str | None, model: str) -> bool:
        """Whether this SAE is in memory already."""
        return self.meant(name, model) in self._held

    def keeps(self, sae: Sae) -> bool:
        """Whether this very SAE is the one in memory."""
        return any(held is sae for held in self._held.values())

    def get(self, name: str | None, model: str) -> Sae:
        """An SAE by its name: "" for the model's first, one of `names`, or, unless only known ones are allowed, whatever `load_sae` takes."""
        known, name = self._sources(model), self.meant(name, model)
        if not name:
            raise InterpError(
                f"No SAE is known for {model!r}. Choose a model that has one ({', '.join(p.name for p in PRESETS.values() if p.saes)})"
                + ("." if self._fixed else ", or name an SAE yourself: a release of sae-lens with an id, a hub repository, or a folder.")
                + " Without any, contrast vectors steer a model from Python: interp.contrast_vector."
            )
        if name not in known and self._fixed:
            raise InterpError(
                f"{name!r} is not an SAE of this server's model, which has {', '.join(known) or 'none'}. Leave `sae` empty for the first."
            )
        with self._loading:
            if name not in self._held:
                # Under the name it was asked for: edits carry that name and ask for it again.
                sae = dataclasses.replace(load_sae(known.get(name, name)), name=name)
                self._held = {name: sae}
            return self._held[name]

    def drop_others(self, model: str) -> None:
        """Let go of an SAE that is not known for this model."""
        self._held = {name: sae for name, sae in self._held.items() if name in self.names(model)}

    def _sources(self, model: str) -> dict[str, str]:
        """Name → what `load_sae` takes."""
        preset = PRESETS.get(model)
        known = {sae.name: sae.source for sae in preset.saes} if preset else {}
        first = self._own if model == self._default_model else {}
        return {**{name: known.get(name, source) for name, source in first.items()}, **known}
