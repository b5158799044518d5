"""One generation with everything captured, and a cache of such traces.

`record` runs the model once with a key-value cache and keeps the residual stream of every position that entered it. Knows where the decoder's
layers are from `Vlm`; knows nothing of lenses and pages.
"""

import contextlib
import functools
import hashlib
import io
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from .errors import InterpError
from .grids import Layout, PatchGrid, Region
from .images import open_image

if TYPE_CHECKING:
    from os import PathLike
    from types import TracebackType

    from .model import Inputs, Vlm

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
    def layers(self) -> int:
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
        if not EMBED <= layer < self.layers:
            raise InterpError(
                f"Layer {layer} does not exist: {self.model_name} has layers 0 to {self.layers - 1}, and {EMBED} for the input."
            )
        return self.states[layer + 1]

    def positions(self, *kinds: Kind) -> list[int]:
        """Rows (0 to T - 1) whose token is of one of these kinds."""
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
        if vlm is not None and (vlm.depth, vlm.width) != (tensors["states"].shape[0] - 1, tensors["states"].shape[2]):
            raise InterpError(
                f"The trace in {path!s} was made with {about['model_name']!r} "
                f"({tensors['states'].shape[0] - 1} layers, width {tensors['states'].shape[2]}), not with {vlm.name!r} "
                f"({vlm.depth} layers, width {vlm.width})."
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


def _png(image: Image.Image) -> torch.Tensor:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return torch.from_numpy(np.frombuffer(buffer.getvalue(), dtype=np.uint8).copy())


def _picture(png: torch.Tensor) -> Image.Image:
    return Image.open(io.BytesIO(png.numpy().tobytes())).convert("RGB")


class _Recorder:
    """Hooks that write each layer's residual stream into one tensor, step by step, and are gone afterwards."""

    def __init__(self, vlm: "Vlm", capacity: int) -> None:
        self._layers = vlm.layers
        self._capacity = capacity
        self._states: torch.Tensor | None = None
        self._filled = [0] * (len(vlm.layers) + 1)
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        def enter(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._write(0, args[0] if args else kwargs["hidden_states"])

        self._handles.append(self._layers[0].register_forward_pre_hook(enter, with_kwargs=True))
        for index, layer in enumerate(self._layers, 1):

            def leave(_module: Any, _args: Any, output: Any, index: int = index) -> None:
                self._write(index, output if isinstance(output, torch.Tensor) else output[0])

            self._handles.append(layer.register_forward_hook(leave))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None") -> None:
        for handle in self._handles:
            handle.remove()

    def _write(self, index: int, hidden: torch.Tensor) -> None:
        if self._states is None:
            self._states = torch.empty(len(self._filled), self._capacity, hidden.shape[-1], dtype=hidden.dtype)
        start, count = self._filled[index], hidden.shape[1]
        self._states[index, start : start + count].copy_(hidden[0])
        self._filled[index] = start + count

    def states(self, length: int) -> torch.Tensor:
        """[layers + 1, length, d]; every layer must have been passed by exactly `length` positions."""
        if self._states is None or set(self._filled) != {length}:
            raise RuntimeError(f"hooks saw {sorted(set(self._filled))} positions where {length} entered the model")
        # A copy lets go of the room that a shorter answer did not need.
        return self._states if length == self._capacity else self._states[:, :length].clone()


class _Stream(BaseStreamer):
    """Hands the growing answer to `on_text` after each token."""

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None]) -> None:
        self._tokenizer, self._on_text = tokenizer, on_text
        self._ids: list[int] | None = None

    def put(self, value: torch.Tensor) -> None:
        """The prompt at first, then one id at a time."""
        if self._ids is None:
            self._ids = []
            return
        self._ids.extend(value.flatten().tolist())
        self._on_text(self._tokenizer.decode(self._ids, skip_special_tokens=True).strip())

    def end(self) -> None:
        """Nothing is left to hand over."""


