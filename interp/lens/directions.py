"""The words that a direction of the residual stream promotes and suppresses, read through the model's final norm and unembedding."""

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..models.vlm import Vlm

Words = tuple[tuple[str, ...], tuple[str, ...]]
"""(promoted, suppressed), the strongest first."""


def promoted_words(vlm: "Vlm", directions: torch.Tensor, k: int = 8) -> list[Words]:
    """The k words that each direction [N, d] promotes and suppresses most. Ids that the tokenizer cannot decode are never listed."""
    texts, hidden = vlm.vocabulary.texts, set(vlm.vocabulary.undecodable)
    ids = torch.tensor([i for i in range(len(texts)) if i not in hidden], device=vlm.unembed.device)
    out: list[Words] = []
    with vlm.lock, torch.inference_mode():
        for _, logits in vlm.unembed.chunks(directions.to(vlm.model.dtype), vlm.unembed.buffers(len(directions))[0]):
            known = logits[:, ids]
            best, worst = (ids[known.topk(min(k, len(ids)), largest=largest).indices].tolist() for largest in (True, False))
            out += [(tuple(texts[i] for i in up), tuple(texts[i] for i in down)) for up, down in zip(best, worst, strict=True)]
    return out


def listed(words: Sequence[str]) -> str:
    """Words joined by commas; unprintable ones as Python literals."""
    return ", ".join(word.strip() if word.strip() and word.isprintable() else repr(word) for word in words)


def is_word(text: str) -> bool:
    """Whether a token reads as a word: letters of any script, perhaps joined by a hyphen or apostrophe. A single ASCII letter is not a word."""
    bare = text.strip()
    parts = bare.replace("'", "-").replace("’", "-").split("-")  # noqa: RUF001 - the apostrophe of typeset text
    letters = all(
        part and unicodedata.category(part[0])[0] == "L" and all(unicodedata.category(c)[0] in "LM" for c in part) for part in parts
    )
    return letters and (len(bare) > 1 or not bare.isascii())
