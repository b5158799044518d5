"""Feature names from a server: downloaded once, then read from the Hugging Face cache folder.

Downloads are bounded (bytes, unpacked bytes, total seconds), partial files never count as complete, and a failure costs nothing but names.
A `Listing` lists the files, a `Read` reads one.
"""

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import constants

from ...errors import InterpError
from ...files import write_whole
from ...models.hub_errors import in_short
from .labels import INSTEAD, Label, Labels, TroubleError, count

MAX_BYTES = 200 << 20  # downloaded for one SAE; 16 384 features with their embeddings were reported to take about 35 MB
_KEPT = "llava-microscope/fetched-names/1"
_RETRY = 300.0  # seconds before a download is tried again, so that an offline page does not wait on every click
Row = tuple[int, str, str]  # feature, name, how it was found
Rows = dict[str, list[Row]]  # by file
Listing = Callable[[float], dict[str, int]]  # deadline → sizes of the files
Read = Callable[[str, int, float], tuple[list[Row], str]]  # file, its size, deadline → its rows and what is wrong with it

_LOCKS: dict[Path, threading.Lock] = {}
_RECENT: dict[Path, tuple[float, Rows, str]] = {}  # valid until, rows, why some are missing


def fetched(where: str, path: Path, listing: Listing, read: Read, timeout: float, features: int | None) -> Labels:
    """Names from the files that `listing` lists and `read` reads, or from their copy in `path`."""
    if not 0 < timeout < math.inf:
        raise InterpError(f"timeout is {timeout!r}; it must be a number of seconds above 0.")
    with _LOCKS.setdefault(path, threading.Lock()):  # two callers at once download once
        until, parts, why = _RECENT.get(path, (-math.inf, {}, ""))
        if time.monotonic() >= until:
            parts, complete = _load(path)
            why = "HF_HUB_OFFLINE is set" if not complete and constants.is_offline_mode() else ""
            if not complete and not why:
                parts, why = _download(path, parts, listing, read, timeout)
                _RECENT[path] = (time.monotonic() + _RETRY, parts, why)
    names: dict[int, Label] = {}
    for part in sorted(parts, key=lambda part: (len(part), part)):  # batch-2 before batch-10
        for feature, text, source in parts[part]:
            if text and (features is None or feature < features):
                names.setdefault(feature, Label(text, source))
    if not names:
        return unnamed(why or f"none in {where}")
    return Labels(names, f"Names: {count(names, features)}, {where}" + (f"; incomplete ({why}), other {INSTEAD}" if why else ""))


def _download(path: Path, kept: Rows, listing: Listing, read: Read, timeout: float) -> tuple[Rows, str]:
    """The rows kept before plus those read within `timeout` seconds, and why any are missing. Complete files are saved in `path`."""
    deadline = time.monotonic() + timeout
    whole, damaged = dict(kept), Rows()
    troubles: list[str] = []

    def run() -> None:
        try:
            sizes = listing(deadline)
        except Exception as error:  # noqa: BLE001 - any failure costs only names
            troubles.append(_words(error))
            return
        for key in [key for key in sizes if key not in kept]:
            try:
                rows, flaw = read(key, sizes[key], deadline)
                (damaged if flaw else whole)[key] = rows
                troubles.extend([flaw] if flaw else [])
            except Exception as error:  # noqa: BLE001 - likewise, and the next file may be fine
                troubles.append(_words(error))

    # A daemon thread that can be abandoned: no timeout covers name lookup, or a server that sends headers byte by byte.
    thread = threading.Thread(target=run, name="names of features", daemon=True)
    thread.start()
    thread.join(timeout)
    why = "the server is too slow" if thread.is_alive() else next(iter(troubles), "")
    whole = dict(whole)
    if not why or len(whole) > len(kept):
        with contextlib.suppress(OSError):  # a full or read-only disk costs another download, not the names
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps({"schema": _KEPT, "complete": not why, "files": whole}, ensure_ascii=False))
    return whole | damaged, why


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, TroubleError) else in_short(error)


def _load(path: Path) -> tuple[Rows, bool]:
    """What `_download` saved, and whether it is complete; nothing if the file is missing or damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        parts = {key: [(int(i), str(text), str(source)) for i, text, source in rows] for key, rows in data["files"].items()}
        return (parts, data["complete"] is True) if data["schema"] == _KEPT else ({}, False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}, False


def folder_of(cache: Path | None) -> Path:
    """The folder for names: `cache`, or ours in the hub's assets cache."""
    return Path(constants.HF_ASSETS_CACHE) / "llava-microscope" if cache is None else Path(cache)


def unnamed(why: str) -> Labels:
    """Empty labels that say why."""
    return Labels({}, f"Names could not be fetched ({why}); {INSTEAD}")
