"""Building an index of contexts for the contextual lens from text.

The text is read twice. The first time it is only cut into tokens, and the words to keep are chosen: as many different ones as fit, the most
frequent first, and of each a few occurrences at random. The second time the lines that hold a chosen word go through the decoder, without a
picture, and its states there are kept.
"""

import hashlib
import heapq
import json
import os
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.functional import normalize

from ..errors import InterpError
from ..files import write_whole
from ..models.identity import fingerprint
from ..models.vlm import Vlm
from ..tracing.trace import checked_layer
from ..validation import file_path, instance, sequence, shown, text, whole_number
from .context_index import Context, ContextualIndex
from .text_states import text_states
from .whole_words import Span, whole_words

SIZE, PER_TOKEN = 20_000, 8
_DEPTHS = (1 / 8, 1 / 4, 1 / 2, 3 / 4)  # of the blocks; what patches hold resembles text of the middle most (LatentLens, figure 5)
_WINDOW = 128  # tokens; longer lines are cut
_BATCH = 2048  # tokens read together
_BEFORE, _AFTER = 48, 32  # characters of a context
_MASSIVE = 5  # times the median norm of its line, as for sinks: such a state holds no word
_VECTORS, _PROGRESS = "vectors.part", "progress.json"
Texts = str | os.PathLike[str] | Sequence[str]


class _Chosen(NamedTuple):
    """An occurrence of a word: the line, which window of the line, and its tokens in the window."""

    line: int
    window: int
    first: int
    last: int


@dataclass(frozen=True)
class _Plan:
    chosen: tuple[_Chosen, ...]
    """In the order of the text."""
    lines: int
    digest: str
    """Of the text and the settings."""


def build_index(
    vlm: Vlm,
    texts: Texts,
    layers: Sequence[int] | None = None,
    size: int = SIZE,
    per_token: int = PER_TOKEN,
    seed: int = 0,
    words: Sequence[str] | None = None,
) -> ContextualIndex:
    """States of `vlm`'s decoder on text, for `contextual_lens` to search.

    `texts`: a file, whose lines are read one by one, a folder of .txt files, or a list of strings. `size`: entries at most; a kept occurrence
    of a word has one for each of `layers` (by default four, from an eighth to three quarters of the depth). `per_token`: occurrences of a
    word at most. `words`: only these, and where not all fit, the first of them. The first position of a line and states of massive norm are left out.

    Raises InterpError for text without words, and for a `size` below the number of layers.
    """
    return built(vlm, texts, layers, size, per_token, seed, words, None, lambda _done, _of: None)


