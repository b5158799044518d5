"""The parts on the disk as an endless stream of batches, shuffled across pictures within a bounded memory.

Neighbouring patches resemble each other, and so do the patches of one picture. In every pass the parts are put into a new order and divided
into groups that fit into memory; the rows of a group are shuffled together, whichever picture they come from.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ...errors import InterpError


@dataclass(frozen=True)
class Stream:
    """Batches of rows out of part files."""

    files: tuple[Path, ...]
    rows: tuple[int, ...]
    """Of each file."""
    width: int
    batch: int
    memory: int
    """Bytes that the rows of a group may take up, in 16 bits."""
    seed: int

    @classmethod
    def of(cls, files: Sequence[Path], batch: int, memory: int, seed: int) -> "Stream":
        """Raises InterpError if there are fewer rows than a batch takes, in all or in memory."""
        shapes = []
        for file in files:
            with safe_open(file, framework="pt") as held:
                shapes.append(held.get_slice("states").get_shape())
        found = cls(tuple(files), tuple(shape[0] for shape in shapes), shapes[0][1], batch, memory, seed)
        total, fits = sum(found.rows), memory // (2 * found.width)
        if min(total, fits) < batch:
            raise InterpError(
                f"A batch has {batch} states; there are {total}, and {fits} fit into --memory. Lower --batch, or collect or allow more."
            )
        return found

    def batches(self, start: int = 0) -> Iterator[torch.Tensor]:
        """The batches [batch, width] in float32 from the `start`-th on, without end. What a group has too few of for a batch is left out that time."""
        epoch = 0
        while True:
            for number, group in enumerate(self._groups(epoch)):
                count = sum(self.rows[file] for file in group) // self.batch
                if start >= count:
                    start -= count
                    continue
                states = torch.cat([load_file(self.files[file])["states"] for file in group])
                generator = torch.Generator().manual_seed(self._random(f"{epoch} {number}").getrandbits(63))
                for chosen in torch.randperm(len(states), generator=generator).split(self.batch)[start:count]:
                    yield states[chosen].float()
                start = 0
            epoch += 1

    def _groups(self, epoch: int) -> list[list[int]]:
        """All files in a random order, as many in a group as fit into memory, and enough for a batch."""
        order = list(range(len(self.files)))
        self._random(str(epoch)).shuffle(order)
        groups: list[list[int]] = [[]]
        for file in order:
            held = sum(self.rows[each] for each in groups[-1])
            if held >= self.batch and 2 * self.width * (held + self.rows[file]) > self.memory:
                groups.append([])
            groups[-1].append(file)
        if len(groups) > 1 and sum(self.rows[each] for each in groups[-1]) < self.batch:
            groups[-2] += groups.pop()
        return groups

    def _random(self, what: str) -> random.Random:
        return random.Random(f"stream {self.seed} {what}")
