"""What concepts are called and where they are seen: their words through the model's own norm and head, and their strongest samples."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..lens.directions import is_word, promoted_words
from ..models.vlm import Vlm
from .states import ConceptStates

WORDS = 10
_LISTED = 200  # promoted tokens among which words are looked for, as xl-vlms does for shifted concepts


def words_of(
    vlm: Vlm, directions: torch.Tensor, *, normed: bool = False, count: int = WORDS
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The words that each direction [K, d] promotes, and those that its opposite promotes, at most `count` each.

    Directions are read as the lens reads a state, W_U (gamma * u) up to a factor; those behind the final norm (`normed`) by the head alone. A word
    is a token that begins with a space, has letters only and more than one of them; spellings that differ in case count once.
    """
    if normed:
        up, down = [], []
        with vlm.lock, torch.inference_mode():
            for row in directions.to(vlm.head.weight):
                logits = vlm.head(row[None])[0].float()
                logits[list(vlm.vocabulary.undecodable)] = 0
                up.append([vlm.vocabulary.texts[i] for i in logits.topk(min(_LISTED, len(logits))).indices.tolist()])
                down.append([vlm.vocabulary.texts[i] for i in logits.topk(min(_LISTED, len(logits)), largest=False).indices.tolist()])
    else:
        found = promoted_words(vlm, directions, k=_LISTED)
        up, down = [list(pair[0]) for pair in found], [list(pair[1]) for pair in found]
    return [real_words(each, count) for each in up], [real_words(each, count) for each in down]


def real_words(pieces: Sequence[str], count: int) -> tuple[str, ...]:
    """The first `count` different words among the texts of tokens."""
    out: dict[str, str] = {}
    for piece in pieces:
        word = piece.strip()
        if piece[:1].isspace() and is_word(word):
            out.setdefault(word.casefold(), word)
    return tuple(out.values())[:count]


def strongest_rows(activations: torch.Tensor, sample_of: torch.Tensor, count: int) -> list[int]:
    """The rows of largest activation [N], the largest first, at most one of each sample, and none of 0."""
    out: list[int] = []
    seen: set[int] = set()
    for row in activations.argsort(descending=True, stable=True).tolist():
        sample = int(sample_of[row])
        if len(out) == count or activations[row] <= 0:
            break
        if sample not in seen:
            seen.add(sample)
            out.append(row)
    return out


def picture_of(states: ConceptStates, sample: int) -> Path | bytes | None:
    """What to open a sample's picture from: the original file if it is still there, else the stored copy; None where there is neither."""
    path = states.samples[sample].path
    if path and Path(path).is_file():
        return Path(path)
    return states.picture_file(sample) or None
