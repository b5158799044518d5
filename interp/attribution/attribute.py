"""Which SAE features carried a word of the answer: a score for every active feature and position from one backward pass, and exact effects.

The score is the first-order effect of a feature's presence (attribution patching; Marks et al. 2024, "Sparse Feature Circuits"): positive if
the feature raised the word. It is right as far as the blocks behind the SAE are linear, so the features with the largest scores are also
taken away one by one, which is exact. The SAE's error is kept in the states and has a score of its own.

By default the gradient holds the scale of the model's norms fixed, which agrees better with the exact effects: see `fixed_norms`.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..devices import retry_on_oom
from ..errors import InterpError
from ..files import csv_lines
from ..saes.features import Encoding, Feature, encode
from ..saes.sae import Sae
from ..tracing.replay import Replay
from ..tracing.select import grid_of
from ..tracing.trace import Trace
from ..validation import one_of, whole_number
from .margin import NORMS, Margin, Norms
from .removal import LOWER, Part, effects
from .scores import Scores, bias_of, scores

_COMPARED = 10  # features in `Attribution.overlap`
_NOTE = (
    "Shows which features raised or lowered this word against the baseline, here and through the layers behind the SAE; not why they are "
    "active, and nothing that the SAE has no feature for: that is in the error."
)
_COLUMNS = ("feature", "label", "label_source", "score", "exact", "density", "dense")


@dataclass(frozen=True)
class Effect:
    """How much something raised the word against its baseline: m(clean) - m(without it), in logits."""

    score: float
    """To first order."""
    exact: float
    """Measured by taking it away."""


@dataclass(frozen=True, eq=False)
class AttributedFeature:
    """One feature and what it did for the word."""

    about: Feature
    """Its name, words and activations on this trace."""
    score: float
    """First-order effect of its presence, in logits."""
    exact: float
    """m(clean) - m(without it), in logits."""
    scores: torch.Tensor
    """Its score at every position: float32 [T]."""

    @property
    def feature(self) -> int:
        """Its number."""
        return self.about.feature

    @property
    def label(self) -> str:
        """Its name, see `Feature.label`."""
        return self.about.label

    @property
    def dense(self) -> str:
        """A warning if it fires on nearly everything, in the SAE's reference set if that is known, else in this input; else ""."""
        return self.about.dense

    def map(self, grid: int = 0) -> torch.Tensor:
        """Its score on each patch: float32 [rows, cols]. Raises InterpError if there is no such grid."""
        return self.scores[grid_of(self.about.trace, grid).positions]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, with its map over each grid and its scores on tokens outside the grids."""
        trace = self.about.trace
        on_grids = {i for grid in trace.grids for i in grid.positions.flatten().tolist()}
        return {
            **{column: getattr(self if hasattr(self, column) else self.about, column) for column in _COLUMNS},
            "top_tokens": list(self.about.top_tokens),
            "bottom_tokens": list(self.about.bottom_tokens),
            "link": self.about.link,
            "map": [self.map(grid).tolist() for grid in range(len(trace.grids))],
            "scores": {str(i): float(self.scores[i]) for i in self.scores.nonzero().flatten().tolist() if i not in on_grids},
        }


@dataclass(frozen=True, eq=False)
class Attribution:
    """What the features of an SAE did for one word of the answer: m = logit[word] - logit[baseline] at the row that emits the word."""

    encoding: Encoding
    margin: Margin
    where: str
    """A description of the positions that count."""
    positions: tuple[int, ...]
    """Those among them that the row can read; the scores and effects below are sums over them."""
    scores: Scores
    """Of every active feature at every position, BOS and attention sinks too."""
    features: tuple[AttributedFeature, ...]
    """The largest absolute score first."""
    norms: Norms
    """How the gradient went through the model's norms."""
    active: int
    """Number of features active at `positions`."""
    all_features: Effect
    """All features at once."""
    all_error: Effect
    """What the SAE misses, x - x_hat."""
    total: Effect
    """Features and error at once: all but the SAE's bias, which is the same whatever the picture shows."""
    note: str
    """What this does not show."""

    @property
    def nbytes(self) -> int:
        """Bytes of the scores and of the listed features' maps, without the encoding."""
        found = self.scores
        maps = [tensor for each in self.features for tensor in (each.scores, each.about.activations)]
        return sum(tensor.nbytes for tensor in (found.features, found.positions, found.values, found.error, found.bias, *maps))

    @property
    def trace(self) -> Trace:
        """The trace it explains."""
        return self.encoding.trace

    @property
    def sae(self) -> Sae:
        """The SAE of the features."""
        return self.encoding.sae

    @property
    def token(self) -> int:
        """Position of the word in `trace.tokens`; row `token` - 1 emits it."""
        return self.margin.token

    @property
    def baseline(self) -> str:
        """The text of the word it is compared with."""
        return self.margin.baseline

    @property
    def metric(self) -> float:
        """The value of m in the trace itself, in logits."""
        return self.margin.clean

    @property
    def error(self) -> torch.Tensor:
        """The score of the SAE's error at every position: float32 [T]."""
        return self.scores.error

    @property
    def notes(self) -> list[str]:
        """Warnings about the SAE on this model."""
        return self.encoding.notes

    @functools.cached_property
    def pearson(self) -> float | None:
        """Correlation of score and exact effect over `features`; None for fewer than three, and where one of them is constant."""
        both = torch.tensor([(each.score, each.exact) for each in self.features], dtype=torch.float64)
        if len(both) < 3 or not (both.std(0) > 0).all():
            return None
        return float(both.T.corrcoef()[0, 1])

    @functools.cached_property
    def overlap(self) -> float | None:
        """Share of the 10 features with the largest exact effects, or of half of `features` if fewer, that the scores put there too."""
        count = min(_COMPARED, len(self.features) // 2)
        if not count:
            return None
        exact = sorted(self.features, key=lambda each: -abs(each.exact))
        return len({id(each) for each in exact[:count]} & {id(each) for each in self.features[:count]}) / count

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON types."""
        trace, encoding = self.trace, self.encoding
        return {
            "schema": "llava-microscope/attribution/1",
            "model": trace.model_name,
            "prompt": trace.prompt,
            "answer": trace.answer,
            "sae": {"name": self.sae.name, "layer": self.sae.layer, "features": self.sae.d_sae, "notes": self.notes},
            "token": self.token,
            "index": self.token - trace.answer_start,
            "word": trace.tokens[self.token].text,
            "baseline": self.baseline,
            "metric": self.metric,
            "where": self.where,
            "norms": self.norms,
            "left_out": list(encoding.left_out),
            "active": self.active,
            "features": [each.to_dict() for each in self.features],
            "error": self.error.tolist(),
            **{name: vars(getattr(self, name)) for name in ("all_features", "all_error", "total")},
            "pearson": self.pearson,
            "overlap": self.overlap,
            "note": self.note,
            "tokens": [{"text": token.text, "kind": token.kind} for token in trace.tokens],
        }

    def to_csv(self) -> str:
        """The table, without maps. Cells that a spreadsheet would read as a formula get a leading apostrophe."""
        rows = [each.to_dict() for each in self.features]
        return csv_lines([_COLUMNS, *([row[column] for column in _COLUMNS] for row in rows)])


def attribute(
    trace: Trace, sae: Sae, token: Any, baseline: str | None = None, top: int = 50, *, where: Any = "all", norms: Norms = "fixed"
) -> Attribution:
    """What every feature of `sae` did for one token of the answer, given as its number or as a word.

    `baseline`: the word it is compared with; None for the likeliest other token at that row. `top`: for how many features, by absolute score, to
    measure the exact effect as well. `where`: the positions that count, "all", "image", "prompt", "answer" or selected tokens (see
    `tracing.select`); BOS and attention sinks only if selected by position. `norms`: "fixed" holds the scale of the model's norms fixed in the
    backward pass, "free" is the plain gradient; see `fixed_norms`. docs/attention.md compares the two.

    Raises InterpError for a token that the answer does not have, a baseline of several tokens or of the token itself, an SAE of another width or
    of a layer that the model does not have, positions that the word cannot depend on, and `top` below 1 or above the number of features.
    """
    return explained(encode(trace, sae), token, baseline, top, where=where, norms=norms)


def explained(
    encoding: Encoding, token: Any, baseline: str | None = None, top: int = 50, *, where: Any = "all", norms: Norms = "fixed"
) -> Attribution:
    """As `attribute`, for a trace that is encoded already."""
    trace, sae = encoding.trace, encoding.sae
    top = whole_number("top", top, 1, sae.d_sae, hint=f"the number of features of {sae.name}")
    norms = one_of("norms", norms, NORMS)
    margin = Margin.of(trace, token, baseline)
    words, positions = readable(encoding, where, margin)
    with trace.vlm.lock:
        replay, found = retry_on_oom(lambda _less: estimate(encoding, margin, norms), LOWER)
        features, sums = found.summed(positions)
        order = sums.abs().argsort(descending=True, stable=True)[:top]
        chosen, summed = features[order].tolist(), sums[order].tolist()
        parts = [Part.of_feature(encoding, feature, positions) for feature in chosen]
        *exact, everything, error, total = effects(margin, replay, sae.layer, [*parts, *_wholes(encoding, positions)]).tolist()
    features_score, error_score = float(sums.double().sum()), float(found.error[positions].double().sum())
    described = zip(encoding.some(chosen, where), summed, exact, strict=True)
    return Attribution(
        encoding=encoding,
        margin=margin,
        where=words,
        positions=tuple(positions),
        scores=found,
        features=tuple(AttributedFeature(about, score, effect, found.of(about.feature)) for about, score, effect in described),
        norms=norms,
        active=len(features),
        all_features=Effect(features_score, everything),
        all_error=Effect(error_score, error),
        total=Effect(features_score + error_score, total),
        note=_NOTE,
    )


def estimate(encoding: Encoding, margin: Margin, norms: Norms = "fixed") -> tuple[Replay, Scores]:
    """The scores of everything, from one forward and one backward pass; and the replay that they came from. The caller holds the lock."""
    replay = Replay.of(encoding.trace)
    return replay, scores(encoding, margin.gradient(replay, encoding.sae.layer, norms), margin.row)


def readable(encoding: Encoding, where: Any, margin: Margin) -> tuple[str, list[int]]:
    """A description of the positions at `where`, and those up to the row of the word, ascending. Raises InterpError if there is none."""
    words, positions = encoding.select(where)
    found = sorted(position for position in positions if position <= margin.row)
    if not found:
        raise InterpError(
            f"where selects {words}, all behind position {margin.row}, which emits the word: it cannot depend on them. Choose earlier ones."
        )
    return words, found


def _wholes(encoding: Encoding, positions: Sequence[int]) -> list[Part]:
    """All features, the SAE's error, and both, at these positions."""
    rebuilt = encoding.sae.decode(encoding.acts)
    states = encoding.trace.residual(encoding.sae.layer).float()
    bias = bias_of(encoding.sae, encoding.acts)
    return [Part.of_states(part, positions) for part in (rebuilt - bias, states - rebuilt, states - bias)]
