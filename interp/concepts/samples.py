"""Samples: pictures with prompts from a folder, a list or a data set, one after the other and never all in memory.

A folder may hold pictures, an imagefolder data set (pictures with metadata.csv or metadata.jsonl), parquet files with a column of pictures, or a
data set that `datasets` saved. Pictures are opened by `vision.images` in every case, which looks at their size first.
"""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from ..errors import InterpError
from ..validation import LONGEST_PATH, file_path, sequence, shown, text
from ..vision.images import OpenedImage

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm")
PROMPT_COLUMNS = ("prompt", "question")
_IDS = ("id", "sample_id", "question_id", "image_id")
_METADATA = ("metadata.csv", "metadata.jsonl")
_ROWS = 16  # of a parquet file decoded together: each may hold a large picture


@dataclass(frozen=True)
class Sample:
    """One picture with its prompt."""

    id: str
    """Unique among the samples: the file's path within its folder, the data set's own id, or the sample's number."""
    picture: Any
    """What `Vlm.prepare` opens: a path, the bytes of a file, a PIL image or an array."""
    prompt: str
    answer: str | None = None
    """Forced on the model, instead of its own."""
    path: str = ""
    """Where the picture lies, if it is a file."""


@dataclass(frozen=True)
class Samples:
    """Samples that can be read again from the start."""

    read: Callable[[], Iterator[Sample]]
    count: int | None
    """None where it is not known before reading."""


def samples_of(given: Any, prompt: str) -> Samples:
    """The samples of a folder, a list of (picture, prompt) or (picture, prompt, forced answer), or a data set of Hugging Face's `datasets`.

    `prompt` is asked where a sample has none of its own: in a column "prompt" or "question", or as the second of a pair. Raises InterpError for
    anything else, and for a folder or data set without pictures.
    """
    prompt = text("prompt", prompt)
    if isinstance(given, str | os.PathLike):
        return _of_folder(file_path("samples", given), prompt)
    if isinstance(given, Mapping) and given and all(map(_is_data_set, given.values())):
        raise InterpError(f"samples is a data set in parts ({', '.join(map(str, given))}); pass one of them, such as samples['train'].")
    if _is_data_set(given):
        return _of_data_set(given, prompt)
    pairs = list(sequence("samples", given, "pairs (picture, prompt); or give a folder or a data set"))
    return Samples(lambda: _of_pairs(pairs, prompt), len(pairs))


def _is_data_set(given: Any) -> bool:
    """Whether this is a data set of `datasets`, which need not be installed."""
    return type(given).__module__.partition(".")[0] == "datasets" and hasattr(given, "cast_column")


def _of_pairs(pairs: Sequence[Any], prompt: str) -> Iterator[Sample]:
    unique = Unique()  # one picture may be asked several things
    for number, pair in enumerate(pairs):
        if isinstance(pair, str | os.PathLike | bytes | Image.Image | np.ndarray | OpenedImage):
            parts: tuple[Any, ...] = (pair, prompt)
        elif isinstance(pair, tuple | list) and len(pair) in {2, 3}:
            parts = tuple(pair)
        else:
            raise InterpError(f"One of samples is {shown(pair)}; each must be a picture, or a pair (picture, prompt).")
        picture, asked, *forced = parts
        is_file = isinstance(picture, str | os.PathLike)
        name = os.fspath(picture) if is_file else str(number)
        yield Sample(
            unique(name),
            picture,
            text("The prompt of one of samples", asked),
            text("The answer of one of samples", forced[0]) if forced and forced[0] is not None else None,
            os.fspath(picture) if is_file else "",
        )


def _of_folder(folder: Path, prompt: str) -> Samples:
    if not folder.is_dir():
        raise InterpError(f"samples is {shown(str(folder))}, and there is no such folder. Give a folder of pictures, or a list of pairs.")
    if (folder / "dataset_dict.json").is_file():
        raise InterpError(f"samples is {shown(str(folder))}, a data set in parts; give the folder of one of them.")
    if (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file():
        return _of_data_set(_saved_data_set(folder), prompt)
    if tables := sorted(folder.rglob("*.parquet")):
        return _of_parquet(folder, tables, prompt)
    if table := next((folder / name for name in _METADATA if (folder / name).is_file()), None):
        rows = _metadata(table)
        return Samples(lambda: _of_rows(folder, rows, prompt), len(rows))
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    if not files:
        raise InterpError(
            f"samples is {shown(str(folder))}, a folder without pictures ({', '.join(PICTURES)}), parquet files or a data set."
        )
    return Samples(
        lambda: (Sample(path.relative_to(folder).as_posix(), path, prompt, path=str(path)) for path in files),
        len(files),
    )


def _metadata(file: Path) -> list[dict[str, Any]]:
    """The rows of an imagefolder's table."""
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened)) if file.suffix == ".csv" else [json.loads(line) for line in opened if line.strip()]
    except (OSError, ValueError, csv.Error) as error:
        raise InterpError(f"The table of samples, {shown(str(file))}, cannot be read ({error}).") from error
    if not rows or not all(isinstance(row, dict) and isinstance(row.get("file_name"), str) for row in rows):
        raise InterpError(f"The table of samples, {shown(str(file))}, needs rows with a `file_name`, the picture's path beside the table.")
    return rows


