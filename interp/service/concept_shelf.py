"""The dictionaries of concepts known for each model, and the one in memory."""

import threading

from ..concepts.concept_files import saved
from ..concepts.concepts import Concepts
from ..errors import InterpError
from ..presets import PRESETS
from ..validation import shown


class ConceptShelf:
    """At most one dictionary in memory, without its model, which may be replaced. `fixed`: only known ones are allowed."""

    def __init__(self, *, fixed: bool) -> None:
        self._fixed = fixed
        self._held: dict[tuple[str, str], Concepts] = {}
        self._loading = threading.Lock()

    def names(self, model: str) -> tuple[str, ...]:
        """The dictionaries known for a model, the default first."""
        return tuple(self._sources(model))

    def about(self, name: str, model: str) -> str:
        """What is known about a dictionary; "" for one of the user's own."""
        known = PRESETS[model].concepts if model in PRESETS else ()
        return next((each.about for each in known if each.name == name), "")

    def meant(self, name: str | None, model: str) -> str:
        """The dictionary that a name refers to; "" or None is the model's first. "" if the model has none."""
        return (name or next(iter(self.names(model)), "")).strip()

    def lacking(self, model: str) -> str:
        """Says that none is known for a model."""
        return f"No dictionary of concepts is known for {shown(model)}."

    def get(self, name: str | None, model: str) -> Concepts:
        """A dictionary by name: "" for the model's first, one of `names`, or, unless `fixed`, a folder that `Concepts.save` wrote."""
        known, name = self._sources(model), self.meant(name, model)
        if not name:
            own = "." if self._fixed else ", or give the folder of one of your own: interp.learn_concepts(...).save(folder)."
            having = ", ".join(preset.name for preset in PRESETS.values() if preset.concepts)
            raise InterpError(f"{self.lacking(model)} Choose a model that has one ({having}){own}")
        if name not in known and (self._fixed or not saved(name)):
            own = "" if self._fixed else ", or the folder of one of your own (there are no saved concepts in a folder of this name)"
            first = ", or empty for the first" if known else ""
            raise InterpError(f"dictionary is {shown(name)}; for {model} it must be one of {', '.join(known) or 'none'}{first}{own}.")
        with self._loading:
            if (model, name) not in self._held:
                self._held = {(model, name): Concepts.load(known.get(name, name))}
            return self._held[model, name]

    def _sources(self, model: str) -> dict[str, str]:
        """Name → folder."""
        return {each.name: each.source for each in PRESETS[model].concepts} if model in PRESETS else {}
