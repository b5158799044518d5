"""Concepts in one run: how much of each is in every state, and where on the picture."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ..tracing.select import grid_of, select, sinks
from ..tracing.trace import Trace
from .concepts import Concepts, Fit, strongest


@dataclass(frozen=True, eq=False)
class ConceptsHere:
    """See `concepts_here`."""

    concepts: Concepts
    trace: Trace
    codes: torch.Tensor
    """How much of each concept is in the state at each position: float32 [T, K]."""
    left_out: tuple[int, ...]
    """BOS and attention sinks, which count neither for `activations` nor for `places`."""

    @property
    def activations(self) -> list[float]:
        """The highest code of each concept on an image token; 0 without any."""
        rows = self._image
        return self.codes[rows].amax(0).tolist() if rows else [0.0] * len(self.concepts)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many of the states that the concepts were learned on have most of each."""
        return self.concepts.sizes

    def places(self, concept: int) -> list[int]:
        """The image tokens that have most of a concept. Raises InterpError if there is no such concept."""
        concept = self.concepts.check(concept)
        return [row for row, most in zip(self._image, self._strongest, strict=True) if most == concept]

    def map(self, concept: int, grid: int = 0) -> torch.Tensor:
        """A concept's code on each patch: float32 [rows, cols]. Raises InterpError if there is no such concept or grid."""
        return self.codes[:, self.concepts.check(concept)][grid_of(self.trace, grid).positions]

    def direction(self, concept: int) -> torch.Tensor:
        """What tells a concept from the others: float32 [d]. Centres of k-means are states, so their mean is subtracted."""
        concept = self.concepts.check(concept)
        atoms = self.concepts.atoms
        return atoms[concept] - atoms.mean(0) if self.concepts.method == "k-means" else atoms[concept]

    @cached_property
    def fit(self) -> Fit:
        """How much of this picture's image tokens the concepts leave unexplained."""
        return self.concepts.fit_of(self.trace.residual(self.concepts.layer)[self._image])

    def to_dict(self) -> dict[str, Any]:
        """Everything about this run, as plain JSON types; about the concepts themselves what tells them apart."""
        concepts, sizes = self.concepts, self.sizes
        return {
            "schema": "llava-microscope/concepts-here/1",
            "model": self.trace.model_name,
            "prompt": self.trace.prompt,
            "answer": self.trace.answer,
            "method": concepts.method,
            "layer": concepts.layer,
            "where": concepts.where,
            "states": len(concepts.activations),
            "learned_fit": concepts.fit.to_dict(),
            "fit": self.fit.to_dict(),
            "left_out": list(self.left_out),
            "concepts": [
                {
                    "concept": k,
                    "words": list(concepts.words[k]),
                    "opposite": list(concepts.opposite[k]) if concepts.opposite else [],
                    "size": sizes[k],
                    "stability": concepts.stability[k],
                    "activation": activation,
                    "places": self.places(k),
                    "map": [self.map(k, grid).tolist() for grid in range(len(self.trace.grids))],
                }
                for k, activation in enumerate(self.activations)
            ],
        }

    @cached_property
    def _image(self) -> list[int]:
        return select(self.trace, "image", self.left_out)[1]

    @cached_property
    def _strongest(self) -> list[int]:
        most: list[int] = strongest(self.codes[self._image], self.concepts.method).tolist()
        return most


def concepts_here(concepts: Concepts, trace: Trace) -> ConceptsHere:
    """How much of each concept is in the states of one run. Raises InterpError for concepts of another model."""
    concepts.check_model(trace.vlm)
    return ConceptsHere(concepts, trace, concepts.transform(trace), sinks(trace, trace.residual(concepts.layer)))
