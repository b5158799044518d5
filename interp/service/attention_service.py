"""Explaining a word of the answer, for the page and the API: attention, maps by several methods, and their scores."""

import dataclasses
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch

from ..attention.activation_map import activation_map
from ..attention.faithfulness import Faithfulness, faithfulness
from ..attention.knockout import knockout_map
from ..attention.maps import PatchMap
from ..attention.relevancy import relevancy
from ..attention.rollout import rollout
from ..attention.rows import Attention, attention
from ..errors import InterpError
from ..lens.lens import Lens
from ..tracing.select import answer_token, content_word
from ..tracing.trace import Trace
from ..validation import mapping
from ..web.payloads.attention import (
    AttentionPayload,
    MapItem,
    MapSpec,
    MapValues,
    Method,
    Score,
    attention_payload,
    map_values,
)
from .requests import MapRequest
from .service import Service
from .zerogpu import on_gpu, seconds

HEADS = ("attention", "value_weighted")
"""Methods with a map for each head."""
_STEPS = 16  # of insertion and deletion curves
_ROWS = 32  # of a batch: how long a map may take on ZeroGPU
_RANDOM = 3  # random maps beside which a map is scored
_SLOW = {"relevancy": relevancy, "activation_map": activation_map, "knockout": knockout_map}
_ABOUT = {
    "attention": ("Attention", "How the row that says this word shares its attention out."),
    "value_weighted": (
        "Value-weighted",
        "Attention times the length of what each token would add there: what heads move, not where they point.",
    ),
    "rollout": ("Rollout", "Attention multiplied through the layers, half of each layer passed on unchanged (Abnar and Zuidema 2020)."),
    "relevancy": ("Relevancy", "Attention through all layers, weighted by its gradient for this word (Chefer et al. 2021)."),
    "activation_map": (
        "Activation map",
        "Patches that would say this word themselves, less what earlier words explain (TAM, Li et al. 2025).",
    ),
    "knockout": (
        "Knockout",
        "How far the word's log-probability falls when no other token can read this one patch: a run for every patch.",
    ),
}


