"""The journal of what a server was asked: a JSON-lines file that grows by one line an answer and survives being killed at any point."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import InterpError


@dataclass(frozen=True)
class Entry:
    """How one request ended."""

    key: str
    """The request's name."""
    answer: str = ""
    """What the model said, word for word; also where it could not be used."""
    failure: str = ""
    """Why there is no answer, or why it cannot be used; "" if all is well."""
    attempts: int = 1
    seconds: float = 0.0
    """That the last attempt took."""
    tokens_in: int = 0
    """As the server counted them; 0 if it did not."""
    tokens_out: int = 0


class Journal:
    """The entries of a file, one JSON object a line. A key's last entry counts. To be used in a `with` block, which closes the file.

    A line that a crash cut short is removed when the file is opened; its request counts as not asked.

    Raises InterpError for a file that is no journal, and where nothing can be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise InterpError(f"The journal {path} cannot be opened ({error.strerror}).") from error
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _read(self) -> None:
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                self._file.truncate(whole)
                break
            whole += len(line)
            entry = _entry(line)
            if entry is None:
                raise InterpError(f"Line {number} of {self.path} is no entry of a journal; remove that line, or the file to start again.")
            self.entries[entry.key] = entry

    def add(self, entry: Entry) -> None:
        """Append an entry; it is on the disk when this returns."""
        self._file.write(json.dumps(asdict(entry)).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.entries[entry.key] = entry

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def read_journal(path: Path) -> dict[str, Entry]:
    """The entries of a journal, which may be growing at the same time; none without such a file. Lines that are no entries are passed over."""
    if not path.is_file():
        return {}
    found = (_entry(line) for line in path.read_bytes().splitlines())
    return {entry.key: entry for entry in found if entry is not None}


_EMPTY = asdict(Entry(""))


def _entry(line: bytes) -> Entry | None:
    """The entry that a line holds, None if it holds none."""
    try:
        data = json.loads(line)
    except ValueError:
        return None
    if not isinstance(data, dict) or "key" not in data or not _EMPTY.keys() >= data.keys():
        return None
    fits = all(isinstance(value, float | int if isinstance(_EMPTY[name], float) else type(_EMPTY[name])) for name, value in data.items())
    return Entry(**data) if fits else None
