"""Pictures of every kind, made into one upright RGB picture. Knows nothing of models or patches."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InterpError

MAX_PIXELS = 50_000_000
"""Width times height above which a picture is refused before it is decoded."""


class OpenedImage(NamedTuple):
    """A picture that was opened once and is handed on: decoded, upright, in RGB."""

    image: Image.Image
    notes: tuple[str, ...]
    """What had to be decided on the way, such as which frame is shown."""


def open_image(image: OpenedImage | Image.Image | np.ndarray | str | PathLike[str] | bytes) -> OpenedImage:
    """The picture as the models see it, upright and in RGB, and notes on what had to be decided. One that is open already is returned as it is.

    Transparency is laid on white, 16-bit greys are scaled to 8 bits, of an animation the first frame is taken. A numpy array is
    [height, width], [height, width, 3] or [height, width, 4], of uint8 or of floats from 0 to 1.

    Raises InterpError for a missing file, bytes that are no picture, and more than `MAX_PIXELS` pixels (by the header, before decoding).
    """
    if isinstance(image, OpenedImage):
        return image
    if isinstance(image, Image.Image):
        picture = image
    elif isinstance(image, np.ndarray):
        picture = _from_array(image)
    else:
        picture = _from_file(image)
    notes = []
    with _decoding():
        frames = getattr(picture, "n_frames", 1)
        if frames > 1:
            picture.seek(0)
            notes.append(f"The picture has {frames} frames; this is the first.")
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise InterpError(
            f"The picture has {width} x {height} = {width * height / 1e6:.0f} million pixels; "
            f"the limit is {MAX_PIXELS / 1e6:.0f} million. Scale it down and try again."
        )
    if width * height == 0:
        raise InterpError(f"The picture is {width} x {height} pixels: there is nothing in it.")
    with _decoding():
        picture.load()
        picture = ImageOps.exif_transpose(picture)
    return OpenedImage(_to_rgb(picture, notes), tuple(notes))


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a decoder that meets spoiled bytes raises anything, from struct.error to SyntaxError
        raise InterpError(f"The picture is damaged and cannot be decoded ({error}). Save it again as PNG or JPEG.") from error


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim not in {2, 3} or (array.ndim == 3 and array.shape[2] not in {3, 4}):
        raise InterpError(f"An array of shape {array.shape} is no picture; use [height, width], [height, width, 3] or [height, width, 4].")
    if array.size == 0:
        raise InterpError(f"An array of shape {array.shape} is empty: there is no picture in it.")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise InterpError("A picture of floats must lie between 0 and 1; divide by 255, or pass uint8.")
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise InterpError(f"A picture array must be uint8, or floats from 0 to 1; this one is {array.dtype}.")
    return Image.fromarray(array)


def _from_file(source: str | PathLike[str] | bytes) -> Image.Image:
    if not isinstance(source, str | PathLike | bytes):
        raise InterpError(f"A {type(source).__name__} is no picture. Give a path, a PIL image, a numpy array, or the bytes of a file.")
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else Path(source))
    except FileNotFoundError as error:
        raise InterpError(f"There is no picture at {source!s}.") from error
    except UnidentifiedImageError as error:
        raise InterpError("These bytes are no picture that can be read. Use PNG, JPEG, WebP, GIF, BMP or TIFF.") from error
    except Image.DecompressionBombError as error:
        raise InterpError(f"The picture is too large ({error}). The limit is {MAX_PIXELS / 1e6:.0f} million pixels.") from error
    except Exception as error:  # see _decoding
        raise InterpError(f"The picture cannot be opened ({error}).") from error


def _to_rgb(picture: Image.Image, notes: list[str]) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        # PIL's own conversion clips everything above 255 to white.
        values = np.asarray(picture, dtype=np.float64)
        if not np.isfinite(values).all():
            raise InterpError("The picture holds values that are infinite or not a number. Save it again as PNG or JPEG.")
        top = 65535.0 if picture.mode.startswith("I") and values.max() <= 65535 else float(values.max())
        notes.append("The picture has more than 8 bits a channel; they were scaled to 8.")
        low = min(float(values.min()), 0.0)
        scaled = (values - low) / max(top - low, 1e-9) * 255
        return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        backed = Image.new("RGBA", picture.size, "white")
        backed.alpha_composite(picture)
        if picture.getchannel("A").getextrema()[0] != 255:
            notes.append("Transparent parts are shown, and seen by the model, as white.")
        return backed.convert("RGB")
    return picture.convert("RGB")
