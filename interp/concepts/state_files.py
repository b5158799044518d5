"""The folder of collected states: states.json says what they are, and each part-NNNNN.safetensors holds the states of some samples.

A part is written whole or not at all, so that a collection that was cut off can go on with the first part that is missing.
"""

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import InterpError
from ..files import write_whole
from ..models.identity import fits
from ..validation import flag, shown, text, whole_number, whole_numbers

SCHEMA = "llava-microscope/concept-states/1"
INDEX = "states.json"
SIDE = 336
"""The longest side of a stored picture, in pixels: what many models look at, so that a map can be drawn where the original is gone."""
_LARGEST = 1 << 20  # width


class Head(NamedTuple):
    """What a part says about its samples."""

    samples: list[dict[str, str]]
    sample: torch.Tensor
    """The sample of each of its states, counted within the part: int64 [rows]."""
    position: torch.Tensor
    """int64 [rows]"""


class _DamagedError(Exception):
    """Part of a folder is invalid."""


def part_file(folder: Path, number: int) -> Path:
    """The file of a part."""
    return folder / f"part-{number:05}.safetensors"


def begun(folder: Path) -> bool:
    """Whether a collection was begun in a folder."""
    try:
        return (folder / INDEX).is_file()
    except OSError:  # such as a name that is too long
        return False


def parts(folder: Path) -> list[Path]:
    """The parts there are, in order, up to the first that is missing."""
    out: list[Path] = []
    while (file := part_file(folder, len(out))).is_file():
        out.append(file)
    return out


def drop_parts(folder: Path, count: int) -> None:
    """Remove parts of an earlier collection beyond the first `count`."""
    while (file := part_file(folder, count)).is_file():
        file.unlink()
        count += 1


def webp(picture: Image.Image) -> bytes:
    """A small copy of a picture, as a WebP file."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()


def packed(pictures: Sequence[bytes]) -> dict[str, torch.Tensor]:
    """Files one behind the other, and where each ends."""
    data = np.frombuffer(b"".join(pictures), dtype=np.uint8).copy()
    ends = np.cumsum([len(picture) for picture in pictures], dtype=np.int64)
    return {"pictures": torch.from_numpy(data), "picture_ends": torch.from_numpy(ends)}


def picture(data: torch.Tensor, ends: torch.Tensor, number: int) -> bytes:
    """One of the files that `packed` joined."""
    start = int(ends[number - 1]) if number else 0
    return data[start : int(ends[number])].numpy().tobytes()


def write_part(folder: Path, number: int, tensors: Mapping[str, torch.Tensor], samples: Sequence[Mapping[str, str]]) -> Path:
    """Write the states of some samples. Raises InterpError where nothing can be written."""
    file = part_file(folder, number)
    unfinished = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished, metadata={"samples": json.dumps(list(samples))}
        )
        unfinished.replace(file)
    except (OSError, SafetensorError) as error:
        raise _unwritable(folder, error) from error
    return file


def write_index(folder: Path, about: Mapping[str, Any]) -> None:
    """Write what the states are. Raises InterpError where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / INDEX, json.dumps({"schema": SCHEMA, **about}, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: Exception) -> InterpError:
    return InterpError(f"folder is {shown(str(folder))}, where nothing can be written ({error}). Name one that you may write.")


def read_index(folder: Path) -> dict[str, Any]:
    """What states.json says, checked. Raises InterpError for a missing or damaged file."""
    try:
        about = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        _expect(isinstance(about, dict), "it is no JSON object.")
        _expect(about.get("schema") == SCHEMA, f"it holds {shown(about.get('schema'))}, and this version reads {SCHEMA!r}.")
        layers = whole_numbers("layers", about.get("layers"))
        _expect(all(-1 <= layer < _LARGEST for layer in layers), "its layers do not exist.")
        weights = about.get("weights")
        _expect(weights is None or fits(weights), "the values of its model's weights are damaged.")
        notes = about.get("notes")
        _expect(isinstance(notes, list), "its notes are no list.")
        return {
            **about,
            "model": text("model", about.get("model")),
            "layers": layers,
            "where": text("where", about.get("where")),
            "width": whole_number("width", about.get("width"), 1, _LARGEST),
            "normed": flag("normed", about.get("normed")),
            "notes": [text("notes", note) for note in notes],
            "complete": flag("complete", about.get("complete")),
            "weights": weights,
        }
    except FileNotFoundError as error:
        raise InterpError(f"folder is {shown(str(folder))}, and there is no {INDEX} in it: no states were collected there.") from error
    except (OSError, ValueError, RecursionError, _DamagedError) as error:
        raise InterpError(f"The {INDEX} in folder {shown(str(folder))} is damaged: {' '.join(str(error).split())}") from error


def read_head(file: Path, about: Mapping[str, Any]) -> Head:
    """What a part says about its samples, after a look at its tensors' shapes. Raises InterpError for a damaged file."""
    try:
        with safe_open(file, framework="pt") as held:
            samples = json.loads((held.metadata() or {}).get("samples", ""))
            names = set(held.keys())
            wanted = {*(f"layer.{layer}" for layer in about["layers"]), "sample", "position", "pictures", "picture_ends"}
            _expect(wanted <= names, f"it has no {', '.join(sorted(wanted - names))}.")
            sample, position, ends = (held.get_tensor(name) for name in ("sample", "position", "picture_ends"))
            for layer in about["layers"]:
                shape = held.get_slice(f"layer.{layer}").get_shape()
                _expect(shape == [len(sample), about["width"]], f"layer {layer} has shape {shape}.")
        keys = {"id", "prompt", "answer", "word", "path"}
        _expect(
            isinstance(samples, list)
            and all(isinstance(row, dict) and set(row) == keys and all(isinstance(v, str) for v in row.values()) for row in samples),
            "its samples are not described.",
        )
        _expect(len(ends) == len(samples) and sample.dtype == position.dtype == torch.int64, "its numbers do not fit its samples.")
        _expect(not len(sample) or (int(sample.min()) >= 0 and int(sample.max()) < len(samples)), "a state belongs to no sample.")
        return Head(samples, sample, position)
    except (OSError, ValueError, SafetensorError, RecursionError, _DamagedError) as error:
        raise InterpError(
            f"The states in folder {shown(str(file.parent))} are damaged ({file.name}): {' '.join(str(error).split())}"
        ) from error


def _expect(sound: bool, what: str) -> None:  # noqa: FBT001 - reads like an assertion
    if not sound:
        raise _DamagedError(what)
