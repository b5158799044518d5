"""Exact search for the entries of an index that are nearest to states by cosine, each word at most once.

A fast pass multiplies in bfloat16, which processors do more than twice as fast as float32, and keeps candidates whose similarities are then
computed in float32. Where rounding might have hidden a better entry, the row is read again in float32 throughout.
"""

from collections.abc import Iterator

import torch

from .context_index import ContextualIndex

PAIRS = 1 << 24
"""Similarities held at a time in float32."""
_NARROW_PAIRS = 1 << 25  # likewise, in bfloat16
_COLUMNS = 49152  # entries multiplied at a time in bfloat16
_MEMBERS = 8  # columns of a group
_WIDE_COLUMNS = 2048  # entries converted to float32 at a time
_SPARE, _FEWEST = 6, 24  # candidates for each word asked for, and in all: a word has several entries near a state
_GATHERED = 1 << 18  # numbers of candidates' vectors held at a time
_ROUNDING = 2.0**-8  # rounding to the 8 bits of bfloat16 changes a number by at most half of this share of it
_UNIT = 1 + _ROUNDING  # length of a vector whose numbers were rounded, at most
_SUMMING = 1e-5  # error of adding up in float32, at most: thousands of products of numbers below one
_SUMMING_ON_GPU = 2.0**-7  # likewise where parts of a sum, each at most one, may be rounded to bfloat16 before they are added up
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
    rows = max(1, _NARROW_PAIRS // (_COLUMNS * less))
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
    buffer = narrow.new_empty(len(queries), min(_COLUMNS, -(-len(vectors) // _MEMBERS) * _MEMBERS))
    best = narrow.new_empty(len(queries), 0)
    entries = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(vectors), buffer.shape[1]):
        part = vectors[start : start + buffer.shape[1]]
        torch.mm(narrow, part.T, out=buffer[:, : len(part)])
        buffer[:, len(part) :] = -torch.inf
        top, at = _top(buffer, count)
        best, kept = torch.cat([best, top], dim=-1).topk(min(count, best.shape[1] + top.shape[1]))
        entries = torch.cat([entries, at + start], dim=-1).gather(1, kept)
    entries.clamp_(max=len(vectors) - 1)  # of columns behind the last entry, which are candidates only in an index of hardly more
    last = best[:, -1].float()
    rounded = (queries - narrow.float()).norm(dim=-1) * _UNIT  # what rounding the query changes a product by, at most (Cauchy-Schwarz)
    outside = last + rounded + last.abs() * _ROUNDING + (_SUMMING if last.device.type == "cpu" else _SUMMING_ON_GPU)
    if count == len(vectors):
        outside.fill_(-torch.inf)
    exact = torch.empty(entries.shape, device=queries.device)
    for rows in torch.arange(len(queries), device=queries.device).split(max(1, _GATHERED // (count * vectors.shape[1]))):
        exact[rows] = torch.bmm(vectors[entries[rows]].float(), queries[rows, :, None])[..., 0]
    return exact, entries, outside


def _top(products: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest of each row, in no order: values and columns. They are among the members of the groups with the largest peaks.

    Column c is in group c mod groups, so that peaks are found by comparing whole rows of groups, which is faster than neighbours.
    """
    groups = products.shape[1] // _MEMBERS
    if count >= groups:
        values, columns = products.topk(min(count, products.shape[1]), sorted=False)
        return values, columns
    members = products.view(len(products), _MEMBERS, groups)
    chosen = members.amax(1).topk(count, sorted=False).indices[:, None].expand(-1, _MEMBERS, -1)
    values, at = members.gather(2, chosen).flatten(1).topk(count, sorted=False)
    return values, chosen[:, 0].gather(1, at % count) + at // count * groups


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
