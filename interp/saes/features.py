"""Which SAE features are active on a trace: rankings over some of its tokens, and each feature's map on the picture.

Activations are averaged after the SAE's own ReLU, TopK or JumpReLU. BOS and attention sinks, whose norms dwarf all others, are left out unless
selected by position.
"""

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..errors import InterpError
from ..files import csv_lines, write_text
from ..lens.directions import Words, is_word, listed, promoted_words
from ..tracing.select import grid_of, select, sinks
from ..tracing.trace import Trace
from ..validation import instance, one_of, sequence, whole_number
from .fit import ReconstructionFit, measure
from .labels.labels import UNNAMED, Label, neuronpedia_link
from .sae import Sae, SparseActs

RankBy = Literal["mean", "max", "frequency"]
RANKINGS: tuple[RankBy, ...] = ("mean", "max", "frequency")
_DENSE_REFERENCE, _DENSE_HERE = 0.5, 0.9  # share of tokens above which a feature says little about any of them
_COLUMNS = ("feature", "label", "label_source", "label_score", "score", "mean", "max", "frequency", "density", "dense", "link")
_NAMED_BY = 3  # promoted words


@dataclass(frozen=True, eq=False)
class Feature:
    """One feature on one trace."""

    feature: int
    label: str
    """Its name; else the three words it promotes most; "unnamed" if these are bytes, punctuation or other fragments."""
    label_source: str
    """How the label was found."""
    label_score: float | None
    score: float
    """What it was ranked by: `mean`, `max` or `frequency`."""
    mean: float
    """Over the selected tokens; inactive ones count as 0."""
    max: float
    frequency: float
    """Share of the selected tokens on which it is active."""
    density: float | None
    """Share of a reference set's tokens on which it is active."""
    dense: str
    """A warning if it fires on nearly everything, else ""."""
    top_tokens: tuple[str, ...]
    """Words that its decoder direction promotes, read by the model's own norm and head."""
    bottom_tokens: tuple[str, ...]
    """Words that it suppresses most."""
    link: str | None
    """Its page on Neuronpedia."""
    activations: torch.Tensor
    """At every position of the trace: float32 [T], 0 where inactive."""
    trace: Trace

    def map(self, grid: int = 0) -> torch.Tensor:
        """Its activation on each patch: float32 [rows, cols]."""
        return self.activations[grid_of(self.trace, grid).positions]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, with its map over each grid and its activations on tokens outside the grids."""
        values = {column: getattr(self, column) for column in _COLUMNS}
        on_grids = {i for grid in self.trace.grids for i in grid.positions.flatten().tolist()}
        active = self.activations.nonzero().flatten().tolist()
        return {
            **{column: _short(value) if isinstance(value, float) else value for column, value in values.items()},
            "top_tokens": list(self.top_tokens),
            "bottom_tokens": list(self.bottom_tokens),
            "map": [[[_short(x) for x in row] for row in self.map(g).tolist()] for g in range(len(self.trace.grids))],
            "activations": {str(i): _short(float(self.activations[i])) for i in active if i not in on_grids},
        }


@dataclass(frozen=True, eq=False)
class Features:
    """The features that rank highest over some tokens of a trace."""

    where: str
    """A description of the selected tokens."""
    rank_by: RankBy
    positions: tuple[int, ...]
    """The selected positions."""
    active: int
    """Number of features active on at least one of them; `features` holds at most k of these."""
    features: tuple[Feature, ...]
    """Highest score first."""
    encoding: "Encoding"

    @property
    def nbytes(self) -> int:
        """Bytes of the activations listed, without the encoding."""
        return sum(feature.activations.nbytes for feature in self.features)

    @property
    def quality(self) -> dict[str, ReconstructionFit]:
        """How well the SAE reconstructs the whole input, by kind of token."""
        return self.encoding.quality

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON types."""
        encoding = self.encoding
        trace, sae = encoding.trace, encoding.sae
        return {
            "schema": "llava-microscope/sae-features/1",
            "model": trace.model_name,
            "prompt": trace.prompt,
            "answer": trace.answer,
            "sae": {"name": sae.name, "layer": sae.layer, "features": sae.d_sae, "notes": encoding.notes, "labels": sae.labels.about},
            "where": self.where,
            "rank_by": self.rank_by,
            "tokens_looked_at": len(self.positions),
            "left_out": list(encoding.left_out),
            "active": self.active,
            "quality": {kind: quality.to_dict() for kind, quality in self.quality.items()},
            "features": [feature.to_dict() for feature in self.features],
            "tokens": [{"text": token.text, "kind": token.kind} for token in trace.tokens],
        }

    def to_csv(self) -> str:
        """The table, without maps. Cells that a spreadsheet would read as a formula get a leading apostrophe."""
        rows = (
            [*(getattr(each, column) for column in _COLUMNS), listed(each.top_tokens), listed(each.bottom_tokens)] for each in self.features
        )
        return csv_lines([[*_COLUMNS, "top_tokens", "bottom_tokens"], *rows])

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict()` to a file."""
        write_text(path, lambda: json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False))


@dataclass(frozen=True, eq=False)
class Encoding:
    """A trace encoded by an SAE: the active features at every position, which can be ranked in many ways without encoding again."""

    trace: Trace
    sae: Sae
    acts: SparseActs
    left_out: tuple[int, ...]
    """Positions excluded from rankings and averages: BOS and attention sinks (norm over five times the median of their kind)."""

    @property
    def nbytes(self) -> int:
        """Bytes of the activations, without the trace and the SAE."""
        return self.acts.nbytes

    @property
    def notes(self) -> list[str]:
        """Warnings about these features."""
        return self.sae.notes_for((self.trace.model_name, *self.trace.vlm.names))

    @functools.cached_property
    def quality(self) -> dict[str, ReconstructionFit]:
        """How well the SAE reconstructs the image tokens and the text tokens (prompt and answer) of this input, `left_out` excluded."""
        found = {"image": self.select("image")[1], "text": sorted(self.select("prompt")[1] + self.select("answer")[1])}
        states = self.trace.residual(self.sae.layer)
        return {kind: measure(kind, states[rows], self.acts.rows(torch.tensor(rows)), self.sae) for kind, rows in found.items() if rows}

    def select(self, where: Any) -> tuple[str, list[int]]:
        """A description of the tokens at `where`, and their positions. See `tracing.select`."""
        return select(self.trace, where, self.left_out)

    def top(self, k: int = 10, where: Any = "image", rank_by: RankBy = "mean") -> Features:
        """The k features that rank highest over the tokens at `where`. See `top_features`."""
        k = whole_number("k", k, 1, self.sae.d_sae, hint=f"the number of features of {self.sae.name}")
        rank_by = one_of("rank_by", rank_by, RANKINGS)
        column = RANKINGS.index(rank_by)
        words, positions = self.select(where)
        features, statistics = self._statistics(positions)
        # Stable sorts: ties go to the higher mean, then to the lower feature number.
        order = statistics[:, 0].argsort(descending=True, stable=True)
        order = order[statistics[order, column].argsort(descending=True, stable=True)][:k]
        chosen = dict(zip(features[order].tolist(), statistics[order].tolist(), strict=True))
        return Features(words, rank_by, tuple(positions), len(features), self._described(chosen, column), self)

    def some(self, features: Sequence[int], where: Any = "image", rank_by: RankBy = "mean") -> tuple[Feature, ...]:
        """The given features, active here or not, in that order and without duplicates."""
        column = RANKINGS.index(one_of("rank_by", rank_by, RANKINGS))
        wanted = [self.sae.check(feature) for feature in sequence("features", features, "features", empty=True)]
        active, statistics = self._statistics(self.select(where)[1])
        row = {feature: i for i, feature in enumerate(active.tolist())}
        chosen = {feature: statistics[row[feature]].tolist() if feature in row else [0.0] * len(RANKINGS) for feature in wanted}
        return self._described(chosen, column)

    def label(self, feature: int) -> str:
        """A feature's name, as in `Feature.label`."""
        feature = self.sae.check(feature)
        known = self.sae.labels.get(feature)
        return (known or _label_of_words(self._words([feature])[feature][0])).text

    def _statistics(self, positions: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The features active at these positions, ascending, and their mean, max and frequency: float32 [features, 3]."""
        acts = self.acts.rows(torch.tensor(positions, dtype=torch.long))
        features, index = acts.features.unique(return_inverse=True)
        total, peak = torch.zeros(2, len(features))
        total.index_add_(0, index, acts.values)
        peak.scatter_reduce_(0, index, acts.values, "amax")
        count = torch.bincount(index, minlength=len(features))
        return features, torch.stack([total / len(positions), peak, count / len(positions)], dim=1)

    @functools.cached_property
    def _here(self) -> dict[int, float]:
        """Share of this input's tokens, `left_out` excluded, on which each feature is active."""
        features, statistics = self._statistics(self.select("all")[1])
        return dict(zip(features.tolist(), statistics[:, RANKINGS.index("frequency")].tolist(), strict=True))

    def _described(self, chosen: dict[int, list[float]], column: int) -> tuple[Feature, ...]:
        """`Feature`s with these statistics, scored by one column of them."""
        sae, words, activations = self.sae, self._words([*chosen]), self._activations([*chosen])
        out = []
        for row, (feature, statistics) in enumerate(chosen.items()):
            density = None if sae.density is None else float(sae.density[feature])
            top, bottom = words[feature]
            label = sae.labels.get(feature) or _label_of_words(top)
            out.append(
                Feature(
                    feature=feature,
                    label=label.text,
                    label_source=label.source,
                    label_score=label.score,
                    score=statistics[column],
                    mean=statistics[0],
                    max=statistics[1],
                    frequency=statistics[2],
                    density=density,
                    dense=_dense(density, self._here.get(feature, 0.0)),
                    top_tokens=top,
                    bottom_tokens=bottom,
                    link=neuronpedia_link(sae.neuronpedia_id, feature) if sae.neuronpedia_id else None,
                    activations=activations[row],
                    trace=self.trace,
                )
            )
        return tuple(out)

    def _activations(self, features: list[int]) -> torch.Tensor:
        """Activations of these features at every position: [features, T]."""
        chosen = torch.tensor(features, dtype=torch.int32)
        out = torch.zeros(len(features), len(self.acts.offsets) - 1)
        if len(features):
            order = chosen.argsort()
            at = torch.searchsorted(chosen[order], self.acts.features).clamp(max=len(features) - 1)
            hit = chosen[order][at] == self.acts.features
            out[order[at[hit]], self.acts.tokens[hit]] = self.acts.values[hit]
        return out

    def _words(self, features: list[int]) -> dict[int, Words]:
        """The words that each feature's direction promotes and suppresses most; cached."""
        known = self._known_words
        if new := [feature for feature in features if feature not in known]:
            known.update(zip(new, promoted_words(self.trace.vlm, self.sae.W_dec[torch.tensor(new)]), strict=True))
        return {feature: known[feature] for feature in features}

    @functools.cached_property
    def _known_words(self) -> dict[int, Words]:
        return {}


def encode(trace: Trace, sae: Sae) -> Encoding:
    """Encode every position of a trace. Raises InterpError if the SAE's width or layer does not fit the model."""
    instance("trace", trace, Trace, "a Trace, as Vlm.trace returns")
    instance("sae", sae, Sae, "an SAE, as interp.load_sae(...) returns")
    width = trace.states.shape[-1]
    if sae.d_in != width:
        raise InterpError(
            f"{sae.name} reads a residual stream of width {sae.d_in}; {trace.model_name} has width {width}. Choose an SAE made for this model."
        )
    if sae.layer >= trace.n_layers:
        raise InterpError(f"{sae.name} reads layer {sae.layer}; {trace.model_name} has layers 0 to {trace.n_layers - 1}.")
    states, vlm = trace.residual(sae.layer), trace.vlm
    broken = (~states.isfinite().all(dim=-1)).nonzero().flatten().tolist()
    if broken:
        raise InterpError(
            f"After layer {sae.layer} the residual stream of {trace.model_name} is not finite at position {broken[0]} and {len(broken) - 1} "
            f"others, so it cannot be encoded. Load the model in a wider dtype."
        )
    with vlm.lock:
        acts = sae.encode(states.to(vlm.model.device))
    return Encoding(trace, sae, acts, sinks(trace, states))


def top_features(trace: Trace, sae: Sae, k: int = 10, where: Any = "image", rank_by: RankBy = "mean") -> Features:
    """The k features that are most active on a trace.

    `where`: "image", "prompt", "answer", "all", or selected tokens (see `tracing.select`). `rank_by`: the "mean" or "max" activation over these
    tokens, or the "frequency", the share of them on which the feature is active (ties by mean). Features that fire on nearly everything are
    marked (`Feature.dense`), not dropped.

    Raises InterpError for k below 1 or above the number of features, tokens that do not exist, and an SAE that does not fit the model.
    To rank the same trace in several ways, keep `encode(trace, sae)` and call its `top`.
    """
    return encode(trace, sae).top(k, where, rank_by)


def _label_of_words(promoted: Sequence[str]) -> Label:
    """The label of a feature without a name: a guess from its direction alone, made only if that reads as words."""
    words = promoted[:_NAMED_BY]
    return Label(listed(words), "the words it promotes") if all(map(is_word, words)) else Label(UNNAMED, "it promotes no words")


def _dense(density: float | None, here: float) -> str:
    if density is not None and density > _DENSE_REFERENCE:
        return f"fires on {density:.0%} of the reference tokens"
    if here > _DENSE_HERE:
        return f"fires on {here:.0%} of the tokens of this input"
    return ""


def _short(value: float) -> float:
    return float(f"{value:.5g}")
