"""Which image token is which piece of the picture: builders for families that look at a picture as one view, and the table of all families.

Follows what the image processor does to the picture (resize, centre crop, pad, stretch), from its settings and the picture's size; each rule
is held to the real processor and model classes by painting patches (tests/test_patches.py). Knows nothing of prompts and residuals.
"""

from collections.abc import Callable
from typing import Any

from .grids import Layout, PatchGrid, Region, even
from .pixels import Tensors, denormalise, expect, image_positions
from .tiles import idefics3_layout, llava_next_layout, llava_onevision_layout, molmo2_layout

Builder = Callable[[Any, Any, Any, Tensors], Layout]


def llava_layout(config: Any, processor: Any, image: Any, inputs: Tensors) -> Layout:
    """LLaVA 1.5 and its kin: one square view cut into rows of patches, one token each.

    A patch of `patch_size` pixels of the view is mapped back through the processor's steps. Patches are counted from the corner: where the
    view is no multiple of the patch (384 = 27 x 14 + 6), a strip at the right and the bottom has no token.
    """
    pixels = inputs["pixel_values"]
    view_height, view_width = pixels.shape[-2:]
    patch = config.vision_config.patch_size
    rows, cols = view_height // patch, view_width // patch
    scale_x, scale_y, offset_x, offset_y = _resize_rule(processor.image_processor, image.size, (view_width, view_height))
    positions = image_positions(config, inputs)
    expect(positions, rows * cols, f"a grid of {rows} x {cols} patches")
    grid = PatchGrid.of(
        "whole picture",
        positions.view(rows, cols),
        even(rows, (rows * patch + offset_y) / scale_y, offset_y / scale_y),
        even(cols, (cols * patch + offset_x) / scale_x, offset_x / scale_x),
        image,
    )
    return Layout((grid,), (denormalise(pixels.reshape(-1, *pixels.shape[-3:])[0], processor.image_processor),))


def _resize_rule(processor: Any, size: tuple[int, int], view: tuple[int, int]) -> tuple[float, float, float, float]:
    """(scale_x, scale_y, offset_x, offset_y) so that a view pixel v shows picture pixel (v + offset) / scale."""
    width, height = size
    padding_x = padding_y = 0
    if getattr(processor, "do_pad", False):  # to a square, the picture in its middle, before the resize
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
    # A centre crop takes the middle; where the picture is smaller than the crop, it is padded on both sides by the same rule.
    crop_x, crop_y = (resized[0] - view[0]) // 2, (resized[1] - view[1]) // 2
    return scale_x, scale_y, crop_x - padding_x * scale_x, crop_y - padding_y * scale_y


def qwen2_vl_layout(config: Any, processor: Any, image: Any, inputs: Tensors) -> Layout:
    """Qwen2-VL and Qwen2.5-VL: the picture stretched to whole patches, 2 x 2 of which are merged into one token."""
    merge, patch = config.vision_config.spatial_merge_size, config.vision_config.patch_size
    _, height, width = inputs["image_grid_thw"][0].tolist()
    rows, cols = height // merge, width // merge
    positions = image_positions(config, inputs)
    expect(positions, rows * cols, f"a grid of {rows} x {cols} merged patches")
    grid = PatchGrid.of("whole picture", positions.view(rows, cols), even(rows, image.height), even(cols, image.width), image)
    # Patches come in the order of their merge; each holds several (equal) frames.
    pieces = inputs["pixel_values"].view(rows, cols, merge, merge, 3, -1, patch, patch)[:, :, :, :, :, 0]
    view = pieces.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, height * patch, width * patch)
    return Layout((grid,), (denormalise(view, processor.image_processor),))


def gemma3_layout(config: Any, processor: Any, image: Any, inputs: Tensors) -> Layout:
    """Gemma 3: the picture stretched to a square, patches pooled to a fixed number; with pan-and-scan, crops of it in the same way."""
    tokens = config.mm_tokens_per_image
    side = round(tokens**0.5)
    positions = image_positions(config, inputs)
    pixels = inputs["pixel_values"]
    expect(positions, len(pixels) * tokens, f"{len(pixels)} views of {side} x {side} pooled patches")
    whole, *crops = positions.view(-1, side, side)
    grids = [PatchGrid.of("whole picture", whole, even(side, image.height), even(side, image.width), image)]
    for i, crop in enumerate(crops):
        # Along the longer side, in equal steps that are rounded up.
        wide = image.width >= image.height
        step = -(-max(image.size) // len(crops))
        along = even(side, min((i + 1) * step, max(image.size)), i * step)
        rows, cols = (even(side, image.height), along) if wide else (along, even(side, image.width))
        grids.append(PatchGrid.of(f"crop {i + 1} of {len(crops)}", crop, rows, cols, image))
    return Layout(tuple(grids), tuple(denormalise(view, processor.image_processor) for view in pixels))


def idefics2_layout(config: Any, processor: Any, image: Any, inputs: Tensors) -> Layout:  # noqa: ARG001 - the signature of all builders
    """Idefics2: a perceiver's latents each read the whole picture, or with splitting one of its quadrants; no grid is invented for them."""
    latents = config.perceiver_config.resampler_n_latents
    positions = image_positions(config, inputs)
    views = inputs["pixel_values"].shape[1]
    expect(positions, views * latents, f"{views} views of {latents} latents")
    width, height = image.size
    x, y = width // 2, height // 2
    whole = ("whole picture", (0.0, 0.0, float(width), float(height)))
    quadrants = [
        ("top left", (0.0, 0.0, float(x), float(y))),
        ("top right", (float(x), 0.0, float(width), float(y))),
        ("bottom left", (0.0, float(y), float(x), float(height))),
        ("bottom right", (float(x), float(y), float(width), float(height))),
    ]
    parts = [*quadrants, whole] if views > 1 else [whole]
    regions = [Region(name, rows, box) for (name, box), rows in zip(parts, positions.view(-1, latents), strict=True)]
    return Layout((), (), tuple(regions))


LAYOUTS: dict[str, Builder] = {
    "gemma3": gemma3_layout,
    "idefics2": idefics2_layout,
    "idefics3": idefics3_layout,
    "llava": llava_layout,
    "llava_next": llava_next_layout,
    "llava_onevision": llava_onevision_layout,
    "molmo2": molmo2_layout,
    "qwen2_5_vl": qwen2_vl_layout,
    "qwen2_vl": qwen2_vl_layout,
    "smolvlm": idefics3_layout,
    "vipllava": llava_layout,
}
"""config.model_type → builder. A family that is not listed is refused by `interp.Vlm`."""

_DEEP = "it adds picture features to the outputs of its first blocks too, so a layer's residual is not what left its block"
_CROSS = "it reads the picture by cross-attention: there are no image tokens in the residual stream"
REFUSED = {
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"), _DEEP),
    **dict.fromkeys(("mllama", "idefics", "flamingo"), _CROSS),
}
"""Families that are known not to fit, and why."""
