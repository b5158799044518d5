"""Names that lie on a server: downloaded once, kept in the Hugging Face cache folder, read from there ever after.

Everything is bounded (bytes, unpacked bytes, seconds in all), nothing partial is taken for whole, and whatever a server does costs names
only. Knows files, rows and deadlines; what the files hold is told by a `Listing` and a `Read`.
"""

import contextlib
import gzip
import http.client
import json
import math
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from ...errors import InterpError
from .labels import INSTEAD, Label, Labels, TroubleError, count, write_whole

MAX_BYTES = 200 << 20  # downloaded for one SAE; 16 384 features with their embeddings were reported at some 35 MB
_KEPT = "llava-microscope/fetched-names/1"
_STALL = 10.0  # seconds without a byte
_RETRY = 300.0  # seconds in which a download is not tried again, so that a page without network does not wait on every click
_WHY: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((TimeoutError,), "the server is too slow"),
    ((EOFError, zlib.error, gzip.BadGzipFile, ValueError, TypeError, AttributeError), "a file arrived damaged"),
    ((FileNotFoundError,), "there is no such data set"),
    ((OSError, http.client.HTTPException), "the server cannot be reached"),
)
Row = tuple[int, str, str]  # feature, name, how it was found
Rows = dict[str, list[Row]]  # by file
Listing = Callable[[float], dict[str, int]]  # deadline → sizes of the files
Read = Callable[[str, int, float], tuple[list[Row], str]]  # file, its size, deadline → its rows and what is wrong with it

_LOCKS: dict[Path, threading.Lock] = {}
_RECENT: dict[Path, tuple[float, Rows, str]] = {}  # until when to believe it, what was read, what was missing


def fetched(where: str, path: Path, listing: Listing, read: Read, timeout: float, features: int | None) -> Labels:
    """Names from the files that `listing` lists and `read` reads, or from `path`, where what they held is kept."""
    if not 0 < timeout < math.inf:
        raise InterpError(f"timeout is {timeout!r}; it must be a number of seconds above 0.")
    with _LOCKS.setdefault(path, threading.Lock()):  # two who ask at once download once
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
    """All that can be read in `timeout` seconds beside what was kept, and why the rest cannot; what arrived whole is kept in `path`."""
    deadline = time.monotonic() + timeout
    whole, damaged = dict(kept), Rows()
    troubles: list[str] = []

    def run() -> None:
        try:
            sizes = listing(deadline)
        except Exception as error:  # noqa: BLE001 - whatever a stranger's answer does to its reader, the caller goes on without names
            troubles.append(_words(error))
            return
        for key in [key for key in sizes if key not in kept]:
            try:
                rows, flaw = read(key, sizes[key], deadline)
                (damaged if flaw else whole)[key] = rows
                troubles.extend([flaw] if flaw else [])
            except Exception as error:  # noqa: BLE001 - likewise, and the next file may be sound
                troubles.append(_words(error))

    # A daemon that nobody waits for longer: a name server, or a server that drips its headers, heeds no timeout of ours.
    thread = threading.Thread(target=run, name="names of features", daemon=True)
    thread.start()
    thread.join(timeout)
    why = "the server is too slow" if thread.is_alive() else next(iter(troubles), "")
    whole = dict(whole)
    if not why or len(whole) > len(kept):
        with contextlib.suppress(OSError):  # a full or read-only disk costs another download, no names
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps({"schema": _KEPT, "complete": not why, "files": whole}, ensure_ascii=False))
    return whole | damaged, why


def _words(error: Exception) -> str:
    if isinstance(error, TroubleError):
        return str(error)
    if code := getattr(getattr(error, "response", None), "status_code", None):  # huggingface_hub's errors
        return f"the server answered {code}"
    return next((words for kinds, words in _WHY if isinstance(error, kinds)), f"the download failed with {type(error).__name__}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The bucket never redirects; whoever does may lead to another scheme or machine."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """Refuse: the redirect becomes an HTTPError."""


def get(url: str, limit: int, deadline: float) -> bytes:
    """What lies at `url`, at most `limit` bytes of it. Raises TroubleError or OSError for anything else."""
    body = bytearray()
    try:
        with urllib.request.build_opener(_NoRedirect).open(url, timeout=min(_STALL, left(deadline))) as response:
            while chunk := response.read1(1 << 16):  # not `read`, which waits for all of them however slowly they drip
                body += chunk
                if len(body) > limit:
                    raise TroubleError("an answer is larger than it should be")
                left(deadline)
    except urllib.error.HTTPError as error:
        error.close()
        raise TroubleError(f"the server answered {error.code}") from error
    except urllib.error.URLError as error:
        raise (error.reason if isinstance(error.reason, OSError) else error) from None
    return bytes(body)


def left(deadline: float) -> float:
    """Seconds until the deadline; TimeoutError after it."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _load(path: Path) -> tuple[Rows, bool]:
    """What `_download` kept, and whether that is all; nothing from a missing or damaged file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        parts = {key: [(int(i), str(text), str(source)) for i, text, source in rows] for key, rows in data["files"].items()}
        return (parts, data["complete"] is True) if data["schema"] == _KEPT else ({}, False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}, False


def folder_of(cache: Path | None) -> Path:
    """Where names are kept: `cache`, or our place in the Hub's folder for other programs' files."""
    return Path(constants.HF_ASSETS_CACHE) / "llava-microscope" if cache is None else Path(cache)


def unnamed(why: str) -> Labels:
    """No names, and why."""
    return Labels({}, f"Names could not be fetched ({why}); {INSTEAD}")
