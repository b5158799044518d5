"""LLaVA-NeXT and LLaVA-OneVision: the whole picture in one square view, then tiles of it in higher resolution."""

import math
from typing import Any

from PIL import Image

from ..grids import TILES, WHOLE, Edges, Layout, PatchGrid, even
from ..pixels import Tensors, assembled, denormalise, expect, image_positions


def llava_next_layout(config: Any, processor: Any, image: Image.Image, inputs: Tensors) -> Layout:
    """The whole picture stretched to one square view, then tiles of it without their padding, each row of tokens closed by a newline."""
    return _anyres(config, processor, image, inputs, most_tiles=None)


def llava_onevision_layout(config: Any, processor: Any, image: Image.Image, inputs: Tensors) -> Layout:
    """As for LLaVA-NeXT, but a grid over more than N tiles (`anyres_max_N`) is shrunk to about the size of N tiles."""
    return _anyres(config, processor, image, inputs, most_tiles=int(config.vision_aspect_ratio.removeprefix("anyres_max_")))


def _anyres(config: Any, processor: Any, image: Image.Image, inputs: Tensors, *, most_tiles: int | None) -> Layout:
    """Both families. The tiling is the model's own function; which patches are kept follows the model's `pack_image_features`."""
    from transformers.models.llava_next import modeling_llava_next  # noqa: PLC0415 - seconds of import

    width, height = image.size
    pixels = inputs["pixel_values"][0]
    side, patch = pixels.shape[-1], config.vision_config.patch_size
    per_tile = side // patch
    tiling: Any = modeling_llava_next.get_anyres_image_grid_shape
    down, across = tiling((height, width), config.image_grid_pinpoints, side)
    rows, cols = down * per_tile, across * per_tile
    # The processor scales the picture to fit the tiles and centres it;
    scale_x, scale_y = across * side / width, down * side / height
    if scale_x < scale_y:
        shown_width, shown_height = across * side, min(math.ceil(height * scale_x), down * side)
    else:
        shown_width, shown_height = min(math.ceil(width * scale_y), across * side), down * side
    left, top = (across * side - shown_width) // 2, (down * side - shown_height) // 2
    # the model then drops the same number of whole patches of padding on both sides.
    if width / height > cols / rows:
        cut_rows, cut_cols = (rows - int(round(height * (cols / width), 7))) // 2, 0
    else:
        cut_rows, cut_cols = 0, (cols - int(round(width * (rows / height), 7))) // 2
    kept_rows, kept_cols = rows - 2 * cut_rows, cols - 2 * cut_cols
    shrink = math.sqrt(kept_rows * kept_cols / (most_tiles * per_tile**2)) if most_tiles else 1.0
    shrunk = (int(kept_rows // shrink), int(kept_cols // shrink)) if shrink > 1.1 else (kept_rows, kept_cols)

    positions = image_positions(config, inputs)
    base = per_tile**2
    expect(positions, base + shrunk[0] * (shrunk[1] + 1), f"{base} patches of the whole and {shrunk[0]} x {shrunk[1]} of the tiles")
    whole = PatchGrid.of(
        WHOLE,
        positions[:base].view(per_tile, per_tile),
        even(per_tile, per_tile * patch * height / side),  # pixels beyond the last whole patch have no token
        even(per_tile, per_tile * patch * width / side),
        image,
    )

    if 0 in shrunk:  # nothing is left of a very long picture: the model drops even rows that show some of it
        return Layout((whole,), (denormalise(pixels[0], processor.image_processor),))

    def edges(count: int, kept: int, cut: int, start: int, scale: float) -> Edges:
        cuts = [(cut + a, cut + b) for a, b in even(count, kept)]
        return [((_begin(a, per_tile, side, patch) - start) / scale, (_end(b, per_tile, side, patch) - start) / scale) for a, b in cuts]

    tiles = PatchGrid.of(
        TILES,
        positions[base:].view(shrunk[0], shrunk[1] + 1)[:, :-1],
        edges(shrunk[0], kept_rows, cut_rows, top, shown_height / height),
        edges(shrunk[1], kept_cols, cut_cols, left, shown_width / width),
        image,
    )
    seen = assembled(pixels[1 : 1 + down * across, :, : per_tile * patch, : per_tile * patch], down, across)
    seen = seen[:, cut_rows * patch : (rows - cut_rows) * patch, cut_cols * patch : (cols - cut_cols) * patch]
    return Layout((whole, tiles), tuple(denormalise(view, processor.image_processor) for view in (pixels[0], seen)))


def _begin(patches: float, per_tile: int, side: int, patch: int) -> float:
    """The pixel of the canvas where patch number `patches` (may be a fraction) begins. Tiles may be wider than their patches together."""
    tile = int(patches // per_tile)
    return tile * side + (patches - tile * per_tile) * patch


def _end(patches: float, per_tile: int, side: int, patch: int) -> float:
    """The pixel of the canvas where the patch before number `patches` ends."""
    tile = math.ceil(patches / per_tile) - 1
    return tile * side + (patches - tile * per_tile) * patch
