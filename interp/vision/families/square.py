"""LLaVA 1.5 and PaliGemma: one square view of the picture, cut into rows of patches, one token each."""

from typing import Any

from PIL import Image

from ..grids import WHOLE, Layout, PatchGrid, even
from ..pixels import Tensors, denormalise, expect, image_positions
from .pixtral import pixtral_layout


def llava_layout(config: Any, processor: Any, image: Image.Image, inputs: Tensors) -> Layout:
    """LLaVA 1.5 and its relatives; with a Pixtral tower, see `pixtral_layout`."""
    build = pixtral_layout if config.vision_config.model_type == "pixtral" else square_layout
    return build(config, processor, image, inputs)


def square_layout(config: Any, processor: Any, image: Image.Image, inputs: Tensors) -> Layout:
    """One grid over the square view, each patch mapped back through what the image processor did (resize, crop, pad or stretch).

    Patches are counted from the top left. Where the view is not a multiple of the patch size (384 = 27 x 14 + 6), the strip left
    over at the right and at the bottom has no token.
    """
    pixels = inputs["pixel_values"]
    view_height, view_width = pixels.shape[-2:]
    patch = config.vision_config.patch_size
    rows, cols = view_height // patch, view_width // patch
    scale_x, scale_y, offset_x, offset_y = _resize_rule(processor.image_processor, image.size, (view_width, view_height))
    positions = image_positions(config, inputs)
    expect(positions, rows * cols, f"a grid of {rows} x {cols} patches")
    grid = PatchGrid.of(
        WHOLE,
        positions.view(rows, cols),
        even(rows, (rows * patch + offset_y) / scale_y, offset_y / scale_y),
        even(cols, (cols * patch + offset_x) / scale_x, offset_x / scale_x),
        image,
    )
    return Layout((grid,), (denormalise(pixels.reshape(-1, *pixels.shape[-3:])[0], processor.image_processor),))


def _resize_rule(processor: Any, size: tuple[int, int], view: tuple[int, int]) -> tuple[float, float, float, float]:
    """(scale_x, scale_y, offset_x, offset_y), such that pixel v of the view shows pixel (v + offset) / scale of the picture."""
    width, height = size
    padding_x = padding_y = 0
    if getattr(processor, "do_pad", False):  # to a square, with the picture centred, before the resize
        side = max(size)
        padding_x, padding_y = (side - width) // 2, (side - height) // 2
        width = height = side
    resized = (width, height)
    if processor.do_resize:
        shortest = processor.size.get("shortest_edge")
        if shortest is None:
            resized = (processor.size["width"], processor.size["height"])
        else:
            longest = int(shortest * max(resized) / min(resized))
            resized = (shortest, longest) if width <= height else (longest, shortest)
    scale_x, scale_y = resized[0] / width, resized[1] / height
    # A centre crop takes the middle. Where the picture is smaller than the crop it is padded on both sides, by the same formula.
    crop_x, crop_y = (resized[0] - view[0]) // 2, (resized[1] - view[1]) // 2
    return scale_x, scale_y, crop_x - padding_x * scale_x, crop_y - padding_y * scale_y
