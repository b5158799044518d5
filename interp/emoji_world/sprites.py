"""Emoji drawings: one sheet of 120 tiles per vendor, built once from the icon packages and shipped with its licence."""

import io
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..presets import ASSETS
from .words import NOUNS

SHEETS = ASSETS / "emoji"
TILE = 144  # pixels per side
COLUMNS = 12
SEEN_VENDORS = ("noto", "noto-v1", "fluent-emoji", "fluent-emoji-flat")
HELD_OUT_VENDOR = "twemoji"
VENDORS = (*SEEN_VENDORS, HELD_OUT_VENDOR)


def build_sheet(package: Path, target: Path) -> None:
    """Render one npm icon package (`@iconify-json/<vendor>`, unpacked) into a lossless WebP sheet of 12 x 10 tiles."""
    import resvg_py  # noqa: PLC0415 - only needed to rebuild the sheets

    icons = json.loads((package / "icons.json").read_text(encoding="utf-8"))
    sheet = Image.new("RGBA", (COLUMNS * TILE, -(-len(NOUNS) // COLUMNS) * TILE))
    for i, (_, names) in enumerate(NOUNS):
        name = next(n for n in names.split(",") if n in icons["icons"] or n in icons.get("aliases", {}))
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


def load_sprites(vendors: tuple[str, ...] = VENDORS, size: int = 72, sheets: Path = SHEETS) -> torch.Tensor:
    """Drawings with alpha-premultiplied colour in [0, 1], each sharp and blurred: float32 [vendors, nouns, 2, 4, size, size]."""
    out = []
    for vendor in vendors:
        sheet = np.asarray(Image.open(sheets / f"{vendor}.webp").convert("RGBA"), dtype=np.float32) / 255
        rows = sheet.shape[0] // TILE
        tiles = torch.from_numpy(sheet).reshape(rows, TILE, COLUMNS, TILE, 4).permute(0, 2, 4, 1, 3)
        tiles = tiles.reshape(-1, 4, TILE, TILE)[: len(NOUNS)]
        tiles = torch.cat([tiles[:, :3] * tiles[:, 3:], tiles[:, 3:]], dim=1)
        tiles = F.interpolate(tiles, size=(size, size), mode="area")
        blurred = F.interpolate(F.avg_pool2d(tiles, 2), size=(size, size), mode="bilinear")
        out.append(torch.stack([tiles, blurred], dim=1))
    return torch.stack(out)
