"""What the model's own output side reads in a direction of its residual stream. Knows directions; knows nothing of where they come from."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..models.vlm import Vlm

Words = tuple[tuple[str, ...], tuple[str, ...]]
"""(promoted, suppressed), the strongest first."""


def promoted_words(vlm: "Vlm", directions: torch.Tensor, k: int = 8) -> list[Words]:
    """The k words that each direction [N, d] promotes and suppresses most when the model's own norm and head read it.

    Ids that the tokenizer cannot decode are never listed.
    """
    texts, hidden = vlm.vocabulary.texts, set(vlm.vocabulary.undecodable)
    ids = torch.tensor([i for i in range(len(texts)) if i not in hidden], device=vlm.unembed.device)
    out: list[Words] = []
    with vlm.lock, torch.inference_mode():
        for _, logits in vlm.unembed.chunks(directions.to(vlm.model.dtype), vlm.unembed.buffers()[0]):
            known = logits[:, ids]
            best, worst = (ids[known.topk(min(k, len(ids)), largest=largest).indices].tolist() for largest in (True, False))
            out += [(tuple(texts[i] for i in up), tuple(texts[i] for i in down)) for up, down in zip(best, worst, strict=True)]
    return out


def listed(words: Sequence[str]) -> str:
    """Words in a row as a short name; what is invisible is spelled out."""
    return ", ".join(word.strip() if word.strip() and word.isprintable() else repr(word) for word in words)
