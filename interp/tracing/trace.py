"""One generation with everything captured: its tokens, its picture, the residual stream of every layer."""

from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal, cast, get_args

import torch
from PIL import Image

from ..errors import InterpError
from ..models.identity import Fingerprint, fingerprint, mismatch
from ..models.vlm import Vlm
from ..validation import index, instance, one_of
from ..vision.grids import PatchGrid, Region
from ..vision.images import open_image
from ..vision.stored import StoredImage
from .trace_file import Contents, png, read, write

EMBED = -1
"""The input of block 0 as a pseudo-layer: token embeddings, and projected image features at the image positions."""

Kind = Literal["image", "separator", "prompt", "answer", "special"]
TOKEN_KINDS: tuple[Kind, ...] = get_args(Kind)
_TOKEN_BYTES = 300  # of one Token with its text, about


@dataclass(frozen=True)
class Token:
    """One position of the sequence the model saw."""

    id: int
    text: str
    """As it reads within a sentence, leading space included."""
    kind: Kind


@dataclass(frozen=True)
class Prompt:
    """The positions of a prompt and its picture, before any answer."""

    tokens: tuple[Token, ...]
    grids: tuple[PatchGrid, ...]

    @property
    def length(self) -> int:
        """Number of positions."""
        return len(self.tokens)

    def positions(self, *kinds: Kind) -> list[int]:
        """Positions of tokens of these kinds. Raises InterpError for an unknown kind."""
        _check_kinds(kinds)
        return [i for i, token in enumerate(self.tokens) if token.kind in kinds]