def _of_rows(folder: Path, rows: Iterable[Mapping[str, Any]], prompt: str) -> Iterator[Sample]:
    unique = Unique()
    for row in rows:
        path = _inside(folder, row["file_name"])
        yield Sample(unique(row.get("id") or row["file_name"]), path, _asked(row, prompt), path=str(path))


def _inside(folder: Path, name: str) -> Path:
    """A file that a table names. Raises InterpError where it would lead out of the folder: the table may be a stranger's."""
    path = folder / text("The name of a picture of samples", name, LONGEST_PATH)
    if "\0" in name or not path.resolve().is_relative_to(folder.resolve()):
        raise InterpError(f"A table of samples names {shown(name)}, which lies outside of its folder {shown(str(folder))}.")
    return path


def _of_parquet(folder: Path, tables: Sequence[Path], prompt: str) -> Samples:
    try:
        schemas = [parquet.read_schema(table) for table in tables]
        count = sum(parquet.read_metadata(table).num_rows for table in tables)
    except (OSError, pa.ArrowException) as error:
        raise InterpError(f"The parquet files of samples, {shown(str(folder))}, cannot be read ({error}).") from error
    columns = [next((field.name for field in schema if _holds_pictures(field)), None) for schema in schemas]
    if None in columns:
        raise InterpError(
            f"The parquet files of samples, {shown(str(folder))}, have no column of pictures, as bytes or as datasets stores them "
            f"({{bytes, path}}); their columns are {', '.join(schemas[columns.index(None)].names)}."
        )

    def read() -> Iterator[Sample]:
        unique = Unique()
        number = 0
        for table, column in zip(tables, columns, strict=True):
            for batch in parquet.ParquetFile(table).iter_batches(batch_size=_ROWS):
                for row in batch.to_pylist():
                    yield _from_row(row, str(column), number, prompt, unique, folder)
                    number += 1

    return Samples(read, count)


def _holds_pictures(field: Any) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _saved_data_set(folder: Path) -> Any:
    try:
        import datasets  # noqa: PLC0415 - not needed for any other source, and slow to import
    except ImportError as error:
        raise InterpError(f"samples is {shown(str(folder))}, saved by the package datasets: install it (pip install datasets).") from error
    return datasets.load_from_disk(str(folder))


def _of_data_set(given: Any, prompt: str) -> Samples:
    features = dict(given.features or {})
    column = next((name for name, feature in features.items() if type(feature).__name__ == "Image"), None)
    if column is None:
        raise InterpError(f"samples is a data set without a column of pictures; its columns are {', '.join(features)}.")
    # Undecoded, so that the picture's size is checked before it is decoded.
    raw = given.cast_column(column, type(features[column])(decode=False))

    def read() -> Iterator[Sample]:
        unique = Unique()
        for number, row in enumerate(raw):
            yield _from_row(row, column, number, prompt, unique, None)

    return Samples(read, len(raw) if hasattr(raw, "__len__") else None)


def _from_row(row: Mapping[str, Any], column: str, number: int, prompt: str, unique: "Unique", folder: Path | None) -> Sample:
    value = row[column]
    stored = value if isinstance(value, Mapping) else {"bytes": value}
    data, path = stored.get("bytes"), stored.get("path") or ""
    name = next((str(row[key]) for key in _IDS if row.get(key) is not None), "") or str(number)
    if data is None and folder is not None and path:
        path = str(_inside(folder, path))
    if data is None and not path:
        raise InterpError(f"Row {number} of samples has no picture in its column {column!r}.")
    return Sample(unique(name), data if data is not None else path, _asked(row, prompt), path=path if data is None else "")


def _asked(row: Mapping[str, Any], prompt: str) -> str:
    own = next((row[name] for name in PROMPT_COLUMNS if isinstance(row.get(name), str) and row[name].strip()), None)
    return prompt if own is None else text("The prompt of one of samples", own)


class Unique:
    """Makes names unique by a number behind those that came before."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        """`name`, or with a number behind it."""
        count = self._known[name] = self._known.get(name, -1) + 1
        return f"{name}#{count}" if count else name