class AttentionService:
    """Attention and maps with a service's model. `run` is the key that `Service.remember` returned for a lens."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def attention(self, trace: Trace) -> Attention:
        """The attention of every token of the answer, cached."""
        return self.service.derived(trace, "attention", lambda: on_gpu(attention, trace, allow=seconds()))

    def payload(self, trace: Trace, *, run: str | None = None, token: int | None = None, method: str = "") -> AttentionPayload:
        """The view's data. `token`, `method`: what to open with; by default the first content word, and the method that the view shows."""
        found = self.attention(trace)
        tested = trace.length * 2 * _STEPS * (1 + _RANDOM)  # the map and the random ones, each with two curves
        return attention_payload(
            found,
            content_word(trace) if token is None else token,
            _methods(found),
            run=run,
            method=method,
            quick=self.service.affordable(trace.vlm, tested),
        )

    def patch_map(self, trace: Trace, request: MapRequest) -> PatchMap:
        """The map of one token. Those that take time are cached."""
        token = self.token(trace, request.token)
        if request.method in HEADS:
            how: dict[str, Any] = {"over": request.over, "sinks": request.sinks, "weighted": request.method == "value_weighted"}
            return self.attention(trace).patch_map(token, request.layer, request.head, **how)
        if request.layer is not None or request.head is not None:
            raise InterpError(
                f"The method {request.method} puts all layers and heads together: leave layer and head out, or take one of {', '.join(HEADS)}."
            )
        if request.method == "rollout":
            how = {"over": request.over, "sinks": request.sinks}
            return self._made(trace, ("rollout", token, *how.values()), rollout, token, **how)
        found = self._made(trace, (request.method, token), _SLOW[request.method], token)
        return found if request.sinks else self._without_sinks(found)

    def _made(self, trace: Trace, key: Hashable, method: Callable[..., PatchMap], token: int, **how: Any) -> PatchMap:
        def make() -> PatchMap:
            return on_gpu(method, trace, token, allow=seconds(rows=_ROWS), **how)

        return self.service.derived(trace, key, make)

    def _without_sinks(self, found: PatchMap) -> PatchMap:
        values = found.values.clone()
        values[list(self.attention(found.trace).sinks.all)] = 0
        return dataclasses.replace(found, values=values, method=f"{found.method}, without sinks")

    def token(self, trace: Trace, token: Any) -> int:
        """Number in the answer of a token given by number, as a word, or as "" for the first content word."""
        number = content_word(trace) if token == "" else token
        return answer_token(trace, number) - trace.answer_start

    def score(self, trace: Trace, request: MapRequest) -> Score:
        """Insertion and deletion of a map beside random ones, cached."""
        found = self.patch_map(trace, request)
        own = self._tested(("score", dataclasses.replace(request, token=found.token)), found)
        random = [self._tested(("random", found.token, seed), _random(found, seed)) for seed in range(_RANDOM)]
        return {
            "insertion": own.insertion,
            "deletion": own.deletion,
            "random_insertion": sum(each.insertion for each in random) / _RANDOM,
            "random_deletion": sum(each.deletion for each in random) / _RANDOM,
        }

    def _tested(self, key: Hashable, found: PatchMap) -> Faithfulness:
        return self.service.derived(found.trace, key, lambda: on_gpu(faithfulness, found, _STEPS, allow=seconds(rows=2 * _STEPS)))

    def word_map(self, run: str, spec: Any) -> MapValues:
        """For the view: a map that it cannot make itself."""
        trace, request = self._trace(run), _request(spec)
        found = self.patch_map(trace, request)
        self._viewed(trace).maps.setdefault(request)
        return map_values(found.on_image(), found.note)

    def test_map(self, run: str, spec: Any) -> Score:
        """For the view: a map's score."""
        trace, request = self._trace(run), _request(spec)
        score = self.score(trace, request)
        self._viewed(trace).maps[request] = score
        return score

    def _trace(self, run: str) -> Trace:
        return self.service.remembered(run, Lens).trace

    def kept_payload(self, trace: Trace) -> AttentionPayload:
        """As `payload`, with the maps and scores that the view has asked for: for a file without a server."""
        maps: list[MapItem] = []
        for request, score in self._viewed(trace).maps.items():
            found = self.patch_map(trace, request)
            maps.append({"spec": _spec(request), "map": map_values(found.on_image(), found.note), "score": score})
        return {**self.payload(trace), "maps": maps}

    def _viewed(self, trace: Trace) -> "_Viewed":
        return self.service.derived(trace, "viewed", _Viewed)


@dataclass(frozen=True)
class _Viewed:
    """The maps that a view has asked for, with their scores."""

    maps: dict[MapRequest, Score | None] = field(default_factory=dict)


def _spec(request: MapRequest) -> MapSpec:
    return {
        "method": request.method,
        "token": request.token,
        "layer": request.layer,
        "head": request.head,
        "over": request.over,
        "sinks": request.sinks,
    }


def _random(found: PatchMap, seed: int) -> PatchMap:
    """A map of random numbers for the same token."""
    values = torch.rand(found.values.shape, generator=torch.Generator().manual_seed(seed))
    return PatchMap(found.trace, found.token, "random", values, "Shows nothing.")


def _methods(found: Attention) -> list[Method]:
    """The methods, with the notes of those whose maps the view makes itself."""
    notes = {"attention": found.patch_map(0).note}
    if found.value_norms is not None:
        notes["value_weighted"] = found.patch_map(0, weighted=True).note
    return [
        {"key": key, "name": name, "about": about, "note": notes.get(key, ""), "heads": key in HEADS}
        for key, (name, about) in _ABOUT.items()
        if key in notes or key not in HEADS
    ]


def _request(spec: Any) -> MapRequest:
    return MapRequest.of(mapping("The request", spec))
