"""The dictionaries of concepts known for each model, and the one in memory."""

import threading
from dataclasses import dataclass

from ..concepts.concept_files import saved
from ..concepts.concepts import Concepts
from ..errors import InterpError
from ..presets import PRESETS
from ..validation import shown
from .recent import Recent

_KEPT, _MAX_BYTES = 16, 1 << 28  # learned dictionaries
_LEARNED = "learned-"


@dataclass(frozen=True, eq=False)
class Learned:
    """A dictionary that a visitor had learned. Whoever knows its name may use it, and the name cannot be guessed."""

    name: str
    concepts: Concepts
    about: str
    """What it was learned on, with its figures."""

    @property
    def label(self) -> str:
        """What it is called in a list."""
        return f"yours: {len(self.concepts)} by {self.concepts.method}, layer {self.concepts.layer}, {self.concepts.where}"

    @property
    def nbytes(self) -> int:
        """Bytes of the large parts."""
        pictures = sum(len(each.webp) for row in self.concepts.examples for each in row)
        return self.concepts.activations.nbytes + self.concepts.atoms.nbytes + pictures


class ConceptShelf:
    """At most one known dictionary in memory, and those learned last, without their model, which may be replaced. `fixed`: no others are allowed."""

    def __init__(self, *, fixed: bool) -> None:
        self._fixed = fixed
        self._learned: Recent[Learned] = Recent(_KEPT, _MAX_BYTES, lambda learned: (learned,))
        self._held: dict[tuple[str, str], Concepts] = {}
        self._loading = threading.Lock()

    def names(self, model: str) -> tuple[str, ...]:
        """The dictionaries known for a model, the default first."""
        return tuple(self._sources(model))

    def about(self, name: str, model: str) -> str:
        """What is known about a dictionary; "" for one of the user's own."""
        if (learned := self.learned(name)) is not None:
            return learned.about
        known = PRESETS[model].concepts if model in PRESETS else ()
        return next((each.about for each in known if each.name == name), "")

    def meant(self, name: str | None, model: str) -> str:
        """The dictionary that a name refers to; "" or None is the model's first. "" if the model has none."""
        return (name or next(iter(self.names(model)), "")).strip()

    def keep(self, learned: Learned) -> None:
        """Keep a dictionary that was learned, for a while."""
        self._learned.put(learned.name, learned)

    def learned(self, name: str) -> Learned | None:
        """A dictionary that was learned here, if it is still kept."""
        return self._learned.get(name)

    def lacking(self, model: str) -> str:
        """Says that none is known for a model."""
        return f"No dictionary of concepts is known for {shown(model)}."

    def get(self, name: str | None, model: str) -> Concepts:
        """A dictionary by name: "" for the model's first, one of `names`, or, unless `fixed`, a folder that `Concepts.save` wrote."""
        known, name = self._sources(model), self.meant(name, model)
        if (learned := self.learned(name)) is not None:
            return learned.concepts
        if name.startswith(_LEARNED):
            raise InterpError(
                f"The server no longer keeps the dictionary {shown(name)}: it keeps the last {_KEPT} until it is restarted. Learn it again; on a server of your "
                "own you can also unpack its download and give the folder."
            )
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