def built(
    vlm: Vlm,
    texts: Texts,
    layers: Sequence[int] | None,
    size: int,
    per_token: int,
    seed: int,
    words: Sequence[str] | None,
    work: Path | None,
    on_progress: Callable[[int, int], None],
) -> ContextualIndex:
    """As `build_index`; with `work`, what is done is kept there, and found again. `on_progress` gets the contexts done, and of how many."""
    instance("vlm", vlm, Vlm, "a Vlm, as interp.load(...) returns")
    if layers is None:
        at = sorted({max(0, round(depth * vlm.n_layers) - 1) for depth in _DEPTHS})
    else:
        given = sequence("layers", layers, "layer numbers, at least one")
        at = sorted({checked_layer(each, vlm.name, vlm.n_layers) for each in given})
    size = whole_number("size", size, len(at), hint="the number of layers, since each word has an entry at all of them")
    per_token, seed = whole_number("per_token", per_token, 1), whole_number("seed", seed, 0)
    if words is not None:
        words = [text("A word of words", each).strip().casefold() for each in sequence("words", words, "words, at least one")]
    source = _Source.of(texts)
    plan = _plan(vlm, source, at, size // len(at), per_token, seed, words)
    vectors, done = _room(plan, len(at), vlm.d_model, work)
    contexts: list[Context] = []
    batch: list[tuple[list[int], list[_Chosen]]] = []

    def flush() -> None:
        nonlocal batch
        count = sum(len(words) for _, words in batch)
        if count and len(contexts) > done:  # else the batch was done before the last stop
            vectors[len(contexts) - count : len(contexts)] = _states(vlm, [ids for ids, _ in batch], [words for _, words in batch], at)
            if work is not None:
                write_whole(work / _PROGRESS, json.dumps({"digest": plan.digest, "done": len(contexts)}))
        on_progress(len(contexts), len(plan.chosen))
        batch = []

    for ids, these in _wanted(vlm, source, plan):
        longest = max([len(ids), *(len(other) for other, _ in batch)])
        if batch and longest * (len(batch) + 1) > _BATCH:
            flush()
        batch.append((ids, these))
        contexts += [_context(vlm, ids, word) for word in these]
    flush()
    kept = vectors.float().square().sum(-1) > 0.5  # unit length, or zero for a massive one
    place, layer = kept.nonzero(as_tuple=True)
    return ContextualIndex(
        vectors=vectors[kept],
        layers=torch.tensor(at)[layer],
        places=place,
        contexts=tuple(contexts),
        model_name=vlm.name,
        made_from=f"{source.name}, {plan.lines} lines",
        weights=fingerprint(vlm),
    )


@dataclass(frozen=True)
class _Source:
    """Lines that can be read again."""

    files: tuple[Path, ...]
    strings: Collection[str]
    name: str

    @classmethod
    def of(cls, texts: Texts) -> "_Source":
        if not isinstance(texts, str | os.PathLike):
            strings = sequence("texts", texts, "strings, or a file or folder")
            return cls((), [text("An entry of texts", each) for each in strings], "strings")
        place = file_path("texts", texts)
        files = tuple(sorted(place.glob("*.txt"))) if place.is_dir() else (place,)
        if not files or not all(file.is_file() for file in files):
            raise InterpError(
                f"texts is {shown(str(place))}, which is no file, and no folder of .txt files. Name one, or pass a list of strings."
            )
        return cls(files, (), place.name)

    def lines(self) -> Iterator[str]:
        yield from self.strings
        for file in self.files:
            try:
                with file.open(encoding="utf-8") as opened:
                    yield from opened
            except (OSError, ValueError) as error:
                raise InterpError(f"A file of texts, {shown(str(file))}, cannot be read ({error}). It must be text in UTF-8.") from error


def _windows(vlm: Vlm, line: str) -> Iterator[tuple[list[int], int]]:
    """A line as token ids, and how many of them precede the text, such as one for BOS. Lines with special tokens have none."""
    start = [i for i in vlm.tokenizer("a").input_ids[:1] if i in vlm.special_ids]
    ids = vlm.tokenizer(line.strip(), add_special_tokens=False).input_ids
    if any(i in vlm.special_ids or i >= len(vlm.vocabulary.texts) for i in ids):
        return
    step = min(_WINDOW, vlm.context) - len(start)
    for at in range(0, len(ids), step):
        yield [*start, *ids[at : at + step]], len(start)


def _words(vlm: Vlm, ids: list[int], start: int) -> list[Span]:
    """The words of a window but for what begins at the first position of its text, where attention rests."""
    found = whole_words([vlm.vocabulary.texts[i] for i in ids[start:]])
    return [Span(first + start, last + start, word) for first, last, word in found if first > 0]


def _plan(vlm: Vlm, source: _Source, layers: list[int], count: int, per_token: int, seed: int, words: Sequence[str] | None) -> _Plan:
    """Which occurrences to keep: at most `count`, at most `per_token` of a word."""
    rng, digest = random.Random(seed), hashlib.sha256(repr((vlm.name, layers, count, per_token, seed, words)).encode())
    order = {word: i for i, word in enumerate(words or ())}
    drawn: dict[str, list[tuple[float, _Chosen]]] = {}
    often: dict[str, int] = {}
    lines = 0
    for number, line in enumerate(source.lines()):
        digest.update(line.encode("utf-8", "surrogatepass"))
        lines += 1
        for window, (ids, start) in enumerate(_windows(vlm, line)):
            for word in _words(vlm, ids, start):
                key = word.text.casefold()
                if words is not None and key not in order:
                    continue
                often[key] = often.get(key, 0) + 1
                heap = drawn.setdefault(key, [])
                # The occurrences with the largest random numbers are a random sample, whatever the length of the text.
                put = heapq.heappushpop if len(heap) == per_token else heapq.heappush
                put(heap, (rng.random(), _Chosen(number, window, word.first, word.last)))
    if not drawn:
        raise InterpError(
            f"texts hold none of the words beyond the first position of a line ({lines} lines), so there is nothing to index. Give it sentences."
        )
    ranked = [sorted(drawn[word], reverse=True) for word in sorted(drawn, key=lambda word: (order.get(word, 0), -often[word], word))]
    rounds = (heap[turn][1] for turn in range(per_token) for heap in ranked if turn < len(heap))
    chosen = sorted(each for each, _ in zip(rounds, range(count), strict=False))
    return _Plan(tuple(chosen), lines, digest.hexdigest())


def _wanted(vlm: Vlm, source: _Source, plan: _Plan) -> Iterator[tuple[list[int], list[_Chosen]]]:
    """Each window that holds chosen words: its ids and these words."""
    by_line: dict[int, dict[int, list[_Chosen]]] = {}
    for each in plan.chosen:
        by_line.setdefault(each.line, {}).setdefault(each.window, []).append(each)
    for number, line in enumerate(source.lines()):
        if number in by_line:
            for window, (ids, _) in enumerate(_windows(vlm, line)):
                if window in by_line[number]:
                    yield ids, by_line[number][window]


def _states(vlm: Vlm, windows: list[list[int]], words: list[list[_Chosen]], layers: list[int]) -> torch.Tensor:
    """The states of the words of some windows at unit length, zero where the norm is massive: bfloat16 [words, layers, d]."""
    caught, out = text_states(vlm, windows, layers), []
    for layer in layers:
        states = caught[layer].float()
        for row, (window, those) in enumerate(zip(windows, words, strict=True)):
            norms = states[row, : len(window)].norm(dim=-1)
            at = [word.last for word in those]
            unit = normalize(states[row, at], dim=-1)
            out.append(torch.where((norms[at] > _MASSIVE * norms.median())[:, None], 0, unit).to("cpu", torch.bfloat16))
    return torch.cat(out).view(len(layers), -1, vlm.d_model).transpose(0, 1)


def _context(vlm: Vlm, ids: list[int], word: _Chosen) -> Context:
    def read(part: list[int]) -> str:
        return " ".join(vlm.tokenizer.decode(part, skip_special_tokens=True).replace("\n", " ").split(" "))

    before, whole, after = read(ids[: word.first]), read(ids[word.first : word.last + 1]), read(ids[word.last + 1 :])
    before += " " * (len(whole) - len(whole.lstrip()))
    if len(before) > _BEFORE:
        before = "… " + before[-_BEFORE:].partition(" ")[2]
    if len(after) > _AFTER:
        after = after[:_AFTER].rpartition(" ")[0] + " …"
    return Context(before, whole.strip(), after, ids[word.last])


def _room(plan: _Plan, layers: int, width: int, work: Path | None) -> tuple[torch.Tensor, int]:
    """Where the vectors go, bfloat16 [contexts, layers, d], and how many contexts are done already."""
    shape, done = (len(plan.chosen), layers, width), 0
    if work is None:
        return torch.zeros(shape, dtype=torch.bfloat16), 0
    work.mkdir(parents=True, exist_ok=True)
    if (work / _PROGRESS).exists():
        saved: dict[str, Any] = json.loads((work / _PROGRESS).read_text(encoding="utf-8"))
        if saved["digest"] != plan.digest:
            raise InterpError(
                f"{work} holds a part of an index of other text, or with other settings. Remove it, or name another target folder."
            )
        done = saved["done"]
    file = torch.from_file(str(work / _VECTORS), shared=True, size=shape[0] * shape[1] * shape[2], dtype=torch.bfloat16)
    return file.view(shape), done
