"""Naive implementations of formulas that the reference projects published: what they do, written here from its description.

Baselines, and nothing else: each is the plainest reading of the formula, errors included. Knows nothing of how the product does the same.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from interp.saes.sae import Sae


def hidden_states(states: torch.Tensor, norm: Any) -> list[torch.Tensor]:
    """What transformers calls hidden_states: what enters block 0, then every block's output, the last one already behind the final norm."""
    return [*states[:-1], norm(states[-1])]


def lens_table(
    entries: Sequence[torch.Tensor], norm: Any, head: Any, decode: Callable[[list[int]], str], k: int = 5
) -> list[list[list[tuple[str, str]]]]:
    """The logit lens of tlab_MultimodalLLM and llava-interp: k x (word, probability) for every entry [T, d] and position.

    The norm goes before the head for all entries, also for the last, which had it already. The softmax is one more tensor of the size of the
    logits, in their dtype, and every reading is fetched and decoded by itself.
    """
    table = []
    for entry in entries:
        probs = head(norm(entry)).softmax(-1)
        values, ids = probs.topk(k)
        rows = []
        for at in range(len(entry)):
            words = [decode([ids[at, i].item()]) for i in range(k)]
            rows.append([(word, f"{values[at, i].item():.4f}") for i, word in enumerate(words)])
        table.append(rows)
    return table


def column_labels(states: torch.Tensor, norm: Any) -> dict[str, torch.Tensor]:
    """Label → what is read under it, of the tables of tlab_MultimodalLLM and llava-interp: "Layer 1" is the first entry, the embeddings."""
    return {f"Layer {i}": entry for i, entry in enumerate(hidden_states(states, norm), 1)}


def dense_decode(sae: Sae, features: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """multimodal-sae's eager decoding: `values` at `features`, both [T, k], scattered into [T, d_sae], times all of W_dec."""
    dense = torch.zeros(len(features), sae.d_sae).scatter_(1, features, values)
    return dense @ sae.W_dec + sae.b_dec


def replaced(sae: Sae, states: torch.Tensor, feature: int | None = None, value: float = 0.0) -> torch.Tensor:
    """multimodal-sae's steering: the states [T, d] become the SAE's reconstruction of them, with one feature clamped at every position.

    What the SAE does not explain is lost. `feature` is None in a decode step, where nothing is clamped but the state still replaced.
    """
    latents = sae.read(states)[0]
    if feature is not None:
        latents[:, feature] = value
    if sae.k is None:
        return latents @ sae.W_dec + sae.b_dec
    top = latents.topk(sae.k, sorted=False)
    return dense_decode(sae, top.indices, top.values)


def probe_ranking(sae: Sae, states: torch.Tensor, k: int = 10) -> list[int]:
    """multimodal-sae's probe: the features with the highest mean of ReLU pre-activations over all tokens, text included, without the SAE's
    own choice of what is active."""
    return (((states - sae.b_dec) @ sae.W_enc + sae.b_enc).relu().mean(0)).topk(k).indices.tolist()


def cached_features(features: int, splits: int) -> int:
    """How many features multimodal-sae's cache keeps: splits run from b_i to b_(i+1) - 1, and what equals a split's end is not saved."""
    bounds = torch.linspace(0, features, splits + 1).long().tolist()
    ends = [(start, stop - 1) for start, stop in itertools.pairwise(bounds)]
    return sum(start <= feature < end for start, end in ends for feature in range(start, end + 1))


def generate_without_cache(model: nn.Module, tensors: dict[str, torch.Tensor], block: nn.Module, push: torch.Tensor, new: int) -> list[int]:
    """llava-interpret's steering: `push` [d] added at every position after `block`, the whole sequence read anew for every token, greedily."""
    handle = block.register_forward_hook(lambda _module, _args, output: output + push)
    ids = tensors["input_ids"]
    start = ids.shape[1]
    try:
        for _ in range(new):
            grown = {**tensors, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
            ids = torch.cat([ids, model(**grown, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    finally:
        handle.remove()
    return ids[0, start:].tolist()