@dataclass(frozen=True, eq=False)
class Trace:
    """One generation for one picture and prompt.

    T is the number of positions that entered the model: prompt + answer - 1, since the last token of the answer is never fed back. Row i of
    the states predicts `tokens[i + 1]`, so `tokens` has T + 1 entries.
    """

    image: Image.Image
    """The upright original in RGB, a new copy at each access."""
    prompt: str
    answer: str
    """The generated (or given) text, without special tokens."""
    finished: bool
    """Whether the model ended the answer; false if `max_new_tokens` cut it off."""
    tokens: tuple[Token, ...]
    grids: tuple[PatchGrid, ...]
    views: tuple[Image.Image, ...]
    """What the vision encoder saw for each grid, de-normalised; new copies at each access."""
    states: torch.Tensor
    """[layers + 1, T, d] on the CPU in the model's own dtype: `EMBED` first, then the output of each block before the final norm."""
    model_name: str
    notes: tuple[str, ...] = ()
    """How the picture was read, where that is not obvious, such as which frame is shown."""
    regions: tuple[Region, ...] = ()
    """Image tokens without a position on a grid, by the part of the picture that they read."""
    _vlm: Vlm | None = field(default=None, repr=False)
    _weights: Fingerprint | None = field(default=None, repr=False)
    """Of a saved trace: the fingerprint of its model."""

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return self.states.shape[0] - 1

    @property
    def vlm(self) -> Vlm:
        """The model of this trace. Raises InterpError for a trace that was loaded without one."""
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
        """Rows (0 to T - 1) of tokens of these kinds. Raises InterpError for an unknown kind."""
        _check_kinds(kinds)
        return [i for i, token in enumerate(self.tokens[:-1]) if token.kind in kinds]

    @property
    def answer_start(self) -> int:
        """Position of the first answer token, which row `answer_start` - 1 emits."""
        return next((i for i, token in enumerate(self.tokens) if token.kind == "answer"), len(self.tokens) - 1)

    @property
    def image_size(self) -> tuple[int, int]:
        """Width and height of `image`, without decoding it."""
        return self._stored_image.size

    @property
    def nbytes(self) -> int:
        """Bytes that this trace holds, without its model."""
        grids: int = sum(grid.positions.nbytes + grid.boxes.nbytes for grid in self.grids)
        regions: int = sum(region.positions.nbytes for region in self.regions)
        pictures: int = self._stored_image.nbytes + sum(view.nbytes for view in vars(self)["views"])
        states: int = self.states.untyped_storage().nbytes()  # the whole storage stays alive
        return states + grids + regions + pictures + _TOKEN_BYTES * len(self.tokens)

    @property
    def version(self) -> tuple[int, ...]:
        """Changes when a tensor of this trace is changed in place, as far as torch counts it (not through numpy or `.data`)."""
        tensors = [self.states, *(tensor for grid in self.grids for tensor in (grid.positions, grid.boxes))]
        tensors += [region.positions for region in self.regions]
        return tuple(0 if tensor.is_inference() else tensor._version for tensor in tensors)  # noqa: SLF001 - there is no public name for it

    def store_image_as(self, file: bytes) -> None:
        """Store `image` as the file it was read from, if that is much smaller than its pixels."""
        vars(self)["image"] = self._stored_image.as_file(file)

    @property
    def _stored_image(self) -> StoredImage:
        stored: StoredImage = vars(self)["image"]
        return stored

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything but the model into one safetensors file. Raises InterpError if it cannot be written."""
        contents = Contents(
            image=png(self.image),
            prompt=self.prompt,
            answer=self.answer,
            finished=self.finished,
            tokens=[(token.id, token.text, token.kind) for token in self.tokens],
            grids=self.grids,
            views=self.views,
            states=self.states,
            model_name=self.model_name,
            notes=self.notes,
            regions=self.regions,
            weights=self._weights if self._vlm is None else fingerprint(self._vlm),
        )
        write(path, contents)

    @classmethod
    def load(cls, path: str | PathLike[str], vlm: Vlm | None = None) -> "Trace":
        """Read what `save` wrote. Tokens and states can be used without `vlm`, the model of the trace; a lens needs it.

        Raises InterpError for a missing or damaged file, and for a `vlm` that is not the trace's model, even if it is of the same size.
        """
        if vlm is not None:
            instance("vlm", vlm, Vlm, "a Vlm, as interp.load(...) returns")
        found = read(path, TOKEN_KINDS)
        if vlm is not None:
            _check_model(str(path), found, vlm)
        trace = cls(
            image=open_image(found.image).image,
            prompt=found.prompt,
            answer=found.answer,
            finished=found.finished,
            tokens=tuple(Token(number, text, cast("Kind", kind)) for number, text, kind in found.tokens),
            grids=found.grids,
            views=found.views,
            states=found.states,
            model_name=found.model_name,
            notes=found.notes,
            regions=found.regions,
            _vlm=vlm,
            _weights=found.weights,
        )
        trace.store_image_as(found.image)
        return trace


class _Pictures:
    """The fields `image` and `views`: kept as bytes and decoded at each access, so that changes to a picture never reach the trace."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, trace: Trace | None, owner: type[Trace]) -> Any:
        if trace is None:
            raise AttributeError(self._name)  # as for any other field: a class has no value of it
        kept = vars(trace)[self._name]
        return kept.open() if isinstance(kept, StoredImage) else tuple(each.open() for each in kept)

    def __set__(self, trace: Trace, value: Image.Image | tuple[Image.Image, ...]) -> None:
        kept = StoredImage.of(value) if isinstance(value, Image.Image) else tuple(map(StoredImage.of, value))
        vars(trace)[self._name] = kept


for _name in ("image", "views"):  # after the class body, where they would be taken for the fields' defaults
    setattr(Trace, _name, _Pictures(_name))


def _check_model(path: str, found: Contents, vlm: Vlm) -> None:
    """Raise InterpError unless this is the model of a saved trace, as far as can be told."""
    n_layers, d_model = len(found.states) - 1, found.states.shape[2]
    made = f"The trace in {path} was made with {found.model_name!r}"
    if (vlm.n_layers, vlm.d_model) != (n_layers, d_model):
        raise InterpError(
            f"{made} ({n_layers} layers, width {d_model}), not with {vlm.name!r} ({vlm.n_layers} layers, width {vlm.d_model}). "
            "Load it with its own model, or without one."
        )
    if found.weights is None:  # saved by an earlier version
        return
    differs = mismatch(found.weights, vlm)
    if differs or (differs == "" and found.model_name not in vlm.names):
        raise InterpError(
            f"{made}, and the weights of {vlm.name!r} differ from its own{differs and f' (such as {differs})'}. "
            "Load it with its own model, or without one."
        )


def checked_layer(layer: object, model_name: str, n_layers: int) -> int:
    """`layer` as an int, if the model has it (or it is `EMBED`)."""
    return index("Layer", layer, EMBED, n_layers - 1, f"{model_name} has layers 0 to {n_layers - 1}, and {EMBED} for the input")


def _check_kinds(kinds: tuple[object, ...]) -> None:
    for kind in kinds:
        one_of("kind", kind, TOKEN_KINDS)
