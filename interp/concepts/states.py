"""ConceptStates: the states that were kept of many samples, in memory or in the files of a folder."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open

from ..errors import InterpError
from ..models.identity import Fingerprint, mismatch
from ..models.vlm import Vlm
from ..validation import file_path, index, instance, shown, whole_numbers
from . import state_files

Part = dict[str, torch.Tensor] | Path
"""The tensors of some samples, or the file that holds them: "layer.L" [rows, d], and "pictures", WebP files one behind the other."""


@dataclass(frozen=True)
class Sampled:
    """One sample, and what the model answered."""

    id: str
    prompt: str
    answer: str
    word: str = ""
    """The word that was looked for, as the answer spells it; "" where it was not found, or none was looked for."""
    path: str = ""
    """Of its picture, if that is a file."""


@dataclass(frozen=True, eq=False)
class ConceptStates:
    """N states of each of some layers, over many samples. See `interp.collect`."""

    model_name: str
    layers: tuple[int, ...]
    where: str
    """Which states these are, in words."""
    samples: tuple[Sampled, ...]
    """All samples, also those that have no state because their answer lacks the word."""
    sample_of: torch.Tensor
    """The sample of each state: int64 [N], ascending."""
    positions: torch.Tensor
    """Each state's position in its sequence, -1 for an average over several: int64 [N]."""
    width: int
    normed: bool = False
    """Whether the states are behind the model's final norm, as xl-vlms' features of a module "norm" are."""
    notes: tuple[str, ...] = ()
    _parts: tuple[Part, ...] = field(default=(), repr=False)
    _vlm: Vlm | None = field(default=None, repr=False)
    _weights: Fingerprint | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.sample_of)

    @property
    def vlm(self) -> Vlm:
        """The model of these states. Raises InterpError if they were loaded without one."""
        if self._vlm is None:
            raise InterpError(
                f"These states of {self.model_name!r} were loaded without their model; pass vlm=interp.load(...) when loading."
            )
        return self._vlm

    @property
    def has_model(self) -> bool:
        """Whether `vlm` is there."""
        return self._vlm is not None

    @property
    def ids(self) -> tuple[str, ...]:
        """The sample id of each state."""
        return tuple(self.samples[i].id for i in self.sample_of.tolist())

    def layer(self, layer: int | None = None) -> int:
        """`layer` if these states have it; their only one for None. Raises InterpError otherwise."""
        there_are = f"these states are of layers {', '.join(map(str, self.layers))}"
        if layer is None:
            if len(self.layers) > 1:
                raise InterpError(f"layer is None, and {there_are}: name one of them.")
            return self.layers[0]
        number = index("Layer", layer, min(self.layers), max(self.layers), there_are)
        if number not in self.layers:
            raise InterpError(f"Layer {number} does not exist: {there_are}.")
        return number

    def residual(self, layer: int | None = None) -> torch.Tensor:
        """The states of one layer (of the only one for None): float32 [N, d]."""
        name = f"layer.{self.layer(layer)}"
        parts = [_tensor(part, name).float() for part in self._parts]
        rows = torch.cat(parts) if parts else torch.empty(0, self.width)
        if rows.shape != (len(self), self.width):
            raise InterpError("The files of these states were changed since they were loaded. Load them again.")
        return rows

    def picture(self, sample: int) -> Image.Image | None:
        """A small copy of a sample's picture; None if there is none. Raises InterpError if there is no such sample."""
        data = self.picture_file(sample)
        return Image.open(io.BytesIO(data)).convert("RGB") if data else None

    def picture_file(self, sample: int) -> bytes:
        """The same as a WebP file, empty if there is none."""
        sample = index("Sample", sample, 0, len(self.samples) - 1, f"there are {len(self.samples)} samples, counted from 0")
        for part in self._parts:
            ends = _tensor(part, "picture_ends")
            if sample < len(ends):
                return state_files.picture(_tensor(part, "pictures"), ends, sample)
            sample -= len(ends)
        return b""

    def take(self, rows: Sequence[int]) -> "ConceptStates":
        """Some of the states, in memory, with their samples and no others. Rows are taken in ascending order, each once."""
        wanted = sorted(
            {index("Row", row, 0, len(self) - 1, f"there are {len(self)} states, counted from 0") for row in whole_numbers("rows", rows)}
        )
        at = torch.tensor(wanted)
        kept = sorted(set(self.sample_of[at].tolist()))
        pictures = [self.picture_file(sample) for sample in kept]
        place = {sample: i for i, sample in enumerate(kept)}
        part = {f"layer.{layer}": self.residual(layer)[at] for layer in self.layers} | state_files.packed(pictures)
        return replace(
            self,
            samples=tuple(self.samples[i] for i in kept),
            sample_of=torch.tensor([place[i] for i in self.sample_of[at].tolist()]),
            positions=self.positions[at],
            _parts=(part,),
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write them into a folder: states.json, and safetensors files. Raises InterpError where nothing can be written."""
        place = file_path("folder", folder)
        state_files.write_index(place, self._about() | {"complete": True})
        at = 0
        for number, part in enumerate(self._parts):
            tensors = {name: _tensor(part, name) for name in (*(f"layer.{layer}" for layer in self.layers), "pictures", "picture_ends")}
            count = len(tensors["picture_ends"])
            here = (self.sample_of >= at) & (self.sample_of < at + count)
            tensors |= {"sample": self.sample_of[here] - at, "position": self.positions[here]}
            state_files.write_part(place, number, tensors, [vars(sample) for sample in self.samples[at : at + count]])
            at += count
        state_files.drop_parts(place, len(self._parts))

    def _about(self) -> dict[str, Any]:
        return {
            "model": self.model_name,
            "layers": list(self.layers),
            "where": self.where,
            "width": self.width,
            "normed": self.normed,
            "notes": list(self.notes),
            "weights": self._weights,
        }

    @classmethod
    def load(cls, folder: str | os.PathLike[str], vlm: Vlm | None = None) -> "ConceptStates":
        """Read what `save`, or `interp.collect` with a folder, wrote. Tensors stay in the files until they are asked for.

        `vlm`, the model of the states, is needed to read words and to draw maps. Raises InterpError for a missing or damaged folder, and for
        a `vlm` that is not their model.
        """
        place = file_path("folder", folder)
        if vlm is not None:
            instance("vlm", vlm, Vlm, "a Vlm, as interp.load(...) returns")
        about = state_files.read_index(place)
        parts = state_files.parts(place)
        if not about["complete"]:
            raise InterpError(
                f"The states in folder {shown(str(place))} are not complete: call interp.collect again with this folder, and it goes on."
            )
        heads = [state_files.read_head(file, about) for file in parts]
        found = cls(
            model_name=about["model"],
            layers=tuple(about["layers"]),
            where=about["where"],
            samples=tuple(Sampled(**row) for head in heads for row in head.samples),
            sample_of=_joined([head.sample for head in heads], [len(head.samples) for head in heads]),
            positions=torch.cat([head.position for head in heads]) if heads else torch.empty(0, dtype=torch.int64),
            width=about["width"],
            normed=about["normed"],
            notes=tuple(about["notes"]),
            _parts=tuple(parts),
            _vlm=vlm,
            _weights=about["weights"],
        )
        if vlm is not None:
            found.check(vlm)
        return found

    def check(self, vlm: Vlm) -> None:
        """Raise InterpError unless this is the model of these states, as far as can be told."""
        instance("vlm", vlm, Vlm, "a Vlm, as interp.load(...) returns")
        if vlm.d_model != self.width or max(self.layers) >= vlm.n_layers:
            raise InterpError(
                f"These states are of {self.model_name!r} (width {self.width}, layer {max(self.layers)}), not of vlm={vlm.name!r} "
                f"({vlm.n_layers} layers, width {vlm.d_model}). Load them with their own model, or without one."
            )
        differs = None if self._weights is None else mismatch(self._weights, vlm)
        if differs:
            raise InterpError(
                f"The weights of vlm={vlm.name!r} differ from those that these states of {self.model_name!r} were made with (such as "
                f"{differs}). Load them with their own model, or without one."
            )


def _tensor(part: Part, name: str) -> torch.Tensor:
    if isinstance(part, dict):
        return part[name]
    try:
        with safe_open(part, framework="pt") as held:
            tensor: torch.Tensor = held.get_tensor(name)
            return tensor
    except OSError as error:
        raise InterpError(f"The states in {part} cannot be read any more ({error}).") from error


def _joined(local: Sequence[torch.Tensor], counts: Sequence[int]) -> torch.Tensor:
    """Sample numbers counted within each part, as numbers among all samples."""
    out, at = [], 0
    for samples, count in zip(local, counts, strict=True):
        out.append(samples + at)
        at += count
    return torch.cat(out) if out else torch.empty(0, dtype=torch.int64)
