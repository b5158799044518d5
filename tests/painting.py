"""Pictures with a painted patch, and what a model makes of them. Knows no family."""

import contextlib

import numpy as np
import torch

from interp.steering.generation import joined
from tests.conftest import PROMPT

BATCH = 8


class StopHereError(Exception):
    """The decoder's layers are not needed."""


@torch.inference_mode()
def image_rows(vlm, pictures, model=None):
    """What enters the decoder at the placed image positions, for pictures of one size: [pictures, image tokens, d]."""
    model = vlm.model if model is None else model
    prepared = [vlm.prepare(picture, PROMPT) for picture in pictures]
    at_image = sorted(prepared[0].layout.placed)
    caught = []

    def catch(_module, _args, kwargs):
        caught.append(kwargs["inputs_embeds"][:, at_image])
        raise StopHereError

    handle = model.get_decoder().register_forward_pre_hook(catch, with_kwargs=True)
    try:
        for start in range(0, len(prepared), BATCH):
            with contextlib.suppress(StopHereError):
                model(**joined(prepared[start : start + BATCH]))
    finally:
        handle.remove()
    return torch.cat(caught)


def inner_half(box, margin=(0, 0)):
    """The middle of a box in whole pixels, at least `margin` pixels from its border; None where nothing is left to paint."""
    left, top, right, bottom = box
    x, y = max((right - left) / 4, margin[0]), max((bottom - top) / 4, margin[1])
    inner = (int(np.ceil(left + x)), int(np.ceil(top + y)), int(right - x) - 1, int(bottom - y) - 1)
    return inner if inner[2] >= inner[0] and inner[3] >= inner[1] else None
