"""Scoring a chunk of samples: what each feature did for one word of each answer, and the sums over the chunk that averages are made of."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..attribution.attribute import estimate
from ..attribution.filters import POOLS, pooled_scores
from ..attribution.margin import Margin, Norms
from ..attribution.removal import Part, effects
from ..attribution.score_file import write_all
from ..attribution.scores import Scores
from ..errors import InterpError
from ..models.vlm import Vlm
from ..saes.features import encode
from ..saes.sae import Sae
from ..tracing.replay import Replay
from . import work
from .questions import Question

Tensors = dict[str, torch.Tensor]
Ask = Callable[[int], Question]


@dataclass(frozen=True)
class Task:
    """How samples are scored."""

    vlm: Vlm
    sae: Sae
    max_new_tokens: int
    norms: Norms
    dense: Path | None
    """Where each sample's scores are written in the layout of multimodal-sae too."""

    def found(self, question: Question) -> tuple[Margin, Replay, Scores]:
        """One sample. Raises InterpError if it cannot be read, and where there is no such word."""
        sample = question.sample
        trace = self.vlm.trace(sample.picture, sample.prompt, max_new_tokens=self.max_new_tokens, answer=sample.answer)
        encoding = encode(trace, self.sae)
        margin = Margin.of(trace, question.token(trace), question.baseline)
        with self.vlm.lock:
            replay, scores = estimate(encoding, margin, self.norms)
        return margin, replay, scores

    def scored(self, ask: Ask, numbers: Sequence[int]) -> tuple[Tensors, dict[str, str]]:
        """The scores of some samples, and in the metadata what there is to say of each; one that fails says why."""
        chunk = _Chunk(self.sae.d_sae)
        for number in numbers:
            question = ask(number)
            about = {"number": number, "id": question.sample.id}
            try:
                margin, _, scores = self.found(question)
            except InterpError as error:
                chunk.samples.append({**about, "failure": str(error)})
                continue
            trace = scores.encoding.trace
            said = {"word": trace.tokens[margin.token].text, "baseline": margin.baseline, "margin": margin.clean, "answer": trace.answer}
            chunk.add({**about, **said}, scores, margin.row)
            if self.dense:
                self.dense.mkdir(exist_ok=True)
                unfinished = self.dense / f"{number:05}.{work.state().process_index}.tmp"
                write_all(scores, margin, self.norms, unfinished)
                unfinished.replace(self.dense / f"{number:05}.safetensors")
        return chunk.file()

    def exact(self, ask: Ask, numbers: Sequence[int], features: Sequence[int]) -> Tensors:
        """m(clean) - m(without the feature at the picture's tokens), summed over the samples that can be scored: "effect" float64 [features]."""
        total, count = torch.zeros(len(features), dtype=torch.float64), 0
        for number in numbers:
            try:
                margin, replay, scores = self.found(ask(number))
            except InterpError:
                continue  # told when it was scored
            positions = scores.encoding.select("image")[1]
            parts = [Part.of_feature(scores.encoding, feature, positions) for feature in features]
            with self.vlm.lock:
                total += effects(margin, replay, self.sae.layer, parts).double()
            count += 1
        return {"effect": total, "samples": torch.tensor(count)}


@dataclass
class _Chunk:
    """The scores of some samples, one behind the other, and sums over the samples."""

    features: int
    samples: list[dict[str, Any]] = field(default_factory=list)
    parts: list[Tensors] = field(default_factory=list)
    sums: Tensors = field(init=False)

    def __post_init__(self) -> None:
        self.sums = {pool: torch.zeros(self.features, dtype=torch.float64) for pool in POOLS}
        self.sums["samples_with"] = torch.zeros(self.features, dtype=torch.int64)

    def add(self, about: dict[str, Any], scores: Scores, row: int) -> None:
        """One more sample, scored up to this row."""
        self.samples.append(about)
        sample = torch.full((len(scores.features),), about["number"], dtype=torch.int32)
        self.parts.append(
            {
                "sample": sample,
                "feature": scores.features.int(),
                "position": scores.positions.int(),
                "score": scores.values,
                "error": scores.error[: row + 1],
                "error_end": torch.tensor([row + 1]),
            }
        )
        for pool in POOLS:
            features, values = pooled_scores(scores, pool)
            self.sums[pool][features] += values.double()
        self.sums["samples_with"][features] += 1

    def file(self) -> tuple[Tensors, dict[str, str]]:
        """Tensors and metadata."""
        names = ("sample", "feature", "position", "score", "error", "error_end")
        tensors = {name: torch.cat([part[name] for part in self.parts]) if self.parts else torch.empty(0) for name in names}
        tensors["error_end"] = tensors["error_end"].cumsum(0)
        return {**tensors, **self.sums}, {"samples": json.dumps(self.samples, ensure_ascii=False)}
