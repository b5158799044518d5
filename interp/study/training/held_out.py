"""How well an SAE does on samples that it was not trained on: variance explained, active and dead features, and what its error costs the model.

Loss recovered is (zero - sae) / (zero - plain), from the cross-entropy of the model's own greedy answer, given the picture and the prompt: as
the model is, with the SAE's reconstruction in place of the states of its layer, and with zeros there. BOS and attention sinks stay as they are.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ...concepts.samples import Sample
from ...models.hooks import Hooks
from ...models.vlm import Inputs, Vlm
from ...saes.sae import Sae, SparseActs
from ...steering.generation import answer_of
from ...tracing.record import greedy, tokens_of
from ...tracing.select import sinks
from ...tracing.trace import Prompt
from .collect import rows_of

Tensors = dict[str, torch.Tensor]
KINDS = ("image", "text")
_LOSSES = ("plain", "sae", "zero")


def measured(vlm: Vlm, sae: Sae, samples: Iterable[Sample], new: int) -> Tensors:
    """Sums over some samples, from which `figures` makes figures. `new`: tokens of an answer at most."""
    sums = _nothing(sae)
    for sample in samples:
        inputs = vlm.prepare(sample.picture, sample.prompt)
        with vlm.lock, torch.inference_mode():
            answer = _said(vlm, inputs, new)
            losses, prompt, states, acts = _losses(vlm, sae, inputs, answer)
        sums["losses"] += losses
        sums["words"] += len(answer)
        rebuilt = sae.decode(acts)
        for kind, rows in zip(KINDS, rows_of(prompt, states)[1:], strict=True):
            _add(sums, kind, states[rows], rebuilt[rows], acts.rows(torch.tensor(rows, dtype=torch.long)))
    return sums


def _zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def _nothing(sae: Sae) -> Tensors:
    sums = {"losses": _zeros(len(_LOSSES)), "words": torch.tensor(0)}
    for kind in KINDS:
        sums |= {
            f"{kind}.tokens": torch.tensor(0),
            f"{kind}.sum": _zeros(sae.d_in),
            f"{kind}.squares": _zeros(),
            f"{kind}.error": _zeros(),
            f"{kind}.active": torch.zeros(sae.d_sae, dtype=torch.int64),
        }
    return sums


def _add(sums: Tensors, kind: str, states: torch.Tensor, rebuilt: torch.Tensor, acts: SparseActs) -> None:
    wide = states.double()
    sums[f"{kind}.tokens"] += len(wide)
    sums[f"{kind}.sum"] += wide.sum(0)
    sums[f"{kind}.squares"] += wide.pow(2).sum()
    sums[f"{kind}.error"] += (wide - rebuilt).pow(2).sum()
    sums[f"{kind}.active"] += torch.bincount(acts.features, minlength=len(sums[f"{kind}.active"]))


def _said(vlm: Vlm, inputs: Inputs, new: int) -> list[int]:
    with greedy(vlm):
        ids = vlm.model.generate(**inputs.tensors, max_new_tokens=new, do_sample=False)
    return list(answer_of(vlm, ids[0, inputs["input_ids"].shape[1] :].tolist()).ids)


def _losses(vlm: Vlm, sae: Sae, inputs: Inputs, answer: Sequence[int]) -> tuple[torch.Tensor, Prompt, torch.Tensor, SparseActs]:
    """The summed cross-entropy of an answer three times, as in `_LOSSES`; the tokens, the layer's states [T, d] on the CPU, and their activations."""
    kept: list[torch.Tensor] = []
    with Hooks() as hooks:
        vlm.on_layer(hooks, sae.layer, lambda hidden: kept.append(hidden[0].detach()))
        plain = _loss(vlm, inputs, answer)
    states = torch.cat(kept)
    ids = inputs["input_ids"][0].tolist()
    prompt = Prompt(tuple(tokens_of(vlm, [*ids, *answer[:-1]], inputs.layout, len(ids))), inputs.layout.grids)
    acts = sae.encode(states.float())
    here = states.cpu()
    stays = torch.zeros(len(states), 1, dtype=torch.bool)
    stays[list(sinks(prompt, here))] = True
    losses = [plain]
    for instead in (sae.decode(acts), torch.zeros(1)):
        with Hooks() as hooks:
            vlm.on_layer(hooks, sae.layer, _Instead(torch.where(stays, here.float(), instead).to(states)))
            losses.append(_loss(vlm, inputs, answer))
    return torch.tensor(losses, dtype=torch.float64), prompt, here.float(), acts


class _Instead:
    """Puts given states in the place of those that pass, position by position."""

    def __init__(self, states: torch.Tensor) -> None:
        self._states, self._seen = states, 0

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        start = self._seen
        self._seen += hidden.shape[1]
        return self._states[None, start : self._seen]


def _loss(vlm: Vlm, inputs: Inputs, answer: Sequence[int]) -> float:
    logits = vlm.read(inputs.tensors, answer[:-1])[0].float()
    return float(F.cross_entropy(logits, torch.tensor(answer, device=logits.device), reduction="sum"))


def figures(parts: Sequence[Tensors]) -> tuple[dict[str, Any], torch.Tensor]:
    """The figures of all samples measured: by kind of token, and "loss"; and the density of each feature, both kinds counting half: float32 [F].

    Figures that are not defined, because there is no such token or nothing to recover, are None.
    """
    sums = {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}
    out: dict[str, Any] = {}
    densities = []
    for kind in KINDS:
        tokens, active = int(sums[f"{kind}.tokens"]), sums[f"{kind}.active"]
        spread = float(sums[f"{kind}.squares"] - sums[f"{kind}.sum"].pow(2).sum() / max(1, tokens))
        out[kind] = {
            "tokens": tokens,
            "explained_variance": 1 - float(sums[f"{kind}.error"]) / spread if tokens > 1 and spread > 0 else None,
            "l0": int(active.sum()) / tokens if tokens else None,
            "dead": float((active == 0).double().mean()) if tokens else None,
        }
        if tokens:
            densities.append(active / tokens)
    fired = sum(sums[f"{kind}.active"] for kind in KINDS)
    out["dead"] = float((torch.as_tensor(fired) == 0).double().mean())
    words = int(sums["words"])
    plain, sae, zero = (sums["losses"] / max(1, words)).tolist()
    out["loss"] = {
        "tokens": words,
        "plain": plain if words else None,
        "sae": sae if words else None,
        "zero": zero if words else None,
        "recovered": (zero - sae) / (zero - plain) if words and zero > plain else None,
    }
    return out, torch.stack(densities).mean(0).float()
