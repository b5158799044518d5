"""`serve-index`: put all that is known of each feature into FOLDER/index/, where it can be looked up without the model, the pictures and the cache.

pictures/NNNNN.safetensors   the pictures that some feature is most active on, in chunks of samples, and where their patches lie
features/NNNNN.safetensors   blocks of features: see `index_block.py`
said.safetensors             labels, explanations and scores, renewed by each run
index.json                   what the index is of; written last
"""

import argparse
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..concepts.state_files import packed, picture
from ..errors import InterpError
from ..files import write_whole
from ..validation import whole_number
from . import work
from .cache_files import Cache, read_tensors
from .data import CHUNK
from .feature_index import BLOCK, INDEX, SAID, SCHEMA, FeatureIndex, block_file, pictures_file
from .index_block import Tokens, neighbours_of, pictures_of, texts, words_of
from .said import said_of
from .study import Study
from .top_images import TopImages

NAME, HELP = "serve-index", "make the index that the page and interp.FeatureIndex read"
FOLDER = "index"
_RARE = 5


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--pictures", type=int, metavar="N", help="top pictures of each feature  (default: 12, or all that top-images kept)"
    )
    parser.add_argument("--neighbours", type=int, default=8, metavar="K", help="features with the most similar decoder directions")
    parser.add_argument("--words", type=int, default=8, metavar="K", help="words that a feature promotes, and suppresses; 0 needs no model")


def run(study: Study, args: argparse.Namespace) -> None:
    """Make what is not there yet, and renew labels and scores."""
    top = TopImages.open(study)
    keep = min(12, top.each) if args.pictures is None else args.pictures
    if not 1 <= keep <= top.each:
        raise InterpError(f"--pictures is {keep}; top-images kept {top.each} for each feature, so it must be from 1 to {top.each}.")
    asked = {
        "pictures": keep,
        "neighbours": whole_number("--neighbours", args.neighbours, 0, 100),
        "words": whole_number("--words", args.words, 0, 100),
    }
    cache = {name: top.cache.about[name] for name in ("module", "samples", "entries", "features", "pool")}
    folder = study.stage(FOLDER, {**asked, **{f"cache's {name}": value for name, value in cache.items()}})
    _pictures(top, folder, keep)
    _features(_Source(study, top.cache, keep, asked["neighbours"], asked["words"]), folder)
    work.once(lambda: _finish(study, top.cache, folder, asked))
    if work.state().is_main_process:
        print(FeatureIndex.open(folder).summary())  # noqa: T201 - what the command is for


def _pictures(top: TopImages, folder: Path, keep: int) -> None:
    numbers = top.cache.top["images"][:, :keep]
    wanted = numbers[numbers >= 0].unique()
    units = [work.Unit(number, pictures_file(folder, number)) for number in range(-(-top.cache.count // CHUNK))]
    for unit in work.shared(units, "chunks of pictures"):
        held = read_tensors(top.folder / f"{unit.number:05}.safetensors")
        places = torch.isin(held["numbers"], wanted).nonzero().flatten().tolist()
        work.write(unit.file, *_chunk(top.cache, held, places))


def _chunk(cache: Cache, held: dict[str, torch.Tensor], places: list[int]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The file of some pictures: those at `places` of a file of `top-images`."""
    samples = [cache.sample(int(held["numbers"][place])) for place in places]
    layouts: dict[bytes, int] = {}
    tensors: dict[str, torch.Tensor] = {}
    layout = []
    for sample in samples:
        positions = torch.cat([torch.empty(0, dtype=torch.int32), *(each.flatten().int() for each, _ in sample.grids)])
        boxes = torch.cat([torch.empty(0, 4), *(each.reshape(-1, 4).float() for _, each in sample.grids)])
        key = positions.numpy().tobytes() + boxes.numpy().tobytes()
        layout.append(layouts.setdefault(key, len(layouts)))
        tensors |= {f"positions.{layouts[key]}": positions, f"boxes.{layouts[key]}": boxes}
    tensors |= {
        "numbers": held["numbers"][places],
        "sizes": torch.tensor([[sample.width, sample.height] for sample in samples], dtype=torch.int32).reshape(-1, 2),
        "layout": torch.tensor(layout, dtype=torch.int32),
        **packed([picture(held["pictures"], held["picture_ends"], place) for place in places]),
    }
    return tensors, {"ids": json.dumps([sample.id for sample in samples])}


@dataclass(frozen=True)
class _Source:
    """What blocks of features are made of."""

    study: Study
    cache: Cache
    keep: int
    neighbours: int
    words: int

    def block(self, number: int) -> dict[str, torch.Tensor]:
        """One block."""
        sae = self.study.sae
        first, last = number * BLOCK, min((number + 1) * BLOCK, sae.d_sae) - 1
        made = pictures_of(self.cache, self.tokens, first, last, self.keep)
        if self.neighbours:
            made |= neighbours_of(sae, first, last, self.neighbours)
        if self.words:
            made |= words_of(self.study.vlm, sae, first, last, self.words)
        return made

    @functools.cached_property
    def tokens(self) -> Tokens:
        """Read when the first block is made."""
        return Tokens.of(self.cache)


def _features(source: _Source, folder: Path) -> None:
    blocks = -(-source.cache.about["features"] // BLOCK)
    units = [work.Unit(number, block_file(folder, number)) for number in range(blocks)]
    for unit in work.shared(units, f"features, {BLOCK} together"):
        work.write(unit.file, source.block(unit.number))


def _finish(study: Study, cache: Cache, folder: Path, asked: dict[str, int]) -> None:
    said = said_of(study)
    features = sorted(said)
    held = texts("said", [json.dumps(said[feature], ensure_ascii=False, allow_nan=False) for feature in features])
    work.write(folder / SAID, {"features": torch.tensor(features, dtype=torch.int64), **held})
    about: dict[str, Any] = {
        "schema": SCHEMA,
        "name": study.folder.resolve().name,
        "model": {**study.found["model"], "source": study.plan.model},
        "sae": {**study.found["sae"], "source": study.plan.sae, "picked": study.plan.layer},
        "features": cache.about["features"],
        "alive": int((cache.top["pictures"] > 0).sum()),
        "samples": cache.count,
        "pool": cache.about["pool"],
        "prompt": study.plan.prompt,
        "first": _first(cache, sorted(feature for feature in features if said[feature]["label"]), asked["pictures"]),
        **asked,
    }
    write_whole(folder / INDEX, json.dumps(about, ensure_ascii=False, indent=1) + "\n")


def _first(cache: Cache, labelled: list[int], keep: int) -> int:
    """A feature to open with: one that is strong on all of its top pictures, on few others, and has a label, as far as there is one."""
    rare = cache.top["pictures"] <= max(keep, cache.count // _RARE)
    some = [feature for feature in labelled if rare[feature]] or labelled or range(cache.about["features"])
    among = torch.tensor(some)
    return int(among[cache.top["scores"][among, keep - 1].argmax()])
