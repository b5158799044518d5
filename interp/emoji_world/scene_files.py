"""Scenes as files, for tools that read folders: `python -m interp.emoji_world.scene_files --target FOLDER --scenes 2000`.

pictures/0001.png            the pictures, in order
masks/dog/0001.png.png       white where that picture shows a dog (or the colour of its background), to the pixel
truth.json                   the words of each picture, and how much of each patch every word covers
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from .architecture import CELLS, IMAGE_SIDE
from .scenes import draw, sample_scene
from .sprites import SEEN_VENDORS, load_sprites
from .words import WORDS

_VISIBLE = 0.5  # share of a pixel that a thing must cover


def write(target: Path, scenes: int, seed: str) -> None:
    """Write that many scenes of the seen vendors, as drawn; the same for the same seed. What is there already is kept."""
    pictures, rng, sprites = target / "pictures", random.Random(seed), load_sprites(SEEN_VENDORS)
    pictures.mkdir(parents=True, exist_ok=True)
    truth = {}
    for number in tqdm(range(scenes), desc="scenes", disable=None):
        scene = sample_scene(rng, range(len(SEEN_VENDORS)), augment=0.0)
        pixels, shares = draw([scene], sprites, IMAGE_SIDE, CELLS)
        name = f"{number:05}.png"
        present = (shares[0].amax(0) > 0).nonzero().flatten().tolist()
        truth[name] = {WORDS[word]: [round(share, 3) for share in shares[0, :, word].tolist()] for word in present}
        if (pictures / name).exists():
            continue
        _, covered = draw([scene], sprites, IMAGE_SIDE, IMAGE_SIDE)
        for word in present:
            _write_mask(target / "masks" / WORDS[word] / f"{name}.png", covered[0, :, word].view(IMAGE_SIDE, IMAGE_SIDE) >= _VISIBLE)
        Image.fromarray((pixels[0].permute(1, 2, 0) * 255).round().byte().numpy()).save(pictures / name)
    (target / "truth.json").write_text(json.dumps(truth), encoding="utf-8")


def _write_mask(file: Path, mask: torch.Tensor) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(mask.numpy(), 255, 0).astype(np.uint8)).save(file)


def read(target: Path, names: Sequence[str]) -> torch.Tensor:
    """How much of each patch of some pictures each of `words.WORDS` covers: float32 [pictures, patches, words]."""
    truth = json.loads((target / "truth.json").read_text(encoding="utf-8"))
    out = torch.zeros(len(names), CELLS * CELLS, len(WORDS))
    for row, name in enumerate(names):
        for word, shares in truth[name].items():
            out[row, :, WORDS.index(word)] = torch.tensor(shares)
    return out


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Write scenes as pictures, masks and truth.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--target", type=Path, required=True, help="folder to write to")
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--seed", default="study", help="scenes of training have other seeds")
    args = parser.parse_args()
    write(args.target, args.scenes, args.seed)


if __name__ == "__main__":
    main()