def record(
    vlm: "Vlm",
    inputs: "Inputs",
    *,
    max_new_tokens: int,
    answer: str | torch.Tensor | None = None,
    on_text: Callable[[str], None] | None = None,
) -> Trace:
    """Run the model once on prepared inputs and keep every layer. See `Vlm.trace`. A forced answer may be given as ids, its end included."""
    prompt_ids = inputs.tensors["input_ids"]
    length = prompt_ids.shape[1]
    tokenizer = vlm.tokenizer
    vlm.check_length(length, max_new_tokens if answer is None else 0)
    with vlm.lock, plainly(vlm), torch.inference_mode():
        if answer is None:
            with _Recorder(vlm, length + max_new_tokens - 1) as recorder:
                ids = vlm.model.generate(
                    **inputs.tensors,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    streamer=_Stream(tokenizer, on_text) if on_text else None,
                )[0]
        else:
            forced = vlm.answer_ids(inputs, answer) if isinstance(answer, str) else answer
            ids = torch.cat([prompt_ids[0], forced.to(prompt_ids.device)])
            vlm.check_length(len(ids) - 1, 0)
            with _Recorder(vlm, len(ids) - 1) as recorder:
                vlm.read(inputs.tensors, ids[length:-1].tolist(), keep=1)
    states = recorder.states(len(ids) - 1)
    answer_ids = ids[length:].tolist()
    layout: Layout = inputs.layout
    return Trace(
        image=inputs.image,
        prompt=inputs.prompt,
        answer=tokenizer.decode(answer_ids, skip_special_tokens=True).strip(),
        finished=answer_ids[-1] in vlm.end_ids,
        tokens=tuple(tokens_of(vlm, ids.tolist(), layout, length)),
        grids=layout.grids,
        views=layout.views,
        states=states,
        model_name=vlm.name,
        notes=inputs.notes,
        regions=layout.regions,
        _vlm=vlm,
    )


@contextlib.contextmanager
def plainly(vlm: "Vlm") -> Iterator[None]:
    """Greedy generation without the penalties and suppressed tokens a checkpoint may ask for: the answer is what the last layer reads."""
    own = vlm.model.generation_config
    ends = sorted(vlm.end_ids) or None
    vlm.model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=own.pad_token_id, bos_token_id=own.bos_token_id)
    try:
        yield
    finally:
        vlm.model.generation_config = own


def tokens_of(vlm: "Vlm", ids: list[int], layout: Layout | None = None, prompt_length: int = 0) -> list[Token]:
    """What each id is and how it reads; those from `prompt_length` on are the answer.

    Within the picture's run of tokens, special tokens and image tokens that show no part of it (the newline behind a row of tiles) are separators.
    """
    special, texts = vlm.special_ids, vlm.vocabulary.texts
    placed = layout.placed if layout is not None else set()
    first, last = min(placed, default=0), max(placed, default=-1)
    out = []
    for position, i in enumerate(ids):
        kind: Kind = "prompt" if position < prompt_length else "answer"
        if position in placed:
            kind = "image"
        elif position < prompt_length and i == vlm.image_token_id:
            kind = "separator"
        elif i in special:
            kind = "separator" if first < position < last else "special"
        out.append(Token(i, texts[i] if i < len(texts) else vlm.tokenizer.convert_ids_to_tokens(i), kind))
    return out


class TraceCache:
    """The most recent traces, up to a number of bytes. A second look at the same input costs no forward.

    Keyed by the model's identity and revision, the picture's content, the prompt and the generation settings. Safe for threads; two that ask
    for the same trace at once compute it once, for the model's lock makes the second wait and look again.
    """

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.max_bytes = max_bytes
        self._traces: OrderedDict[tuple[Any, ...], Trace] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self,
        vlm: "Vlm",
        image: Any,
        prompt: str,
        *,
        max_new_tokens: int = 32,
        answer: str | None = None,
        on_text: Callable[[str], None] | None = None,
        run: Callable[..., Trace] | None = None,
    ) -> Trace:
        """As `Vlm.trace`, from memory where possible. `on_text` is called once, with the whole answer, for a trace from memory.

        `run(vlm.trace, ...)` is called instead of `vlm.trace(...)` where the model is run elsewhere.
        """
        picture, notes = open_image(image)
        digest = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()
        key = (vlm.key, digest, prompt, repr(max_new_tokens), answer)  # repr: a wrong True must not find the trace of 1
        with vlm.lock:
            with self._lock:
                trace = self._traces.get(key)
                if trace is not None:
                    self._traces.move_to_end(key)
            if trace is None:
                made = functools.partial(run, vlm.trace) if run else vlm.trace
                trace = made(picture, prompt, max_new_tokens=max_new_tokens, answer=answer, on_text=on_text, notes=notes)
                self._keep(key, trace)
            elif on_text:
                on_text(trace.answer)
        return trace

    def _keep(self, key: tuple[Any, ...], trace: Trace) -> None:
        with self._lock:
            self._traces[key] = trace
            while self.nbytes > self.max_bytes and len(self._traces) > 1:
                self._traces.popitem(last=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the residual streams held now."""
        return sum(trace.states.nbytes for trace in self._traces.values())

    def __len__(self) -> int:
        return len(self._traces)
