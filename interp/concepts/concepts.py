"""Concepts: directions that many states are made of, each with its words, its pictures, and how far it can be trusted."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from PIL import Image

from ..errors import InterpError
from ..models.identity import Fingerprint, mismatch
from ..models.vlm import Vlm
from ..saes.sae import Sae
from ..steering.edits import Contrast
from ..tracing.select import grid_of
from ..tracing.trace import Trace
from ..validation import index, instance, shown
from .decompose import closeness, lasso_codes
from .states import ConceptStates

Method = Literal["semi-nmf", "k-means", "pca", "sae"]
METHODS: tuple[Method, ...] = ("semi-nmf", "k-means", "pca", "sae")
NOBODY = -1
"""The concept of a state whose codes are all 0."""
_ROWS = 8192  # coded together in float64


@dataclass(frozen=True)
class Fit:
    """How much of some states the concepts leave unexplained."""

    fvu: float | None
    """sum|z - z_hat|^2 / sum|z - mean z|^2: 0 is perfect, 1 no better than the mean. None where all states are equal."""
    fvu_zero: float | None
    """sum|z - z_hat|^2 / sum|z|^2: against nothing at all, which the states' common mean makes look good."""
    used: float
    """Mean number of concepts with a code other than 0."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"fvu": self.fvu, "fvu_zero": self.fvu_zero, "used": self.used}


@dataclass(frozen=True, eq=False)
class Example:
    """One of the samples on which a concept is strongest."""

    sample: str
    """Its id."""
    row: int
    """Of the states that the concepts were learned on."""
    activation: float
    prompt: str
    answer: str
    word: str
    path: str
    """Of the original picture, if it was a file."""
    map: torch.Tensor | None = field(default=None, repr=False)
    """The concept's activation on each patch of the first grid: float32 [rows, cols]. None without the model, or without patches."""
    webp: bytes = field(default=b"", repr=False)

    @property
    def picture(self) -> Image.Image | None:
        """A small copy of the picture, new at each access; None if there is none."""
        return Image.open(io.BytesIO(self.webp)).convert("RGB") if self.webp else None


