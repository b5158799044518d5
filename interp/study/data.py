"""The pictures of a study, numbered in their order: a folder, parquet files, or a data set of the hub, which is streamed at a fixed revision."""

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from ..concepts.samples import Sample, Samples, samples_of
from ..errors import InterpError
from ..models.hub_errors import translated
from ..validation import shown

CHUNK = 32
"""Samples that are worked on, and written, together."""


@dataclass(frozen=True)
class Source:
    """Where the samples of a study come from."""

    data: str
    """A folder, or the name of a data set on the hub."""
    split: str
    """Of a data set on the hub."""
    prompt: str
    """Asked where a sample has no prompt of its own."""
    limit: int | None
    """Only the first so many samples."""


@dataclass(frozen=True)
class Data:
    """Samples that can be read again from the start, and as often as needed."""

    samples: Samples
    count: int
    """Of samples; a streamed data set may turn out to have fewer."""
    fingerprint: str
    """Of where they come from: changes when pictures are added, removed or replaced by others of another size."""

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.count // CHUNK)

    def reader(self) -> Callable[[int], list[Sample]]:
        """Gives the samples of a chunk by its number; asked in ascending order, all in one pass. A chunk beyond the end of the data is empty."""
        rows, at = itertools.islice(self.samples.read(), self.count), 0

        def chunk(number: int) -> list[Sample]:
            nonlocal at
            before = number * CHUNK - at  # passed over: their pictures are never opened
            at = (number + 1) * CHUNK
            return list(itertools.islice(rows, before, before + CHUNK))

        return chunk

    def by_number(self) -> Callable[[int], Sample]:
        """Gives the sample of a number; asked in ascending order, repeats allowed, all in one pass."""
        read, held, samples = self.reader(), -1, []

        def sample(number: int) -> Sample:
            nonlocal held, samples
            if number // CHUNK != held:
                held, samples = number // CHUNK, read(number // CHUNK)
            if number % CHUNK >= len(samples):
                raise InterpError(f"Sample {number} of the data does not exist: it ends before. Begin a study with a smaller --limit.")
            return samples[number % CHUNK]

        return sample

    def some(self, numbers: Collection[int]) -> Iterator[tuple[int, Sample]]:
        """The samples of these numbers in ascending order, read in one pass."""
        wanted = set(numbers)
        last = max(wanted, default=-1)
        for number, sample in enumerate(itertools.islice(self.samples.read(), min(self.count, last + 1))):
            if number in wanted:
                yield number, sample


def open_data(source: Source, revision: str = "") -> tuple[Data, str]:
    """The samples of a source, and the revision of a data set on the hub ("" for a folder).

    `revision`: the one to read; by default the newest. Raises InterpError for data that does not exist or cannot be read, a hub data set without a
    split, and a streamed one without a limit, whose length is unknown.
    """
    folder = Path(source.data).expanduser()
    if folder.exists():
        samples, listed = samples_of(folder.resolve(), source.prompt), _listed(folder.resolve())
    elif source.data.count("/") == 1 and not source.data.startswith((".", "/", "~")):
        samples, revision = _streamed(source, revision)
        listed = [source.data, source.split, revision]
    else:
        raise InterpError(
            f"--data is {shown(source.data)}; there is no such folder, and it is no name of a data set on the hub (owner/name)."
        )
    if samples.count is None and source.limit is None:
        raise InterpError(f"{source.data} is streamed, so its length is not known. Say how many samples to take: --limit N.")
    counts = [count for count in (samples.count, source.limit) if count is not None]
    digest = hashlib.sha256("\n".join([*listed, source.prompt, str(source.limit)]).encode()).hexdigest()
    return Data(samples, min(counts), digest), revision


def _listed(folder: Path) -> Sequence[str]:
    """Names and sizes of all files of a folder."""
    return [f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in sorted(folder.rglob("*")) if path.is_file()]


def _streamed(source: Source, revision: str) -> tuple[Samples, str]:
    if not source.split:
        raise InterpError(
            f"--data is {shown(source.data)}, a data set on the hub, and those come in parts: choose one, such as --split train."
        )
    try:
        import datasets  # noqa: PLC0415 - not needed for folders, and slow to import
    except ImportError as error:
        raise InterpError(
            f"--data is {shown(source.data)}; data sets of the hub need the package datasets (pip install datasets)."
        ) from error
    with translated(source.data, revision or None, "Try again later; what is done already is kept."):
        revision = revision or str(HfApi().dataset_info(source.data).sha)
        given: Any = datasets.load_dataset(source.data, split=source.split, revision=revision, streaming=True)
        if given.features is None:
            given = given._resolve_features()  # noqa: SLF001 - there is no public name for it
    return samples_of(given, source.prompt), revision
