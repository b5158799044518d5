"""The example pictures of the page: `python -m interp.emoji_world.examples` redraws them, always the same."""

from PIL import Image

from ..presets import ASSETS
from .scenes import Scene, Thing, draw_picture
from .sprites import VENDORS, load_sprites
from .words import COLORS

FOLDER = ASSETS / "examples"


def _scene(color: str, *things: Thing) -> Scene:
    red, green, blue = (value / 255 for value in COLORS[color])
    return Scene(tuple(sorted(things, key=lambda thing: thing.x)), color, (red, green, blue))


def _thing(noun: str, vendor: str, x: float, y: float, size: float) -> Thing:
    return Thing(noun, VENDORS.index(vendor), x, y, size)


SCENES: dict[str, Scene] = {
    "dog-and-pizza": _scene("blue", _thing("dog", "noto", 0.30, 0.36, 0.46), _thing("pizza", "fluent-emoji", 0.72, 0.66, 0.46)),
    "three-things": _scene(
        "yellow",
        _thing("tractor", "fluent-emoji", 0.24, 0.26, 0.40),
        _thing("octopus", "noto", 0.53, 0.72, 0.42),
        _thing("umbrella", "noto-v1", 0.78, 0.28, 0.40),
    ),
    "one-owl": _scene("purple", _thing("owl", "noto", 0.5, 0.52, 0.72)),
    "two-cameras": _scene("pink", _thing("camera", "noto", 0.28, 0.34, 0.46), _thing("camera", "fluent-emoji-flat", 0.72, 0.68, 0.46)),
    "whale-at-the-border": _scene("orange", _thing("whale", "noto-v1", 0.16, 0.5, 0.5), _thing("key", "fluent-emoji-flat", 0.74, 0.3, 0.4)),
    "held-out-vendor": _scene("green", _thing("panda", "twemoji", 0.3, 0.34, 0.48), _thing("strawberry", "twemoji", 0.72, 0.66, 0.46)),
}
"""File name → scene. The last one is drawn by the vendor that training never saw."""


def main() -> None:
    """Write every example as a lossless WebP, and one wide picture whose sides the model does not see."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    sprites = load_sprites(size=144)
    for name, scene in SCENES.items():
        draw_picture(scene, sprites).save(FOLDER / f"{name}.webp", lossless=True, method=6)
    square = draw_picture(SCENES["dog-and-pizza"], sprites)
    wide = Image.new("RGB", (576, 384), COLORS["blue"])
    wide.paste(square, (96, 0))
    guitar = draw_picture(_scene("blue", _thing("guitar", "noto", 0.5, 0.5, 0.8)), sprites, side=96)
    wide.paste(guitar, (0, 250))
    wide.save(FOLDER / "outside-the-crop.webp", lossless=True, method=6)


if __name__ == "__main__":
    main()
