"""Exact search for the entries of an index that are nearest to states by cosine, each word at most once.

A fast pass multiplies in bfloat16, which processors do more than twice as fast as float32, and keeps candidates whose similarities are then
computed in float32. Where rounding might have hidden a better entry, the row is read again in float32 throughout.
"""

from collections.abc import Iterator

import torch
from torch.nn.functional import normalize, pad

from .context_index import ContextualIndex

PAIRS = 1 << 24
"""Similarities held at a time in float32."""
_ROWS, _COLUMNS = 192, 49152  # states and entries multiplied at a time in bfloat16
_MEMBERS = 8  # columns of a group
_WIDE_COLUMNS = 2048  # entries converted to float32 at a time
_SPARE, _FEWEST = 6, 24  # candidates for each word asked for, and in all: a word has several entries near a state
_GATHERED = 1 << 18  # numbers of candidates' vectors held at a time
_ROUNDING = 2.0**-8  # rounding to the 8 bits of bfloat16 changes a number by at most half of this share of it
_UNIT = 1 + _ROUNDING  # length of a vector whose numbers were rounded, at most
_SUMMING = 1e-5  # error of adding up in float32, at most: thousands of products of numbers below one
_SUMMING_ON_GPU = 2.0**-7  # likewise where parts of a sum, each at most one, may be rounded to bfloat16 before they are added up


def unit(states: torch.Tensor, index: ContextualIndex) -> torch.Tensor:
    """States [T, d] at unit length, where the index is: float32 [T, d]."""
    return normalize(states.to(index.vectors.device, torch.float32), dim=-1)


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
    rows = max(1, min(_ROWS // less, len(queries)))
    columns = -(-len(index.vectors) // -(-len(index.vectors) // _COLUMNS))  # blocks of equal size
    buffer = index.vectors.new_empty(rows, -(-columns // _MEMBERS) * _MEMBERS)
    for start in range(0, len(queries), rows):
        part, at = queries[start : start + rows], slice(start, start + rows)
        entries[at], found[at], sure = _fast(part, index, k, buffer[: len(part)])
        unsure = (~sure).nonzero().flatten()
        step = max(1, PAIRS // (len(index.vectors) * less))
        for few in (unsure[i : i + step] for i in range(0, len(unsure), step)):  # split() would give one empty piece of nothing
            entries[start + few], found[start + few] = _wide(part[few], index, k)
    return entries, found


def _fast(queries: torch.Tensor, index: ContextualIndex, k: int, buffer: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(entries, similarities, whether they are certainly the best): [T, k], [T, k], [T]."""
    about, entries, error = _candidates(queries, index.vectors, max(_FEWEST, _SPARE * k), buffer)
    first, _ = _distinct(index.word_of[entries], k)
    # The k-th word is at most `error` below what it seems, and no entry is more than `error` above: the rest need not be computed.
    rows, columns = (about >= about.gather(1, first[:, -1:]) - 2 * error[:, None]).nonzero(as_tuple=True)
    similarity = torch.full_like(about, -torch.inf)
    for part in torch.arange(len(rows), device=rows.device).split(max(1, _GATHERED // queries.shape[1])):
        row, column = rows[part], columns[part]
        similarity[row, column] = torch.linalg.vecdot(index.vectors[entries[row, column]].float(), queries[row])
    order = similarity.argsort(dim=-1, descending=True, stable=True)
    similarity, entries = similarity.gather(1, order), entries.gather(1, order)
    first, enough = _distinct(index.word_of[entries], k)
    entries, similarity = entries.gather(1, first), similarity.gather(1, first)
    every = about.shape[1] == len(index.vectors)
    return entries, similarity, enough & (every | (similarity[:, -1] > about[:, -1] + error))


def _distinct(words: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns of the first k distinct words of each row [T, k], and whether there are so many [T]. Where not, the last column stands in."""
    again = (words[:, :, None] == words[:, None, :]).tril(-1).any(-1)
    enough = (~again).sum(-1) >= k
    first = again.to(torch.int8).argsort(dim=-1, stable=True)[:, :k]
    first = pad(first, (0, k - first.shape[1]))  # of an index of hardly more entries than words asked for
    return torch.where(enough[:, None], first, words.shape[1] - 1), enough


def _candidates(
    queries: torch.Tensor, vectors: torch.Tensor, count: int, buffer: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best entries of a search in bfloat16: (similarities [T, count], the largest first; entries [T, count]; their largest error [T])."""
    count, narrow = min(count, len(vectors)), queries.to(torch.bfloat16)
    best = narrow.new_empty(len(queries), 0)
    entries = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(vectors), buffer.shape[1]):
        part = vectors[start : start + buffer.shape[1]]
        torch.mm(narrow, part.T, out=buffer[:, : len(part)])
        buffer[:, len(part) :] = -torch.inf
        top, at = _top(buffer, count)
        best, kept = torch.cat([best, top], dim=-1).topk(min(count, best.shape[1] + top.shape[1]))
        entries = torch.cat([entries, at + start], dim=-1).gather(1, kept)
    best = best.float()
    rounded = (queries - narrow.float()).norm(dim=-1) * _UNIT  # what rounding the query changes a product by, at most (Cauchy-Schwarz)
    error = rounded + best.abs().amax(-1) * _ROUNDING + (_SUMMING if best.device.type == "cpu" else _SUMMING_ON_GPU)
    return best, entries, error


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
