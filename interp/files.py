"""Writing text files and tables."""

import csv
import io
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from .errors import InterpError
from .validation import file_path, shown

_FORMULA = ("=", "+", "-", "@")


def write_text(path: object, make: Callable[[], str]) -> None:
    """Write what `make` returns into the file at `path`, as UTF-8. Raises InterpError for what is no path, and where nothing can be written."""
    place = file_path("path", path)
    text = make()
    try:
        place.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InterpError(
            f"path is {shown(str(place))}, where nothing can be written ({error.strerror}). Name a file that you may write."
        ) from error


def write_whole(path: Path, text: str) -> None:
    """Write all of a file or nothing. Raises OSError."""
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    """A table as comma-separated values. Text that a spreadsheet would read as a formula gets a leading apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        writer.writerow([f"'{cell}" if isinstance(cell, str) and cell.lstrip().startswith(_FORMULA) else cell for cell in row])
    return out.getvalue()
