"""How fine-tuning moved concepts: the same samples through two models, compared concept by concept.

After Khayatan et al. 2025 ("Analyzing fine-tuning representation shift for multimodal LLMs steering"). With rows a_m before and b_m after, and A_k the
samples that concept k is strongest in: shift_k = mean over A_k of (b_m - a_m), shifted atom s_k u_k + alpha * shift_k. Here s_k brings an atom to the size
of states: 1 for the centres of k-means, the mean code in A_k for atoms of length 1. Concepts learned anew on the rows after are matched with those
before (Hungarian method on cosines); a shift recovers the match as far as the shifted atom lies nearer to it than the original one does.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import normalize

from ..errors import InterpError
from ..files import write_text
from ..validation import finite_number, flag, instance
from .concepts import Concepts, Example, strongest
from .ground import words_of
from .learn import learn_concepts, size_of
from .match import cosines, matched
from .shift_page import page
from .states import ConceptStates

_ROUNDING = 1e-5  # of a state's norm: what lies closer differs by rounding alone


@dataclass(frozen=True, eq=False)
class ShiftedConcept:
    """What happened to one concept."""

    concept: int
    size: int
    """Samples in which it is strongest; with 0, everything below is None, 0 or empty."""
    magnitude: float
    """|shift|, the length of the mean shift of these samples."""
    relative: float
    """magnitude / mean norm of these samples' states before."""
    consistency: float | None
    """Mean cosine between the shifts of every two of these samples: 1 if all move alike. None for fewer than two that move."""
    along: float | None
    """Mean cosine of the samples' shifts with their mean. None where nothing moves."""
    match: int
    """The concept after that it is paired with."""
    cosine: float
    """Of the original atom with its match."""
    shifted_cosine: float
    """Of the shifted atom with the match."""
    recovery: float | None
    """1 - |match - shifted| / |match - original|: 1 if the shift leads exactly to the match, 0 if it does not lead nearer. None where the match is the original."""
    words: tuple[str, ...]
    """Of the original atom, through the model before."""
    words_shifted: tuple[str, ...]
    """Of the shifted atom, through the model after."""
    words_after: tuple[str, ...]
    """Of the match, through the model after."""
    examples_before: tuple[Example, ...] = field(default=(), repr=False)
    examples_after: tuple[Example, ...] = field(default=(), repr=False)

    @property
    def gained(self) -> tuple[str, ...]:
        """Words that its match has and it had not."""
        return tuple(word for word in self.words_after if word not in self.words)

    @property
    def lost(self) -> tuple[str, ...]:
        """Words that it had and its match has not."""
        return tuple(word for word in self.words if word not in self.words_after)

    @property
    def word_recovery(self) -> float | None:
        """Share of the match's words that the shifted atom has too. None if the match has none."""
        after = set(self.words_after)
        return len(after & set(self.words_shifted)) / len(after) if after else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        names = (
            "concept",
            "size",
            "magnitude",
            "relative",
            "consistency",
            "along",
            "match",
            "cosine",
            "shifted_cosine",
            "recovery",
            "word_recovery",
        )
        lists = ("words", "words_shifted", "words_after", "gained", "lost")
        return {name: getattr(self, name) for name in names} | {name: list(getattr(self, name)) for name in lists}


