"""Text to train on beside the pictures: passages drawn at random from files of any size, of which one passage at a time is in memory."""

import random
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from ...errors import InterpError

COLUMN = "text"
_TRIES = 100  # draws of empty lines in a row, after which there is no text


@dataclass(frozen=True)
class Passages:
    """Text files of one passage a line, or parquet files with a column "text"."""

    files: tuple[Path, ...]
    weights: tuple[int, ...]
    """Bytes of a text file, rows of a parquet file: how often it is drawn from."""

    @classmethod
    def of(cls, path: Path) -> "Passages":
        """A file, or all .txt or .parquet files of a folder. Raises InterpError if there is none, or one without text."""
        found = sorted(file for kind in ("*.txt", "*.parquet") for file in path.rglob(kind)) if path.is_dir() else [path]
        if not found or not all(file.is_file() for file in found):
            raise InterpError(f"--text is {str(path)!r}, which is no file, and no folder of .txt or .parquet files.")
        if len({file.suffix == ".parquet" for file in found}) > 1:
            raise InterpError(f"--text is {str(path)!r}, a folder of both text and parquet files; keep one kind.")
        weights = [_rows(file) if file.suffix == ".parquet" else file.stat().st_size for file in found]
        if not any(weights):
            raise InterpError(f"--text is {str(path)!r}, which is empty.")
        return cls(tuple(found), tuple(weights))

    @property
    def about(self) -> list[list[str | int]]:
        """The files by name and size, for a study's settings."""
        return [[file.name, file.stat().st_size] for file in self.files]

    def draw(self, rng: random.Random) -> str:
        """A passage at random, not empty. Raises InterpError for files that cannot be read as text."""
        for _ in range(_TRIES):
            (file,) = rng.choices(self.files, self.weights)
            try:
                passage = _row(file, rng) if file.suffix == ".parquet" else _line(file, rng)
            except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
                raise InterpError(f"--text {file} cannot be read ({error}); it must be text in UTF-8, or parquet.") from error
            if passage.strip():
                return passage.strip()
        raise InterpError(f"--text {self.files[0]} has hardly any lines that are not empty.")


def _line(file: Path, rng: random.Random) -> str:
    """The line behind a random byte; the first one behind the last. Lines behind long ones are drawn more often."""
    with file.open("rb") as held:
        held.seek(rng.randrange(file.stat().st_size))
        held.readline()
        line = held.readline()
        if not line:
            held.seek(0)
            line = held.readline()
        return line.decode("utf-8")


def _rows(file: Path) -> int:
    try:
        schema = parquet.read_schema(file)
        if COLUMN not in schema.names:
            raise InterpError(f"--text {file} has no column {COLUMN!r}; its columns are {', '.join(schema.names)}.")
        return parquet.read_metadata(file).num_rows
    except (OSError, pa.ArrowException) as error:
        raise InterpError(f"--text {file} cannot be read ({error}).") from error


def _row(file: Path, rng: random.Random) -> str:
    with parquet.ParquetFile(file) as held:
        sizes = [held.metadata.row_group(group).num_rows for group in range(held.num_row_groups)]
        (group,) = rng.choices(range(len(sizes)), sizes)
        column = held.read_row_group(group, columns=[COLUMN]).column(0)
        return str(column[rng.randrange(len(column))].as_py() or "")
