"""Opening pictures of any common format as upright RGB."""

import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InterpError
from ..validation import file_path, shown
from .headers import check_directories, check_encoded

MAX_PIXELS = 50_000_000
"""Width times height above which a picture is refused before it is decoded."""
MAX_FILE = 500_000_000
"""File size in bytes above which a picture is refused: more than `MAX_PIXELS` take uncompressed, in 16 bits with transparency."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
"""Formats that are decoded. Pillow has decoders for many more, which are rarely needed and check less of what a header claims."""
_ROWS = 256  # of a picture worked on at a time


class OpenedImage(NamedTuple):
    """A decoded picture, upright and in RGB, ready to be passed on."""

    image: Image.Image
    notes: tuple[str, ...]
    """How it was read, where that is not obvious, such as which frame is shown."""


Source = OpenedImage | Image.Image | np.ndarray | str | PathLike[str] | bytes


def open_image(image: Source) -> OpenedImage:
    """The picture as the models see it, upright and in RGB, and notes on how it was read. An `OpenedImage` is returned unchanged.

    Transparent parts become white, 16-bit values are scaled to 8 bits, and only the first frame of an animation is read. A numpy array is
    [height, width], [height, width, 3] or [height, width, 4], of uint8 or of floats from 0 to 1. The result shares no memory with
    `image`, and keeps only the colour profile of its metadata.

    Raises InterpError for a missing or damaged file, anything that is not a picture, and a picture of more than `MAX_PIXELS` pixels (by its
    header, before decoding).
    """
    if isinstance(image, OpenedImage):
        return image
    if isinstance(image, Image.Image):
        picture = image
    elif isinstance(image, np.ndarray):
        picture = _from_array(image)
    else:
        picture = _from_bytes(image if isinstance(image, bytes) else read_file(image))
    notes: list[str] = []
    with _decoding():
        # Not `n_frames`: a TIFF would be read to its end to count them.
        if getattr(picture, "is_animated", False) and picture.format != "PSD":
            if picture.tell():
                picture.seek(0)
            notes.append("The picture has several frames; this is the first.")
    _check_size(*picture.size)
    _check_tiles(picture)
    for block in _exif_blocks(picture):
        check_directories(block)
    with _decoding():
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    rgb = _to_rgb(upright, notes)
    profile = rgb.info.get("icc_profile")
    rgb.info = {"icc_profile": profile} if profile and picture.mode in {"RGB", "RGBA", "P"} else {}
    return OpenedImage(rgb, tuple(notes))


def read_file(path: str | PathLike[str]) -> bytes:
    """The bytes of a picture's file. Raises InterpError if it is missing or larger than `MAX_FILE`."""
    if not isinstance(path, str | PathLike):
        raise InterpError(f"A picture is {shown(path)}; give a path, a PIL image, a numpy array, or the bytes of a file.")
    path = file_path("The picture", path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device may never end
            raise InterpError(f"The picture cannot be opened: {path} is not a file.")
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError as error:
        raise InterpError(f"There is no picture at {path}.") from error
    except OSError as error:
        raise InterpError(f"The picture cannot be opened ({error}).") from error
    if len(data) > MAX_FILE:
        raise InterpError(f"The file {path} has more than {MAX_FILE / 1e6:.0f} MB, the limit for a picture. Scale it down and try again.")
    return data


def _from_bytes(data: bytes) -> Image.Image:
    check_encoded(data)
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise InterpError("The file is not a picture in a supported format. Use PNG, JPEG, WebP, AVIF, GIF, BMP or TIFF.") from error
    except Image.DecompressionBombError as error:
        raise InterpError(
            f"The picture is too large. The limit is {MAX_PIXELS / 1e6:.0f} million pixels. Scale it down and try again."
        ) from error
    except Exception as error:  # see _decoding
        raise InterpError(f"The picture cannot be opened ({error}).") from error


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a decoder may raise anything on damaged bytes, from struct.error to SyntaxError
        raise InterpError(f"The picture is damaged and cannot be decoded ({error}). Save it again as PNG or JPEG.") from error


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim not in {2, 3} or (array.ndim == 3 and array.shape[2] not in {3, 4}):
        raise InterpError(
            f"An array of shape {array.shape} is not a picture; use [height, width], [height, width, 3] or [height, width, 4]."
        )
    if array.size == 0:
        raise InterpError(f"An array of shape {array.shape} is empty: there is no picture in it.")
    _check_size(array.shape[1], array.shape[0])
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise InterpError("A picture of floats must lie between 0 and 1; divide by 255, or pass uint8.")
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise InterpError(f"A picture array must be uint8, or floats from 0 to 1; this one is {array.dtype}.")
    return Image.fromarray(array)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InterpError(
            f"The picture has {width} x {height} = {width * height / 1e6:.0f} million pixels; "
            f"the limit is {MAX_PIXELS / 1e6:.0f} million. Scale it down and try again."
        )
    if width * height == 0:
        raise InterpError(f"The picture is {width} x {height} pixels: it is empty.")


def _check_tiles(picture: Image.Image) -> None:
    """A TIFF's tiles are decoded whole, however little of them lies in the picture."""
    tags = getattr(picture, "tag_v2", {})
    with _decoding():
        pixels = tags.get(322, 0) * tags.get(323, 0)
    if pixels > MAX_PIXELS:
        raise InterpError(f"The picture's tiles have {pixels / 1e6:.0f} million pixels each; the limit is {MAX_PIXELS / 1e6:.0f} million.")


def _exif_blocks(picture: Image.Image) -> Iterator[bytes]:
    """EXIF blocks that Pillow has not parsed yet."""
    exif, written = picture.info.get("exif"), picture.info.get("Raw profile type exif")
    if isinstance(exif, bytes):
        yield exif.removeprefix(b"Exif\0\0")
    if isinstance(written, str):  # hexadecimal text, as written by ImageMagick
        with _decoding():
            yield bytes.fromhex("".join(written.split("\n")[3:])).removeprefix(b"Exif\0\0")


def _to_rgb(picture: Image.Image, notes: list[str]) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        notes.append("The picture has more than 8 bits a channel; they are scaled to 8.")
        return _scaled(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        backed = Image.new("RGBA", picture.size, "white")
        backed.alpha_composite(picture)
        if picture.getchannel("A").getextrema()[0] != 255:
            notes.append("Transparent parts are shown, and seen by the model, as white.")
        backed.info = picture.info
        return backed.convert("RGB")
    return picture.convert("RGB")


def _scaled(picture: Image.Image) -> Image.Image:
    """Grey values of more than 8 bits, scaled to 8; Pillow's own conversion clips everything above 255 to white."""
    values = np.asarray(picture)
    if not np.isfinite(values).all():
        raise InterpError("The picture holds values that are infinite or not a number. Save it again as PNG or JPEG.")
    most = float(values.max())
    top = 65535.0 if picture.mode.startswith("I") and most <= 65535 else most
    low = min(float(values.min()), 0.0)
    grey = np.empty(values.shape, dtype=np.uint8)
    for start in range(0, len(values), _ROWS):  # in double precision, which would take too much memory for the whole picture
        rows = values[start : start + _ROWS].astype(np.float64)
        grey[start : start + _ROWS] = ((rows - low) / max(top - low, 1e-9) * 255).round()
    return Image.fromarray(grey).convert("RGB")
