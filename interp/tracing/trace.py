"""One generation with everything captured: its tokens, its picture, every layer's residual stream; saved and loaded.

Knows nothing of how it was made (`recording`), and of lenses and pages.
"""

import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import InterpError
from ..validation import index, one_of
from ..vision.grids import PatchGrid, Region

if TYPE_CHECKING:
    from os import PathLike

    from ..models.vlm import Vlm

EMBED = -1
"""The pseudo-layer that enters block 0: token embeddings, and the projected picture at the image positions."""

SCHEMA = "llava-microscope/trace/1"
Kind = Literal["image", "separator", "prompt", "answer", "special"]


@dataclass(frozen=True)
class Token:
    """One position of the sequence the model saw."""

    id: int
    text: str
    """As it reads in the middle of a sentence, leading space included."""
    kind: Kind


@dataclass(frozen=True)
class Prompt:
    """The positions of a prompt and its picture, before anything is answered."""

    tokens: tuple[Token, ...]
    grids: tuple[PatchGrid, ...]

    @property
    def length(self) -> int:
        """Number of positions."""
        return len(self.tokens)

    def positions(self, *kinds: Kind) -> list[int]:
        """Positions whose token is of one of these kinds."""
        _check_kinds(kinds)
        return [i for i, token in enumerate(self.tokens) if token.kind in kinds]


@dataclass(frozen=True, eq=False)
class Trace:
    """One generation for one picture and prompt.

    T is the number of positions that entered the model: prompt + answer - 1, for the last token of the answer was never fed back. Row i of
    the states predicts `tokens[i + 1]`, and `tokens` has T + 1 entries.
    """

    image: Image.Image
    """The picture, upright and in RGB."""
    prompt: str
    answer: str
    """The generated (or given) text, without special tokens."""
    finished: bool
    """Whether the answer came to its end by itself; false where `max_new_tokens` cut it."""
    tokens: tuple[Token, ...]
    grids: tuple[PatchGrid, ...]
    views: tuple[Image.Image, ...]
    """What each grid's encoder saw, de-normalised."""
    states: torch.Tensor
    """[layers + 1, T, d] on the CPU in the model's own dtype: `EMBED` first, then the output of each block before the final norm."""
    model_name: str
    notes: tuple[str, ...] = ()
    """What had to be decided about the picture."""
    regions: tuple[Region, ...] = ()
    """Image tokens that have no place on a grid, by the part of the picture that they read."""
    _vlm: "Vlm | None" = field(default=None, repr=False)

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return self.states.shape[0] - 1

    @property
    def vlm(self) -> "Vlm":
        """The model of this trace. Raises InterpError if it was loaded from a file without one."""
        if self._vlm is None:
            raise InterpError(
                f"This trace of {self.model_name!r} was loaded without its model; use Trace.load(path, vlm=interp.load(...))."
            )
        return self._vlm

    @property
    def length(self) -> int:
        """T, the number of positions that entered the model."""
        return self.states.shape[1]

    def residual(self, layer: int) -> torch.Tensor:
        """The residual stream [T, d] after block `layer` (counted from 0; `EMBED` for what enters block 0), in the model's dtype."""
        return self.states[checked_layer(layer, self.model_name, self.n_layers) + 1]

    def positions(self, *kinds: Kind) -> list[int]:
        """Rows (0 to T - 1) whose token is of one of these kinds."""
        _check_kinds(kinds)
        return [i for i, token in enumerate(self.tokens[:-1]) if token.kind in kinds]

    def save(self, path: "str | PathLike[str]") -> None:
        """Write everything but the model into one safetensors file."""
        tensors = {"states": self.states.contiguous(), "image": _png(self.image)}
        for g, (grid, view) in enumerate(zip(self.grids, self.views, strict=True)):
            tensors |= {f"grid{g}.positions": grid.positions.contiguous(), f"grid{g}.boxes": grid.boxes, f"grid{g}.view": _png(view)}
        tensors |= {f"region{r}.positions": region.positions.contiguous() for r, region in enumerate(self.regions)}
        about = {
            "schema": SCHEMA,
            "prompt": self.prompt,
            "answer": self.answer,
            "finished": self.finished,
            "model_name": self.model_name,
            "notes": self.notes,
            "grids": [grid.name for grid in self.grids],
            "regions": [[region.name, region.box] for region in self.regions],
            "tokens": [[token.id, token.text, token.kind] for token in self.tokens],
        }
        save_file(tensors, path, metadata={"trace": json.dumps(about)})

    @classmethod
    def load(cls, path: "str | PathLike[str]", vlm: "Vlm | None" = None) -> "Trace":
        """Read what `save` wrote. `vlm`, the model it was made with, is needed for a lens, not for looking at tokens and states."""
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["trace"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, KeyError, ValueError) as error:
            raise InterpError(f"{path!s} is no saved trace ({error}).") from error
        except FileNotFoundError as error:
            raise InterpError(f"There is no trace at {path!s}.") from error
        except OSError as error:
            raise InterpError(f"The trace at {path!s} cannot be read ({error}).") from error
        if about["schema"] != SCHEMA:
            raise InterpError(f"{path!s} holds {about['schema']!r}; this version reads {SCHEMA!r}.")
        if vlm is not None and (vlm.n_layers, vlm.d_model) != (tensors["states"].shape[0] - 1, tensors["states"].shape[2]):
            raise InterpError(
                f"The trace in {path!s} was made with {about['model_name']!r} "
                f"({tensors['states'].shape[0] - 1} layers, width {tensors['states'].shape[2]}), not with {vlm.name!r} "
                f"({vlm.n_layers} layers, width {vlm.d_model})."
            )
        names = about["grids"]
        return cls(
            image=_picture(tensors["image"]),
            prompt=about["prompt"],
            answer=about["answer"],
            finished=about["finished"],
            tokens=tuple(Token(*token) for token in about["tokens"]),
            grids=tuple(PatchGrid(name, tensors[f"grid{g}.positions"], tensors[f"grid{g}.boxes"]) for g, name in enumerate(names)),
            views=tuple(_picture(tensors[f"grid{g}.view"]) for g in range(len(names))),
            states=tensors["states"],
            model_name=about["model_name"],
            notes=tuple(about["notes"]),
            regions=tuple(Region(name, tensors[f"region{r}.positions"], (*box,)) for r, (name, box) in enumerate(about.get("regions", []))),
            _vlm=vlm,
        )


def checked_layer(layer: object, model_name: str, n_layers: int) -> int:
    """The number of a layer that can be looked at, `EMBED` included."""
    return index("Layer", layer, EMBED, n_layers - 1, f"{model_name} has layers 0 to {n_layers - 1}, and {EMBED} for the input")


def _check_kinds(kinds: tuple[object, ...]) -> None:
    for kind in kinds:
        one_of("kind", kind, get_args(Kind))


def _png(image: Image.Image) -> torch.Tensor:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return torch.from_numpy(np.frombuffer(buffer.getvalue(), dtype=np.uint8).copy())


def _picture(png: torch.Tensor) -> Image.Image:
    return Image.open(io.BytesIO(png.numpy().tobytes())).convert("RGB")
