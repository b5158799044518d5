"""Zips of pictures from visitors: looked through before anything is unpacked, and unpacked within limits, into an empty folder."""

import contextlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from ..concepts.samples import PICTURES
from ..errors import InterpError
from ..validation import file_path, shown
from ..vision.images import open_image

MAX_ZIP = 30_000_000
"""Bytes of an uploaded zip."""
MAX_UNPACKED = 300_000_000
"""Bytes of all its pictures."""
_MAX_ENTRIES = 20  # for each picture that is allowed: folders, and what some systems add
_SYSTEM = {"__MACOSX", "Thumbs.db", "desktop.ini"}
_ENTRY = b"PK\x01\x02"  # begins each entry of a zip's table
_ENCRYPTED = 1
_BLOCK = 1 << 20
_AGAIN = "Pack the pictures again, in a zip without a password."


def unpack(file: object, folder: Path, most: int, on_picture: Callable[[int, int], None]) -> int:
    """Write the pictures of a zip into an empty folder, under their names in it; how many there are.

    Every picture is opened once, so that a damaged one is found here. `on_picture` gets those done and their number before each, and may raise.
    What an operating system adds (hidden files, __MACOSX) is passed over. Raises InterpError for what is no zip, for a zip that is encrypted, damaged, or
    over a limit (`MAX_ZIP`, `MAX_UNPACKED`, `most` pictures), for a name that leads out of the folder or stands twice, and for anything that is no
    picture. All but damage is found before anything is written.
    """
    path = file_path("The zip", file)
    with _reading():
        _check_small(path, most)
        with zipfile.ZipFile(path) as held:
            wanted = _checked(held, most)
            for number, (name, info) in enumerate(wanted.items()):
                on_picture(number, len(wanted))
                _write(held, info, folder / name)
            return len(wanted)


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """What may go wrong with a stranger's zip, in words."""
    try:
        yield
    except InterpError:  # which is a ValueError
        raise
    except zipfile.BadZipFile as error:
        raise InterpError(f"The file is no zip, or a damaged one ({error}). {_AGAIN}") from error
    except (OSError, zlib.error, LZMAError, EOFError, ValueError, RuntimeError) as error:  # the last one also for unknown ways of packing
        raise InterpError(f"The zip cannot be unpacked ({error}). {_AGAIN}") from error


def _check_small(path: Path, most: int) -> None:
    """Refuse large files and many entries before they are read: zipfile makes an object of every entry, however many there are."""
    size = path.stat().st_size
    if size > MAX_ZIP:
        raise InterpError(f"The zip has {_mb(size)}; the limit is {_mb(MAX_ZIP)}. Leave out or scale down pictures.")
    if path.read_bytes().count(_ENTRY) > _MAX_ENTRIES * most:
        raise InterpError(f"The zip has far too many entries; it must hold at most {most} pictures.")


def _checked(held: zipfile.ZipFile, most: int) -> dict[str, zipfile.ZipInfo]:
    """The pictures by their names, all of which are harmless."""
    wanted: dict[str, zipfile.ZipInfo] = {}
    for info in held.infolist():
        name = info.filename.replace("\\", "/")
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or ":" in name:
            raise InterpError(f"The zip names {shown(info.filename)}, which leads out of the folder that it is unpacked into. {_AGAIN}")
        if info.is_dir() or _SYSTEM.intersection(parts) or any(part.startswith(".") for part in parts):
            continue
        if info.flag_bits & _ENCRYPTED:
            raise InterpError(f"The zip is encrypted ({shown(info.filename)}), and there is no password here. {_AGAIN}")
        if PurePosixPath(name).suffix.lower() not in PICTURES:
            raise InterpError(f"The zip holds {shown(info.filename)}, which is no picture ({', '.join(PICTURES)}). Leave it out.")
        if name in wanted:
            raise InterpError(f"The zip holds {shown(info.filename)} twice. Give every picture a name of its own.")
        wanted[name] = info
    if not wanted:
        raise InterpError(f"The zip holds no pictures ({', '.join(PICTURES)}).")
    if len(wanted) > most:
        raise InterpError(f"The zip holds {len(wanted)} pictures; the limit is {most}. Leave some out.")
    size = sum(info.file_size for info in wanted.values())
    if size > MAX_UNPACKED:
        raise InterpError(
            f"The zip's pictures have {_mb(size)} when unpacked; the limit is {_mb(MAX_UNPACKED)}. Leave some out or scale them down."
        )
    return wanted


def _write(held: zipfile.ZipFile, info: zipfile.ZipInfo, place: Path) -> None:
    """Unpack one picture. `zipfile` never reads more of it than its entry says."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with held.open(info) as packed, place.open("xb") as out:
        while block := packed.read(_BLOCK):
            out.write(block)
    try:
        open_image(place)
    except InterpError as error:
        raise InterpError(f"{shown(info.filename)} in the zip: {error}") from error


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
