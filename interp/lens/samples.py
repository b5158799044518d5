"""The states of every layer at the positions of a text, kept in files so that a training run can be resumed.

Any model of the package reads text through its decoder, without a picture. Blank lines separate passages; a passage is cut into pieces, and
whole pieces are drawn at random. The first position of a piece and special tokens are left out: many models keep a sink there.
"""

import functools
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from ..errors import InterpError
from ..models.vlm import Vlm
from ..tracing.trace import EMBED
from .text_states import sixteen, text_states

SHARD = 1024  # positions in a file, at least
_TOKENS = 2048  # read together
_LETTERS = 8  # of text for each token of a piece, at most


@dataclass(frozen=True)
class Samples:
    """Positions of text: their tokens, and the states of every layer there."""

    files: tuple[Path, ...]

    @functools.cached_property
    def ids(self) -> torch.Tensor:
        """The token that stands at each position: int64 [N]."""
        return torch.cat([load_file(file)["ids"] for file in self.files])

    def layer(self, layer: int) -> torch.Tensor:
        """States of one layer (`EMBED` for the input): float32 [N, d]."""
        parts = []
        for file in self.files:
            with safe_open(file, framework="pt") as held:
                parts.append(held.get_tensor(str(layer)).float())
        return torch.cat(parts)

    def __len__(self) -> int:
        return len(self.ids)


def collect(vlm: Vlm, text: str, work: Path, count: int, held_out: int, *, length: int = 128) -> tuple[Samples, Samples]:
    """(to train on, held out): at least `count` and `held_out` positions, from different pieces of at most `length` tokens.

    Files that `work` has already are used. Raises InterpError if they were made from something else, and for too little text.
    """
    work.mkdir(parents=True, exist_ok=True)
    about = {"model": vlm.name, "length": length, "text": hashlib.sha256(text.encode()).hexdigest()}
    told = work / "samples.json"
    if told.exists() and json.loads(told.read_text(encoding="utf-8")) != about:
        raise InterpError(f"{work} holds states of another text, model or length. Name another --work, or empty it.")
    told.write_text(json.dumps(about), encoding="utf-8")
    found = pieces(text, length)
    shards = [-(-wanted // SHARD) for wanted in (count, held_out)]
    files: list[Path] = []
    start = 0
    for i in tqdm(range(sum(shards)), desc="states"):
        file = work / f"states-{i:04}.safetensors"
        if not file.exists():
            tensors, start = _shard(vlm, found, start, length)
            if len(tensors["ids"]) < SHARD:
                raise InterpError(
                    f"The text is too short: it has {i * SHARD + len(tensors['ids'])} tokens, and {count + held_out} are wanted."
                )
            save_file(tensors, file.with_suffix(".tmp"), metadata={"next": str(start)})
            file.with_suffix(".tmp").replace(file)
        with safe_open(file, framework="pt") as held:
            start = int(held.metadata()["next"])
        files.append(file)
    return Samples(tuple(files[: shards[0]])), Samples(tuple(files[shards[0] :]))


def pieces(text: str, length: int) -> list[str]:
    """Passages of a text, cut at the ends of lines where they are long, in random order."""
    found = []
    for passage in text.split("\n\n"):
        lines: list[str] = []
        for line in passage.strip("\n").split("\n"):
            lines.append(line)
            if sum(map(len, lines)) > length * _LETTERS:
                found.append("\n".join(lines))
                lines = []
        if any(line.strip() for line in lines):
            found.append("\n".join(lines))
    random.Random(0).shuffle(found)
    return found


def _shard(vlm: Vlm, found: list[str], start: int, length: int) -> tuple[dict[str, torch.Tensor], int]:
    """The states of `SHARD` positions or a few more, and the piece that comes next."""
    rows: list[dict[str, torch.Tensor]] = []
    while sum(len(row["ids"]) for row in rows) < SHARD and start < len(found):
        some = found[start : start + max(1, _TOKENS // length)]
        start += len(some)
        rows += _states(vlm, some, length)
    names = rows[0] if rows else {"ids": torch.empty(0)}
    return {name: torch.cat([row[name] for row in rows]).contiguous() if rows else each for name, each in names.items()}, start


def _states(vlm: Vlm, texts: list[str], length: int) -> Iterator[dict[str, torch.Tensor]]:
    ids = [row[:length] for row in vlm.tokenizer(texts).input_ids if len(row) > 1]
    if not ids:
        return
    states = text_states(vlm, ids, range(EMBED, vlm.n_layers))
    longest = max(map(len, ids))
    real = torch.tensor([[0 < at < len(row) and row[at] not in vlm.special_ids for at in range(longest)] for row in ids])
    told = torch.tensor([token for row in ids for token in row[1:] if token not in vlm.special_ids])
    yield {"ids": told} | {str(layer): sixteen(hidden.cpu()[real]) for layer, hidden in states.items()}
