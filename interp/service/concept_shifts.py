"""A model beside its fine-tune: both answer the pictures of a dictionary, and its concepts are compared."""

import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from ..concepts.collect import collect
from ..concepts.concepts import Concepts, Example
from ..concepts.shift import ConceptShift, concept_shift
from ..concepts.states import ConceptStates
from ..concepts.wanted import Wanted
from ..devices import release
from ..errors import InterpError
from ..models.names import parted, with_adapter
from ..models.vlm import Vlm
from ..presets import PRESETS
from ..validation import shown
from .concept_shelf import ConceptShelf
from .recent import Recent
from .requests import ShiftRequest
from .service import Service

MAX_COMPARED = 128
"""Pictures that both models answer."""
_NEW = 32  # tokens of an answer
_KEPT, _MAX_BYTES = 4, 1 << 28  # comparisons
_WHERE = ("patches", "answer", "end", "last", "image", "prompt", "all")
OnProgress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Compared:
    """A shift, and what both models answered to the dictionary's pictures."""

    shift: ConceptShift
    answers: Mapping[tuple[str, str], tuple[str, str]]
    """(Sample, prompt) → answer before and after."""

    @property
    def nbytes(self) -> int:
        """Bytes of the large parts."""
        both = (self.shift.concepts_before, self.shift.concepts_after)
        return sum(each.activations.nbytes + each.atoms.nbytes for each in both) + self.shift.shifts.nbytes + self.shift.shifted.nbytes

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: the shift, with the answers to each concept's pictures."""
        made = self.shift.to_dict()
        for each, examples in zip(made["concepts"], self.shift.concepts_before.examples, strict=True):
            pairs = [
                self.answers[example.sample, example.prompt] for example in examples if (example.sample, example.prompt) in self.answers
            ]
            each["answers"] = [{"before": before, "after": after} for before, after in pairs]
        return made


class ConceptShifts:
    """Comparisons of a service's model with fine-tunes of it."""

    def __init__(self, service: Service, shelf: ConceptShelf) -> None:
        self.service, self._shelf = service, shelf
        self._done: Recent[Compared] = Recent(_KEPT, _MAX_BYTES, lambda compared: (compared,))
        self._comparing = threading.Lock()

    def adapters(self, model: str) -> tuple[str, ...]:
        """The fine-tunes known for a model."""
        return tuple(each.name for each in PRESETS[model].adapters) if model in PRESETS else ()

    def shift(self, request: ShiftRequest, on_progress: OnProgress | None = None) -> Compared:
        """The model beside its fine-tune, cached. The fine-tune is loaded beside the model for as long as it takes."""
        tell = on_progress or (lambda _doing: None)
        vlm = self.service.vlm(request.model)
        name = self._tuned(request, vlm.name)
        concepts = self._shelf.get(request.dictionary, vlm.name)
        concepts.check_model(vlm)
        key = (vlm.name, name, id(concepts))
        with self._comparing:  # one at a time: each holds a second model
            done = self._done.get(key)
            if done is None:
                done = self._compare(vlm, name, concepts, tell)
                self._done.put(key, done)
            return done

    def _tuned(self, request: ShiftRequest, model: str) -> str:
        """The name of the fine-tune."""
        adapter, other = request.adapter.strip(), request.other.strip()
        if bool(adapter) == bool(other):
            given = "both were given" if adapter else "neither was given"
            raise InterpError(
                f"Name the fine-tune of {shown(model)} as adapter or as other, {given}. Known adapters: {', '.join(self.adapters(model)) or 'none'}."
            )
        if not self.service.can_switch and adapter not in self.adapters(model):
            raise InterpError(
                f"{'adapter' if adapter else 'other'} is {shown(adapter or other)}; on this server, adapter must be one of "
                f"{', '.join(self.adapters(model)) or 'none'}."
            )
        if adapter and parted(model)[1] is not None:
            raise InterpError(f"adapter is {shown(adapter)}, and {shown(model)} has one already. Choose its base as the model.")
        return with_adapter(model, adapter) if adapter else other

    def _compare(self, vlm: Vlm, name: str, concepts: Concepts, tell: OnProgress) -> Compared:
        where = next((each for each in _WHERE if Wanted.of(each).describe() == concepts.where), None)
        if where is None:
            raise InterpError(
                f"These concepts were learned on {concepts.where}, which cannot be collected again from here. Use interp.concept_shift."
            )
        chosen = _chosen(concepts)
        if not chosen:
            raise InterpError(
                "These concepts have no pictures for both models to answer. Use interp.concept_shift with samples of your own."
            )
        tuned = self.service.beside(vlm, name, tell)  # first: it may not fit
        before = _answered(vlm, chosen, concepts.layer, where, tell)
        after = _answered(tuned, chosen, concepts.layer, where, tell)
        tell("Comparing the concepts …")
        shift = concept_shift(before, after, concepts, maps=False)
        # Without the second model, which would stay in memory with it.
        shift = dataclasses.replace(shift, concepts_after=dataclasses.replace(shift.concepts_after, _vlm=None))
        answers = {
            (example.sample, example.prompt): (one.answer, other.answer)
            for example, one, other in zip(chosen, before.samples, after.samples, strict=True)
        }
        del tuned, after
        release()
        return Compared(shift, answers)


def _chosen(concepts: Concepts) -> list[Example]:
    """The pictures of the concepts, each once, the strongest of every concept first."""
    rounds = zip_longest(*concepts.examples)
    found = {(each.sample, each.prompt): each for some in rounds for each in some if each is not None and each.webp}
    return list(found.values())[:MAX_COMPARED]


def _answered(vlm: Vlm, chosen: list[Example], layer: int, where: str, tell: OnProgress) -> ConceptStates:
    samples = [(example.webp, example.prompt) for example in chosen]

    def show(done: int, _of: int | None) -> None:
        tell(f"{vlm.name} has answered {done} of {len(samples)} pictures …")

    return collect(vlm, samples, layer, where, max_new_tokens=_NEW, on_progress=show)
