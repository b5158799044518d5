"""Emoji drawings: sheets of tiles for each vendor, built once from the icon packages and shipped with their licences."""

import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..presets import ASSETS
from .world import EMOJI, World

SHEETS = ASSETS / "emoji"
TILE = 144  # pixels per side
COLUMNS = 12
SEEN_VENDORS = ("noto", "noto-v1", "fluent-emoji", "fluent-emoji-flat")
HELD_OUT_VENDOR = "twemoji"
VENDORS = (*SEEN_VENDORS, HELD_OUT_VENDOR)


def build_sheet(package: Path, target: Path, icon_names: Sequence[str]) -> None:
    """Render one npm icon package (`@iconify-json/<vendor>`, unpacked) into a WebP sheet, 12 tiles to a row.

    `icon_names`: comma-separated names for each tile, of which the first that the package holds is drawn. A tile without an icon stays empty.
    """
    import resvg_py  # noqa: PLC0415 - only needed to rebuild the sheets

    icons = json.loads((package / "icons.json").read_text(encoding="utf-8"))
    sheet = Image.new("RGBA", (COLUMNS * TILE, -(-len(icon_names) // COLUMNS) * TILE))
    for i, names in enumerate(icon_names):
        name = next((n for n in names.split(",") if n in icons["icons"] or n in icons.get("aliases", {})), None)
        if name is None:
            continue
        name = icons.get("aliases", {}).get(name, {}).get("parent", name)
        icon = icons["icons"][name]
        width, height = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}" width="{TILE}" height="{TILE}">{icon["body"]}</svg>'
        )
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=TILE, height=TILE))
        sheet.paste(Image.open(io.BytesIO(png)).convert("RGBA"), (i % COLUMNS * TILE, i // COLUMNS * TILE))
    sheet.save(target, lossless=True, method=6)


def load_sprites(vendors: tuple[str, ...] = VENDORS, size: int = 72, world: World = EMOJI, sheets: Path = SHEETS) -> torch.Tensor:
    """Drawings with alpha-premultiplied colour in [0, 1], each sharp and blurred: float32 [vendors, nouns, 2, 4, size, size].

    What a vendor has not drawn is taken from the first one.
    """
    drawn = torch.stack(
        [_drawn(tuple(sheets / f"{vendor}{ending}.webp" for ending in world.sheets), len(world.nouns), size) for vendor in vendors]
    )
    missing = drawn[:, :, :, 3].flatten(2).amax(-1) == 0
    for i in range(1, len(vendors)):
        drawn[i, missing[i]] = drawn[0, missing[i]]
    return drawn


@functools.lru_cache(maxsize=len(VENDORS))  # 20 to 55 MB each; a measurement draws scenes again and again
def _drawn(files: tuple[Path, ...], nouns: int, size: int) -> torch.Tensor:
    """One vendor's drawings: float32 [nouns, 2, 4, size, size]."""
    parts = []
    for file in files:
        sheet = np.asarray(Image.open(file).convert("RGBA"), dtype=np.float32) / 255
        rows = sheet.shape[0] // TILE
        parts.append(torch.from_numpy(sheet).reshape(rows, TILE, COLUMNS, TILE, 4).permute(0, 2, 4, 1, 3).reshape(-1, 4, TILE, TILE))
    tiles = torch.cat(parts)[:nouns]
    tiles = torch.cat([tiles[:, :3] * tiles[:, 3:], tiles[:, 3:]], dim=1)
    tiles = F.interpolate(tiles, size=(size, size), mode="area")
    blurred = F.interpolate(F.avg_pool2d(tiles, 2), size=(size, size), mode="bilinear")
    return torch.stack([tiles, blurred], dim=1)
