"""Pictures as the explaining model sees them: bright where a feature is active, dimmed elsewhere. And how pictures get into a request."""

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import InterpError
from .client import Messages

DARKEST = 0.25  # brightness of a part where the feature is not active: still recognisable


def dimmed(pictures: Sequence[tuple[Image.Image, npt.ArrayLike]]) -> list[Image.Image]:
    """One feature's pictures, each with its heat [height, width], dimmed by how active the feature is.

    The brightness rises linearly from `DARKEST`, where the feature is not active, to 1 at the largest activation in any of these pictures, so that
    both the parts of a picture and the pictures can be compared. Negative activations count as none.

    Raises InterpError for a heat of another size than its picture, values that are not finite, and a feature that is active in none of them.
    """
    heats = [np.asarray(heat, np.float32) for _, heat in pictures]
    for (picture, _), heat in zip(pictures, heats, strict=True):
        if heat.shape != (picture.height, picture.width):
            raise InterpError(f"A heat of shape {list(heat.shape)} does not fit its picture of {picture.height} by {picture.width} pixels.")
        if not np.isfinite(heat).all():
            raise InterpError("A heat holds values that are not finite.")
    peak = max((float(heat.max()) for heat in heats), default=0.0)
    if peak <= 0:
        raise InterpError("The feature is active in none of its pictures, so there is nothing to explain.")
    return [_dim(picture, heat / np.float32(peak)) for (picture, _), heat in zip(pictures, heats, strict=True)]


def _dim(picture: Image.Image, share: npt.NDArray[np.float32]) -> Image.Image:
    brightness = DARKEST + (1 - DARKEST) * share.clip(0, 1)
    return Image.fromarray(np.rint(np.asarray(picture.convert("RGB")) * brightness[:, :, None]).astype(np.uint8))


def data_url(picture: Image.Image) -> str:
    """The picture as the address of a PNG that holds itself."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def conversation(pictures: Sequence[Image.Image], text: str) -> Messages:
    """One turn of the user: pictures, then a text."""
    parts = [{"type": "image_url", "image_url": {"url": data_url(picture)}} for picture in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def pictures_in(messages: Messages) -> list[bytes]:
    """The files of the pictures in a conversation, in their order."""
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    return [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in parts if part["type"] == "image_url"]


def text_in(messages: Messages) -> str:
    """The texts of a conversation."""
    contents = [message["content"] for message in messages]
    parts = [part for content in contents for part in ([{"type": "text", "text": content}] if isinstance(content, str) else content)]
    return "\n".join(part["text"] for part in parts if part["type"] == "text")
