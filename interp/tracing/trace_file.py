"""The format of a saved trace: one safetensors file, whose metadata holds everything but tensors and pictures as JSON.

Every part is checked when read: a damaged or foreign file raises an InterpError that says what is wrong with it.
"""

import io
import json
import math
from collections.abc import Collection, Mapping
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import InterpError
from ..models.identity import fits
from ..validation import file_path, flag, text, whole_number
from ..vision.grids import Box, PatchGrid, Region
from ..vision.images import open_image

SCHEMA = "llava-microscope/trace/1"
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Contents(NamedTuple):
    """What a saved trace holds."""

    image: bytes
    """A PNG file."""
    prompt: str
    answer: str
    finished: bool
    tokens: list[tuple[int, str, str]]
    """Id, text and kind."""
    grids: tuple[PatchGrid, ...]
    views: tuple[Image.Image, ...]
    states: torch.Tensor
    model_name: str
    notes: tuple[str, ...]
    regions: tuple[Region, ...]
    weights: Mapping[str, Any] | None
    """See `models.identity.fingerprint`; None in files of earlier versions."""


class _DamagedError(Exception):
    """Part of a file is invalid."""


def write(path: str | PathLike[str], contents: Contents) -> None:
    """Write a trace. Raises InterpError if the file cannot be written."""
    file = file_path("path", path)
    tensors = {"states": contents.states.contiguous(), "image": _bytes(contents.image)}
    for g, (grid, view) in enumerate(zip(contents.grids, contents.views, strict=True)):
        tensors |= {f"grid{g}.positions": _own(grid.positions), f"grid{g}.boxes": _own(grid.boxes), f"grid{g}.view": _bytes(png(view))}
    tensors |= {f"region{r}.positions": _own(region.positions) for r, region in enumerate(contents.regions)}
    about = {
        "schema": SCHEMA,
        "prompt": contents.prompt,
        "answer": contents.answer,
        "finished": contents.finished,
        "model_name": contents.model_name,
        "notes": contents.notes,
        "grids": [grid.name for grid in contents.grids],
        "regions": [[region.name, region.box] for region in contents.regions],
        "tokens": contents.tokens,
        "weights": contents.weights,
    }
    try:
        save_file(tensors, file, metadata={"trace": json.dumps(about)})
    except (SafetensorError, OSError) as error:
        raise InterpError(
            f"The trace cannot be written to {file} ({error}). Choose a file in a folder that exists and can be written."
        ) from error


def read(path: str | PathLike[str], kinds: Collection[str]) -> Contents:
    """Read a trace; `kinds` are the valid kinds of token. Raises InterpError for a missing or invalid file."""
    file = file_path("path", path)
    try:
        with safe_open(file, framework="pt") as saved:
            about = _json((saved.metadata() or {}).get("trace"))
            return _contents(about, _Tensors(saved), kinds)
    except FileNotFoundError as error:
        raise InterpError(f"There is no trace at {file}.") from error
    except OSError as error:
        raise InterpError(f"The trace at {file} cannot be read ({error}).") from error
    except (SafetensorError, _DamagedError, InterpError) as error:
        raise InterpError(f"{file} is not a saved trace, or is damaged: {error}") from error


def png(image: Image.Image) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


class _Tensors:
    """The tensors of an open file, by name and checked."""

    def __init__(self, file: Any) -> None:
        self._file, self._names = file, set(file.keys())

    def get(self, name: str, *dtypes: torch.dtype, dimensions: int) -> torch.Tensor:
        _expect(name in self._names, f"it has no {name!r}.")
        tensor: torch.Tensor = self._file.get_tensor(name)
        sound = tensor.dtype in dtypes and tensor.dim() == dimensions and tensor.numel() > 0
        _expect(sound, f"{name!r} is {tensor.dtype} of shape {list(tensor.shape)}.")
        return tensor

    def positions(self, name: str, length: int, dimensions: int) -> torch.Tensor:
        positions = self.get(name, torch.int64, dimensions=dimensions)
        _expect(int(positions.min()) >= 0 and int(positions.max()) < length, f"{name!r} names positions outside of 0 to {length - 1}.")
        return positions

    def file(self, name: str) -> bytes:
        return self.get(name, torch.uint8, dimensions=1).numpy().tobytes()