@dataclass(frozen=True, eq=False)
class ConceptShift:
    """How the concepts of one model moved in another. See `interp.concept_shift`."""

    before: str
    """Name of the model before."""
    after: str
    layer: int
    where: str
    alpha: float
    shifts: torch.Tensor
    """The mean shift of each concept: float32 [K, d]."""
    shifted: torch.Tensor
    """Each atom, at the size of its states, + alpha * its shift: float32 [K, d]."""
    concepts_before: Concepts
    concepts_after: Concepts
    """Learned on the states after, in their own order; `ShiftedConcept.match` numbers them."""
    each: tuple[ShiftedConcept, ...]
    compared: int
    """States that both sets have."""
    left_out: tuple[int, int]
    """States that only the set before has, and only the set after."""

    @property
    def moved(self) -> tuple[ShiftedConcept, ...]:
        """The concepts that moved most first, relative to the norm of their states."""
        return tuple(sorted(self.each, key=lambda one: -one.relative))

    @property
    def correlation(self) -> float | None:
        """Pearson correlation of recovery with consistency over the concepts that have both; None for fewer than three, or where one does not vary."""
        pairs = [(one.consistency, one.recovery) for one in self.each if one.consistency is not None and one.recovery is not None]
        if len(pairs) < 3 or any(max(column) - min(column) < _ROUNDING for column in zip(*pairs, strict=True)):
            return None
        from scipy.stats import pearsonr  # noqa: PLC0415 - slow to import, and needed by nothing else

        return float(pearsonr(*zip(*pairs, strict=True)).statistic)

    def to_dict(self) -> dict[str, Any]:
        """Everything but tensors and pictures, as plain JSON types."""
        return {
            "schema": "llava-microscope/concept-shift/1",
            "before": self.before,
            "after": self.after,
            "layer": self.layer,
            "where": self.where,
            "method": self.concepts_before.method,
            "alpha": self.alpha,
            "compared": self.compared,
            "left_out": list(self.left_out),
            "correlation": self.correlation,
            "concepts": [one.to_dict() for one in self.each],
        }

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write one HTML file with a card for each concept, the most moved first. It needs no server and no network.

        Raises InterpError where nothing can be written.
        """
        write_text(path, lambda: page(self.to_dict(), self.moved))


def concept_shift(
    states_before: ConceptStates,
    states_after: ConceptStates,
    concepts: Concepts,
    *,
    after: Concepts | None = None,
    alpha: float = 1.0,
    maps: bool = True,
) -> ConceptShift:
    """Compare what two models make of the same samples, concept by concept.

    `concepts` were learned on states of the model before, at a layer that both sets have. States are matched by sample and, where a sample has
    several, by position; those that only one set has are counted and left out. `after`: concepts of the model after to compare with; by default as
    many are learned on its states with the same method and seed, with `maps` on their pictures, which take a run each. `alpha`: how much of the shift is added to the atoms. Words of the shifted and
    the new atoms are read by the model after, where its states have it.

    Raises InterpError for sets without a state in common, of different widths, and for the method "sae", whose features are fixed.
    """
    for name, states in (("states_before", states_before), ("states_after", states_after)):
        instance(name, states, ConceptStates, "states, as interp.collect(...) returns")
    instance("concepts", concepts, Concepts, "concepts, as interp.learn_concepts(...) returns")
    maps = flag("maps", maps)
    alpha = float(finite_number("alpha", alpha, -1000, 1000))
    if concepts.method == "sae":
        raise InterpError("concepts are SAE features, whose directions are the same before and after: learn concepts with another method.")
    layer = concepts.layer
    sides = (states_before, states_after)
    a, b = (states.residual(layer) for states in sides)
    if a.shape[1] != b.shape[1] or a.shape[1] != concepts.atoms.shape[1]:
        raise InterpError(
            f"The widths of states_before ({a.shape[1]}), states_after ({b.shape[1]}) and concepts ({concepts.atoms.shape[1]}) differ: compare a "
            "model with its own fine-tune."
        )
    rows = _common(*sides)
    if not rows:
        raise InterpError(
            "states_before and states_after have no state of the same sample in common. Collect both on the same samples, in the same way."
        )
    if after is None:
        after = learn_concepts(
            states_after,
            len(concepts),
            concepts.method,
            layer=layer,
            seed=concepts.seed,
            sparsity=_sparsity(concepts, states_before),
            centred=bool(concepts.mean.any()) and concepts.method == "semi-nmf",
            seeds=1,
            maps=maps,
        )
    elif (
        len(instance("after", after, Concepts, "concepts, as interp.learn_concepts(...) returns")) != len(concepts) or after.layer != layer
    ):
        raise InterpError(
            f"after has {len(after)} concepts of layer {after.layer}; it must have {len(concepts)} of layer {layer}, to be matched."
        )
    first, second = (torch.tensor(column) for column in zip(*rows, strict=True))
    a, b = a[first], b[second]
    codes = concepts.transform(a)
    assigned = strongest(codes, concepts.method)
    atoms, others = _sized(concepts, codes), _sized(after, after.activations)
    shifts = torch.stack([(b - a)[assigned == k].double().mean(0).nan_to_num().float() for k in range(len(concepts))])
    shifted = atoms + alpha * shifts
    match = matched(concepts.atoms, after.atoms)
    each = tuple(
        _one(k, concepts, after, int(match[k]), (atoms[k], shifted[k], others[match[k]]), a[assigned == k], b[assigned == k])
        for k in range(len(concepts))
    )
    if states_after.has_model:
        read, _ = words_of(states_after.vlm, shifted, normed=states_after.normed)
        each = tuple(_with_words(one, tuple(words)) for one, words in zip(each, read, strict=True))
    return ConceptShift(
        before=states_before.model_name,
        after=states_after.model_name,
        layer=layer,
        where=states_before.where,
        alpha=alpha,
        shifts=shifts,
        shifted=shifted,
        concepts_before=concepts,
        concepts_after=after,
        each=each,
        compared=len(rows),
        left_out=(len(states_before) - len(rows), len(states_after) - len(rows)),
    )


def _common(before: ConceptStates, after: ConceptStates) -> list[tuple[int, int]]:
    """The rows of the states that both sets have: the same sample and, of the several that it may have, the same one in order."""
    places: list[dict[tuple[str, int], int]] = []
    for states in (before, after):
        turn: dict[str, int] = {}
        place = {}
        for row, name in enumerate(states.ids):
            turn[name] = turn.get(name, -1) + 1
            place[name, turn[name]] = row
        places.append(place)
    return [(row, places[1][key]) for key, row in places[0].items() if key in places[1]]


def _sparsity(concepts: Concepts, states: ConceptStates) -> float:
    """The penalty that the concepts were learned with, as `learn_concepts` takes it."""
    size = size_of(states.residual(concepts.layer) - concepts.mean)
    return min(1.0, concepts.penalty / size) if size else 0.0


def _sized(concepts: Concepts, codes: torch.Tensor) -> torch.Tensor:
    """The atoms at the size at which they occur in the states that they are strongest in: [K, d]."""
    if concepts.method == "k-means":
        return concepts.atoms
    assigned = strongest(codes, concepts.method)
    sizes = [codes[assigned == k, k].mean() if (assigned == k).any() else torch.tensor(1.0) for k in range(len(concepts))]
    return concepts.atoms * torch.stack(sizes)[:, None]


def _one(
    k: int,
    concepts: Concepts,
    after: Concepts,
    match: int,
    atoms: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    a: torch.Tensor,
    b: torch.Tensor,
) -> ShiftedConcept:
    """`atoms`: the original, the shifted and the match, at the size of states; `a` and `b`: the concept's states before and after."""
    atom, shifted, other = atoms
    moves = (b - a).double()
    norms = a.double().norm(dim=1)
    size = float(norms.mean()) if len(a) else 0.0
    mean = moves.mean(0) if len(a) else torch.zeros_like(atom).double()
    moving = normalize(moves[moves.norm(dim=1) > _ROUNDING * norms], dim=1)
    n = len(moving)
    # The sum of all n^2 cosines is the squared length of the sum of the unit vectors; n of them are 1.
    consistency = float((moving.sum(0).square().sum() - n) / (n * (n - 1))) if n > 1 else None
    still = float(mean.norm()) <= _ROUNDING * size
    apart, left = float((other - atom).norm()), float((other - shifted).norm())
    return ShiftedConcept(
        concept=k,
        size=len(a),
        magnitude=float(mean.norm()),
        relative=float(mean.norm()) / size if size else 0.0,
        consistency=consistency,
        along=None if still or not n else float((moving @ normalize(mean, dim=0)).mean()),
        match=match,
        cosine=float(cosines(atom[None], other[None])),
        shifted_cosine=float(cosines(shifted[None], other[None])),
        recovery=1 - left / apart if apart > _ROUNDING * float(other.norm()) and len(a) else None,
        words=concepts.words[k],
        words_shifted=(),
        words_after=after.words[match],
        examples_before=concepts.examples[k],
        examples_after=after.examples[match],
    )


def _with_words(one: ShiftedConcept, words: Sequence[str]) -> ShiftedConcept:
    return ShiftedConcept(**{**vars(one), "words_shifted": tuple(words)})