@dataclass(frozen=True, eq=False)
class Concepts:
    """K concepts of one layer. See `interp.learn_concepts`."""

    method: Method
    model_name: str
    layer: int
    where: str
    """Which states they were learned on."""
    atoms: torch.Tensor
    """float32 [K, d]"""
    activations: torch.Tensor
    """Of the states they were learned on: float32 [N, K]."""
    ids: tuple[str, ...]
    """The sample of each of these states."""
    mean: torch.Tensor
    """Subtracted from every state before: float32 [d]."""
    penalty: float
    """Of the L1 norm of the codes, for semi-nmf, in the states' own unit."""
    objective: str
    """What was minimised, as a sentence."""
    seed: int
    words: tuple[tuple[str, ...], ...]
    """For each concept the words that it promotes, the strongest first; empty if it was learned without the model."""
    opposite: tuple[tuple[str, ...], ...]
    """For pca, whose signs are arbitrary: the words that the other direction promotes. Empty otherwise."""
    examples: tuple[tuple[Example, ...], ...]
    fit: Fit
    stability: tuple[float, ...]
    """For each concept the mean cosine with its match in dictionaries learned with other seeds; 1 for methods that do not depend on the seed."""
    normed: bool = False
    """Whether the states were behind the model's final norm."""
    features: tuple[int, ...] | None = None
    """For sae: the features' numbers."""
    notes: tuple[str, ...] = ()
    _vlm: Vlm | None = field(default=None, repr=False)
    _sae: Sae | None = field(default=None, repr=False)
    _weights: Fingerprint | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def vlm(self) -> Vlm:
        """Their model. Raises InterpError if they were learned or loaded without it."""
        if self._vlm is None:
            raise InterpError(
                f"These concepts of {self.model_name!r} have no model at hand; pass vlm=interp.load(...) when loading states or concepts."
            )
        return self._vlm

    def check(self, concept: object) -> int:
        """`concept` as an int. Raises InterpError if there is no such concept."""
        return index("Concept", concept, 0, len(self) - 1, f"there are {len(self)}, counted from 0")

    @property
    def assigned(self) -> torch.Tensor:
        """The concept that each state has most of, -1 where it has none: int64 [N]."""
        return strongest(self.activations, self.method)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many states have most of each concept."""
        assigned = self.assigned
        return tuple(assigned[assigned >= 0].bincount(minlength=len(self)).tolist())

    @property
    def overlap(self) -> float | None:
        """Mean share of a concept's words that another concept has too, over all pairs: 0 is best. None for a single concept."""
        return word_overlap(self.words)

    def transform(self, states: Trace | ConceptStates | torch.Tensor) -> torch.Tensor:
        """How much of each concept is in some states: float32 [rows, K].

        `states`: a trace of the model (its T positions at `layer`), collected states, or a tensor [rows, d] of residuals of that layer. Of the
        states that the concepts were learned on, it gives `activations`. Raises InterpError for states of another width or without the layer.
        """
        return self._codes(self._rows(states))

    def map(self, trace: Trace, concept: int, grid: int = 0) -> torch.Tensor:
        """A concept's activation on each patch of a picture: float32 [rows, cols]. Raises InterpError if there is no such concept or grid."""
        concept = self.check(concept)
        cells = grid_of(instance("trace", trace, Trace, "a Trace, as Vlm.trace returns"), grid).positions
        return self.transform(self._rows(trace)[cells.flatten()])[:, concept].view(cells.shape)

    def fit_of(self, states: Trace | ConceptStates | torch.Tensor) -> Fit:
        """How well they explain other states, such as held-out ones. The arguments are those of `transform`."""
        rows = self._rows(states)
        return fit_of(rows, self.reconstruct(rows), self._codes(rows))

    def reconstruct(self, states: Trace | ConceptStates | torch.Tensor) -> torch.Tensor:
        """The states as these concepts explain them: float32 [rows, d]. For k-means the nearest centre."""
        rows = self._rows(states)
        if self._sae is not None and self.features is not None:
            acts = self._sae.encode(rows)
            kept = torch.isin(acts.features.long(), torch.tensor(self.features))
            counts = torch.zeros(len(rows), dtype=torch.int32).index_add_(
                0, acts.tokens[kept], torch.ones(int(kept.sum()), dtype=torch.int32)
            )
            offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()
            return self._sae.decode(replace(acts, offsets=offsets, features=acts.features[kept], values=acts.values[kept]))
        codes = self._codes(rows)
        return self.atoms[codes.argmax(1)] if self.method == "k-means" else codes @ self.atoms + self.mean

    def vector(self, i: int, j: int) -> Contrast:
        """The direction from concept i to concept j, u_j - u_i: added to a state, it makes i less and j more.

        Use it in `interp.Edit(vector=...)`. Its `auroc` is None: it was not measured on examples. Raises InterpError if there is no such concept, if
        both are the same, and for concepts behind the final norm, where no edit acts.
        """
        i, j = self.check(i), self.check(j)
        if i == j:
            raise InterpError(f"i and j are both {i}: there is no direction from a concept to itself. Choose another j.")
        if self.normed:
            raise InterpError(
                "These concepts lie behind the final norm, where no edit acts: concept vectors need states of a decoder layer."
            )
        named = [f"concept {k}" + (f" ({', '.join(self.words[k][:2])})" if self.words[k] else "") for k in (i, j)]
        return Contrast(self.atoms[j] - self.atoms[i], self.layer, self.model_name, f"{named[0]} to {named[1]}", None, None)

    def to_dict(self) -> dict[str, Any]:
        """Everything but tensors and pictures, as plain JSON types."""
        sizes = self.sizes
        return {
            "schema": "llava-microscope/concepts/1",
            "method": self.method,
            "model": self.model_name,
            "layer": self.layer,
            "where": self.where,
            "objective": self.objective,
            "seed": self.seed,
            "states": len(self.activations),
            "fit": self.fit.to_dict(),
            "overlap": self.overlap,
            "notes": list(self.notes),
            "concepts": [
                {
                    "concept": k,
                    "words": list(self.words[k]),
                    "opposite": list(self.opposite[k]) if self.opposite else [],
                    "size": sizes[k],
                    "stability": self.stability[k],
                    "feature": self.features[k] if self.features else None,
                    "examples": [
                        {"sample": each.sample, "activation": each.activation, "answer": each.answer, "word": each.word, "path": each.path}
                        for each in self.examples[k]
                    ],
                }
                for k in range(len(self))
            ],
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write them into a folder: concepts.json and concepts.safetensors. Raises InterpError where nothing can be written."""
        from .concept_files import save  # noqa: PLC0415 - the format is made of this class

        save(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], vlm: Vlm | None = None, sae: Sae | None = None) -> "Concepts":
        """Read what `save` wrote. `vlm` is their model, for what needs it; `sae` is needed to find concepts of the method "sae" in new states.

        Raises InterpError for a missing or damaged folder, and for a model or SAE that is not theirs.
        """
        from .concept_files import load  # noqa: PLC0415 - likewise

        return load(folder, vlm, sae)

    def check_model(self, vlm: Vlm) -> None:
        """Raise InterpError unless this is their model, as far as can be told."""
        instance("vlm", vlm, Vlm, "a Vlm, as interp.load(...) returns")
        differs = None if self._weights is None else mismatch(self._weights, vlm)
        if vlm.d_model != self.atoms.shape[1] or self.layer >= vlm.n_layers or differs:
            raise InterpError(
                f"These concepts are of {self.model_name!r} (width {self.atoms.shape[1]}, layer {self.layer}), and vlm={vlm.name!r} has width "
                f"{vlm.d_model}, {vlm.n_layers} layers{f', and other weights (such as {differs})' if differs else ''}. Use their own model."
            )

    def _rows(self, states: Trace | ConceptStates | torch.Tensor) -> torch.Tensor:
        """The states as float32 [rows, d], finite and of the right width."""
        if isinstance(states, Trace):
            if self.normed:
                raise InterpError(
                    "states is a Trace, and these concepts lie behind the final norm, which a trace does not hold. Pass a tensor."
                )
            rows = states.residual(self.layer)
        elif isinstance(states, ConceptStates):
            rows = states.residual(self.layer)
        else:
            rows = instance("states", states, torch.Tensor, "a Trace, ConceptStates, or a tensor [rows, d]")
        sound = rows.layout == torch.strided and not rows.is_meta and rows.is_floating_point() and rows.ndim == 2
        if not sound or rows.shape[1] != self.atoms.shape[1] or not rows.isfinite().all():
            raise InterpError(
                f"states is {shown(rows)}; it must hold rows of {self.atoms.shape[1]} finite numbers, residuals of layer {self.layer}."
            )
        return rows.detach().cpu().float()

    def _codes(self, rows: torch.Tensor) -> torch.Tensor:
        if self.method == "k-means":
            return closeness(rows, self.atoms)
        if self.method == "pca":
            return (rows - self.mean) @ self.atoms.T
        if self.method == "semi-nmf":
            atoms = self.atoms.double()
            parts = [lasso_codes((some - self.mean).double(), atoms, self.penalty).float() for some in rows.split(_ROWS)]
            return torch.cat(parts)
        if self._sae is None or self.features is None:
            raise InterpError("These concepts are features of an SAE that is not at hand: pass sae=interp.load_sae(...) to Concepts.load.")
        acts = self._sae.encode(rows)
        place = torch.full((self._sae.d_sae,), -1)
        place[list(self.features)] = torch.arange(len(self.features))
        columns = place[acts.features.long()]
        out = torch.zeros(len(rows), len(self.features))
        out[acts.tokens[columns >= 0], columns[columns >= 0]] = acts.values[columns >= 0]
        return out


def strongest(activations: torch.Tensor, method: str) -> torch.Tensor:
    """The concept that each state has most of (of either sign, for pca), -1 where it has none: int64 [N]."""
    size = activations.abs() if method == "pca" else activations
    most, concept = size.max(1)
    return torch.where(most > 0, concept, NOBODY)


def fit_of(rows: torch.Tensor, explained: torch.Tensor, codes: torch.Tensor) -> Fit:
    """The shares of some states [N, d] that `explained` [N, d] leaves unexplained."""
    rows = rows.double()
    error = float((rows - explained).square().sum())
    spread, size = float((rows - rows.mean(0)).square().sum()), float(rows.square().sum())
    used = float((codes != 0).sum(1).double().mean()) if len(codes) else 0.0
    return Fit(error / spread if spread > 1e-12 * size else None, error / size if size else None, used)


def word_overlap(words: Sequence[Sequence[str]]) -> float | None:
    """Mean over ordered pairs of concepts of the share of the first's words that the second has too; a concept without words counts 0."""
    if len(words) < 2:
        return None
    sets = [set(each) for each in words]
    shares = [len(one & other) / len(one) if one else 0.0 for i, one in enumerate(sets) for j, other in enumerate(sets) if i != j]
    return sum(shares) / len(shares)