def _json(written: str | None) -> dict[str, Any]:
    try:
        about = json.loads(written or "")
    except (ValueError, RecursionError) as error:
        raise _DamagedError("its description is not JSON.") from error
    _expect(isinstance(about, dict), "its description is not a JSON object.")
    assert isinstance(about, dict)
    schema = about.get("schema")
    _expect(schema == SCHEMA, f"it holds {schema!r}, and this version reads {SCHEMA!r}.")
    return about


def _contents(about: dict[str, Any], tensors: _Tensors, kinds: Collection[str]) -> Contents:
    states = tensors.get("states", *_DTYPES, dimensions=3)
    length = states.shape[1]
    _expect(len(states) > 1, "it has the states of no layer.")
    tokens = [_token(token, kinds) for token in _list(about, "tokens")]
    _expect(
        len(tokens) == length + 1, f"it has {len(tokens)} tokens and states of {length} positions, which belong to {length + 1} tokens."
    )
    names = [text("grids", name) for name in _list(about, "grids")]
    image = tensors.file("image")
    open_image(image)
    weights = about.get("weights")
    _expect(weights is None or fits(weights), "its weights are not samples of weights.")
    return Contents(
        image=image,
        prompt=text("prompt", about.get("prompt")),
        answer=text("answer", about.get("answer")),
        finished=flag("finished", about.get("finished")),
        tokens=tokens,
        grids=tuple(_grid(name, f"grid{g}", tensors, length) for g, name in enumerate(names)),
        views=tuple(open_image(tensors.file(f"grid{g}.view")).image for g in range(len(names))),
        states=states,
        model_name=text("model_name", about.get("model_name")),
        notes=tuple(text("notes", note) for note in _list(about, "notes")),
        regions=tuple(_region(part, f"region{r}", tensors, length) for r, part in enumerate(_list({"regions": [], **about}, "regions"))),
        weights=weights,
    )


def _token(token: Any, kinds: Collection[str]) -> tuple[int, str, str]:
    _expect(isinstance(token, list) and len(token) == 3, f"{token!r} is not a token.")
    number, piece, kind = token
    _expect(isinstance(kind, str) and kind in kinds, f"a token is of the unknown kind {kind!r}.")
    return whole_number("A token's id", number, 0), text("A token's text", piece), kind


def _grid(name: str, key: str, tensors: _Tensors, length: int) -> PatchGrid:
    positions = tensors.positions(f"{key}.positions", length, dimensions=2)
    boxes = tensors.get(f"{key}.boxes", torch.float32, dimensions=3)
    _expect(boxes.shape == (*positions.shape, 4) and bool(boxes.isfinite().all()), f"'{key}.boxes' does not fit '{key}.positions'.")
    return PatchGrid(name, positions, boxes)


def _region(part: Any, key: str, tensors: _Tensors, length: int) -> Region:
    sound = isinstance(part, list) and len(part) == 2 and isinstance(part[1], list) and len(part[1]) == 4
    _expect(sound and all(isinstance(edge, int | float) and math.isfinite(edge) for edge in part[1]), f"{part!r} is not a region.")
    left, top, right, bottom = part[1]
    box: Box = left, top, right, bottom
    return Region(text("regions", part[0]), tensors.positions(f"{key}.positions", length, dimensions=1), box)


def _list(about: dict[str, Any], name: str) -> list[Any]:
    values = about.get(name)
    _expect(isinstance(values, list), f"{name} is not a list.")
    assert isinstance(values, list)
    return values


def _expect(sound: bool, what: str) -> None:  # noqa: FBT001 - reads like an assertion
    if not sound:
        raise _DamagedError(what)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """A copy: safetensors refuses tensors that share memory."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _bytes(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
