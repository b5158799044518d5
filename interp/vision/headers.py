"""Checks of an encoded picture before Pillow opens it, so that a small file cannot take gigabytes of memory or minutes of time.

Pillow copies every value that a TIFF or EXIF directory points to. Thousands of entries may point to the same bytes, which turns a file of one
megabyte into gigabytes of metadata, in part as soon as the file is opened. GIF comments are concatenated in quadratic time, and every scan of
a progressive JPEG is a pass over the whole picture.
"""

import struct
from collections.abc import Iterator

from ..errors import InterpError

_UNITS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes by TIFF type
_POINTERS = (0x8769, 0x8825, 0xA005)  # tags that point to a further directory: EXIF, GPS, interoperability
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COPIES = 4  # times the size of the file: in a valid one values do not overlap, so they add up to less than the file
_COMMENT = 1 << 20  # bytes of comments in a GIF
_SUB_BLOCKS = 1_000_000  # of at most 255 bytes, before a GIF's second frame
_SCANS = 500  # of a JPEG; a progressive one has about ten


def check_encoded(data: bytes) -> None:
    """Raise InterpError for an encoded picture that would take far more memory or time than its size in pixels explains."""
    if data.startswith(_TIFF):
        check_directories(data)
    elif data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith(b"GIF8"):
        _check_gif(data)
    elif data[4:8] == b"ftyp":  # AVIF: nested boxes say where its EXIF block is, but the block starts like a TIFF file
        for mark in _TIFF[:2]:
            start = data.find(mark)
            while start >= 0:
                check_directories(data, start)
                start = data.find(mark, start + 1)


def check_directories(data: bytes, start: int = 0) -> None:
    """Raise InterpError if the first TIFF directory of a file or EXIF block at `start`, and those it points to, hold too much."""
    header = data[start : start + 16]
    order = "<" if header.startswith(b"II") else ">"
    big = header[2:4] in {b"+\0", b"\0+"}
    entry, count = struct.Struct(f"{order}HH{'Q8s' if big else 'L4s'}"), struct.Struct(f"{order}{'Q' if big else 'H'}")
    offset = struct.Struct(f"{order}{'Q' if big else 'L'}")
    if len(header) < (16 if big else 8):
        return
    length = len(data) - start
    pending, done, total = [offset.unpack_from(header, 8 if big else 4)[0]], set(), 0
    while pending:
        at = pending.pop()
        if at in done or at + count.size > length:
            continue
        done.add(at)
        first = start + at + count.size
        entries = min(count.unpack_from(data, start + at)[0], (len(data) - first) // entry.size)
        for tag, kind, values, inline in entry.iter_unpack(data[first : first + entries * entry.size]):
            size = values * _UNITS.get(kind, 0)
            if size <= offset.size:
                total += size
            elif offset.unpack(inline)[0] + size > length:
                break  # where Pillow stops too
            else:
                total += size
            if tag in _POINTERS:
                pending.append(offset.unpack(inline)[0])
        if total > _COPIES * len(data):
            raise InterpError(
                f"The picture's metadata claims {total / 1e6:.0f} MB in a file of {len(data) / 1e6:.1f} MB: the file is damaged. "
                "Save it again as PNG or JPEG."
            )


def _check_jpeg(data: bytes) -> None:
    exif = b""
    for segment in _jpeg_segments(data):
        if segment.startswith(b"Exif\0\0"):
            exif += segment[6:]  # Pillow joins them
        elif segment.startswith(b"MPF\0"):
            check_directories(segment, 4)
    check_directories(exif)
    # In image data 0xFF is always followed by 0, so this counts scans, those of embedded previews included.
    if (scans := data.count(b"\xff\xda")) > _SCANS:
        raise InterpError(f"The JPEG has {scans} scans; the limit is {_SCANS}. Save it again as PNG or JPEG.")


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    """Contents of the marker segments before the first scan."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] in {0x00, 0xFF}:
            at += 1  # Pillow skips bytes between segments
            continue
        marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            return
        if 0xD0 <= marker <= 0xD9 or marker == 0x01:  # stand alone
            at += 2
            continue
        yield data[at + 4 : at + 2 + size]
        at += 2 + max(size, 2)


def _check_gif(data: bytes) -> None:
    """Walk to the second frame, as far as Pillow reads to find out whether there is one."""
    at = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    frames = comment = blocks = 0
    while at + 2 < len(data) and frames < 2:
        kind, label = data[at], data[at + 1]
        if kind == 0x3B:
            return
        if kind == 0x2C:
            frames += 1
            packed = data[at + 9] if at + 9 < len(data) else 0
            at += 11 + (3 << (packed & 7) + 1 if packed & 0x80 else 0)
        elif kind == 0x21:
            at += 2
        else:
            at += 1
            continue
        begin = at
        while at < len(data) and data[at]:
            at += 1 + data[at]
            blocks += 1
            if blocks > _SUB_BLOCKS:
                raise InterpError(f"The GIF has more than {_SUB_BLOCKS} blocks in one frame. Save it again as PNG or JPEG.")
        at += 1
        if kind == 0x21 and label == 0xFE:
            comment += at - begin
            if comment > _COMMENT:
                raise InterpError(f"The GIF has more than {_COMMENT >> 20} MB of comments. Save it again as PNG or JPEG.")
