"""Exact search for the entries of an index that are nearest to states by cosine, each word at most once.

A fast pass multiplies in bfloat16, which processors do more than twice as fast as float32, and keeps candidates whose similarities are then
computed in float32. Where rounding might have hidden a better entry, the row is read again in float32 throughout.
"""

from collections.abc import Iterator

import torch

from .context_index import ContextualIndex

PAIRS = 1 << 24
"""Similarities held at a time."""
_COLUMNS = 16384  # entries multiplied at a time in bfloat16
_WIDE_COLUMNS = 2048  # entries converted to float32 at a time
_SPARE, _FEWEST = 8, 48  # candidates for each word asked for, and in all: a word has several entries near a state
_GATHERED = 1 << 22  # numbers of candidates' vectors held at a time
# bfloat16 has 8 bits: rounding a unit query changes its product with a unit vector by at most 2^-9, rounding a product by 2^-9 of it.
_ROUNDING = 2.0**-9
_LEAST = 1e-12  # length below which a state counts as zero


def unit(states: torch.Tensor, index: ContextualIndex) -> torch.Tensor:
    """States [T, d] at unit length, where the index is: float32 [T, d]."""
    states = states.to(index.vectors.device, torch.float32)
    return states / states.norm(dim=-1, keepdim=True).clamp(min=_LEAST)


def wide_products(queries: torch.Tensor, vectors: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Similarities in float32, a block of entries at a time: (which entries, [rows, entries])."""
    for start in range(0, len(vectors), _WIDE_COLUMNS):
        part = vectors[start : start + _WIDE_COLUMNS]
        yield slice(start, start + len(part)), queries @ part.float().T


def nearest_words(queries: torch.Tensor, index: ContextualIndex, k: int, *, less: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """The k words nearest to each of `queries` (float32 [T, d], unit length): the best entry of each, int64 [T, k], and its similarity.

    `less` divides the memory that it works in.
    """
    entries = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
    found = torch.empty(len(queries), k, device=queries.device)
    rows = max(1, PAIRS // (_COLUMNS * less))
    for start in range(0, len(queries), rows):
        part, at = queries[start : start + rows], slice(start, start + rows)
        entries[at], found[at], sure = _fast(part, index, k)
        for few in (~sure).nonzero().flatten().split(max(1, PAIRS // (len(index.vectors) * less))):
            entries[start + few], found[start + few] = _wide(part[few], index, k)
    return entries, found


def _fast(queries: torch.Tensor, index: ContextualIndex, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(entries, similarities, whether they are certainly the best): [T, k], [T, k], [T]."""
    similarity, candidates, outside = _candidates(queries, index.vectors, max(_FEWEST, _SPARE * k))
    order = similarity.argsort(dim=-1, descending=True, stable=True)
    similarity, candidates = similarity.gather(1, order), candidates.gather(1, order)
    words = index.word_of[candidates]
    again = (words[:, :, None] == words[:, None, :]).tril(-1).any(-1)
    first = again.to(torch.int8).argsort(dim=-1, stable=True)[:, :k]  # columns of k distinct words, the nearest first
    if first.shape[1] < k:  # an index of hardly more entries than words asked for
        first = torch.cat([first, first[:, -1:].expand(-1, k - first.shape[1])], dim=-1)
    entries, found = candidates.gather(1, first), similarity.gather(1, first)
    distinct = (~again).sum(-1) >= k
    return entries, found, distinct & (found[:, -1] > outside)


def _candidates(queries: torch.Tensor, vectors: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best entries of a search in bfloat16: (exact similarities [T, count], entries [T, count], what no other entry exceeds [T])."""
    count, narrow = min(count, len(vectors)), queries.to(torch.bfloat16)
    buffer = narrow.new_empty(len(queries), min(_COLUMNS, len(vectors)))
    best = narrow.new_empty(len(queries), 0)
    entries = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(vectors), _COLUMNS):
        part = vectors[start : start + _COLUMNS]
        products = torch.mm(narrow, part.T, out=buffer[:, : len(part)]) if len(part) == buffer.shape[1] else narrow @ part.T
        top, at = products.topk(min(count, len(part)), sorted=False)
        both, all_entries = torch.cat([best, top], dim=-1), torch.cat([entries, at + start], dim=-1)
        best, kept = both.topk(min(count, both.shape[1]))
        entries = all_entries.gather(1, kept)
    last = best[:, -1].float()
    outside = last + _ROUNDING * (1 + 2 * last.abs()) if count < len(vectors) else torch.full_like(last, -torch.inf)
    exact = torch.empty(entries.shape, device=queries.device)
    for rows in torch.arange(len(queries), device=queries.device).split(max(1, _GATHERED // (count * vectors.shape[1]))):
        exact[rows] = torch.bmm(vectors[entries[rows]].float(), queries[rows, :, None])[..., 0]
    return exact, entries, outside


def _wide(queries: torch.Tensor, index: ContextualIndex, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The search as it is defined, in float32: take the nearest entry, leave out its word, and take the next."""
    similarity = torch.empty(len(queries), len(index.vectors), device=queries.device)
    for at, products in wide_products(queries, index.vectors):
        similarity[:, at] = products
    entries = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
    found = torch.empty(len(queries), k, device=queries.device)
    for rank in range(k):
        found[:, rank], entries[:, rank] = similarity.max(-1)
        similarity.masked_fill_(index.word_of == index.word_of[entries[:, rank], None], -torch.inf)
    return entries, found
