"""An index of contextual states: what the same decoder's states of known words in sentences look like, for `contextual_lens` to search.

On disk it is a folder of two files: index.safetensors (vectors, and where each comes from) and index.json (the sentences, and the model).
"""

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..devices import pick_device
from ..errors import InterpError
from ..files import write_whole
from ..models.identity import Fingerprint, mismatch
from ..models.vlm import Vlm
from ..tracing.trace import EMBED
from ..validation import LONGEST_PATH, file_path, instance, shown, text

SCHEMA = "llava-microscope/contextual-index/1"
TENSORS, ABOUT = "index.safetensors", "index.json"
ANOTHER_MODEL = "Its index was built with a model of other weights, so its readings may be off."
_PICKLE = "embeddings_cache.pt"  # one in each layer's folder of an index of LatentLens
_CONVERT = "Build one from the same sentences: python -m interp.lens.index --model NAME --text FILE --target FOLDER."


class Context(NamedTuple):
    """A word where it was read, with some of what stands before and after it."""

    before: str
    word: str
    after: str
    token: int
    """Id of its last piece, whose state stands for the word."""

    def __str__(self) -> str:
        return f"{self.before}[{self.word}]{self.after}"


@dataclass(frozen=True, eq=False)
class ContextualIndex:
    """States of one decoder on text, N entries of width d."""

    vectors: torch.Tensor
    """Unit length: bfloat16 [N, d]. The processors that multiply 16 bits fast multiply these."""
    layers: torch.Tensor
    """The layer each was read at: int64 [N]; `EMBED` (-1) is the decoder's input."""
    places: torch.Tensor
    """Which of `contexts` each was read in: int64 [N]."""
    contexts: tuple[Context, ...]
    model_name: str
    made_from: str
    """The text, in a few words."""
    weights: Fingerprint = field(repr=False)
    """Fingerprint of the decoder."""

    def __post_init__(self) -> None:
        """Raise InterpError for parts that do not fit together."""
        count = len(self.vectors)
        sound = (
            self.vectors.dim() == 2
            and count > 0
            and self.vectors.dtype == torch.bfloat16
            and self.layers.shape == self.places.shape == (count,)
            and self.layers.dtype == self.places.dtype == torch.int64
            and int(self.layers.min()) >= EMBED
            and int(self.places.min()) >= 0
            and int(self.places.max()) < len(self.contexts)
        )
        if not sound:
            raise InterpError(
                f"An index of contexts needs bfloat16 vectors [N, d] with a layer and a place among its {len(self.contexts)} contexts for each; "
                f"these are {self.vectors.dtype} {list(self.vectors.shape)} with {len(self.layers)} layers and {len(self.places)} places."
            )

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return self.vectors.nbytes + self.layers.nbytes + self.places.nbytes

    @property
    def of_layers(self) -> tuple[int, ...]:
        """The layers that it has entries of."""
        return tuple(self.layers.unique().tolist())

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """Its distinct words, in small letters: "Dog" and "dog" are one word here."""
        return tuple(dict.fromkeys(_plain(context.word) for context in self.contexts))

    @functools.cached_property
    def word_of(self) -> torch.Tensor:
        """Which of `words` each entry is: int64 [N]."""
        number = {word: i for i, word in enumerate(self.words)}
        of_context = torch.tensor([number[_plain(context.word)] for context in self.contexts])
        return of_context.to(self.places.device)[self.places]

    def entries(self, word: str) -> torch.Tensor:
        """The entries of a word, however it is capitalised: int64 [entries].

        Raises InterpError for a word without any.
        """
        plain = _plain(text("A word", word))
        if plain not in self.words:
            raise InterpError(
                f"The index of contexts has no word {shown(plain)}; it has {len(self.words)}, such as {', '.join(self.words[:5])}. "
                "Look for another, or build an index from text that has it."
            )
        return (self.word_of == self.words.index(plain)).nonzero().flatten()

    def to(self, device: str) -> "ContextualIndex":
        """The same index on a device ("cpu", "cuda", "cuda:N", "auto"), where it is then searched."""
        place = pick_device(device)
        moved = {name: getattr(self, name).to(place) for name in ("vectors", "layers", "places")}
        return replace(self, **moved)

    def check(self, vlm: Vlm) -> str:
        """What to know before trusting its readings of this model, "" for nothing. Raises InterpError for a model of another shape."""
        instance("vlm", vlm, Vlm, "a Vlm, as interp.load(...) returns")
        width, deepest = self.vectors.shape[1], int(self.layers.max())
        if width != vlm.d_model or deepest >= vlm.n_layers:
            raise InterpError(
                f"This index of contexts was made with {self.model_name} (width {width}, at least {deepest + 1} layers); {vlm.name} has width "
                f"{vlm.d_model} and {vlm.n_layers} layers. Load that model's own index, or build one: python -m interp.lens.index."
            )
        return ANOTHER_MODEL if mismatch(self.weights, vlm) else ""

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write it as index.safetensors and index.json. Raises InterpError where nothing can be written."""
        place = file_path("folder", folder)
        about = {
            "schema": SCHEMA,
            "model": self.model_name,
            "made_from": self.made_from,
            "contexts": [list(context) for context in self.contexts],
            "weights": self.weights,
        }
        # The narrowest types that hold the numbers: a small index is shipped with its model.
        tensors = {"vectors": self.vectors, "layers": self.layers.to(torch.int16), "places": self.places.to(torch.int32)}
        try:
            place.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, place / TENSORS)
            write_whole(place / ABOUT, json.dumps(about, ensure_ascii=False, separators=(",", ":")) + "\n")
        except (OSError, SafetensorError) as error:
            raise InterpError(
                f"folder is {shown(str(place))}, where nothing can be written ({error}). Name one that you may write."
            ) from error


def load_index(source: str | os.PathLike[str], *, device: str = "cpu") -> ContextualIndex:
    """Load an index of contexts from a folder that `ContextualIndex.save` or `python -m interp.lens.index` wrote.

    It is searched on `device`. The indices that LatentLens publishes are pickles, which can run code when they are read, and are refused.

    Raises InterpError for a folder that is missing, foreign or damaged.
    """
    given = os.fspath(source) if isinstance(source, str | os.PathLike) else source
    if not isinstance(given, str) or not given.strip() or "\0" in given:
        raise InterpError(f"source is {shown(source)}; it must be the folder of an index of contexts.")
    folder, place = Path(text("source", given, LONGEST_PATH)), pick_device(device)
    if not (folder / ABOUT).is_file():
        raise _none_there(folder)
    try:
        index = _read(folder)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise InterpError(f"The source {shown(str(folder))} is no index of contexts, or is damaged: {why}. {_CONVERT}") from error
    return index if place.type == "cpu" else index.to(device)


def _read(folder: Path) -> ContextualIndex:
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    if about["schema"] != SCHEMA:
        raise ValueError(f"its schema is {shown(about['schema'])}, and {SCHEMA} is read")
    with safe_open(folder / TENSORS, framework="pt") as file:
        vectors, layers, places = (file.get_tensor(name) for name in ("vectors", "layers", "places"))
    return ContextualIndex(
        vectors=vectors,
        layers=layers.to(torch.int64),
        places=places.to(torch.int64),
        contexts=tuple(_context(each) for each in about["contexts"]),
        model_name=text("model", about["model"]),
        made_from=text("made_from", about["made_from"]),
        weights=dict(about["weights"]),
    )


def _none_there(folder: Path) -> InterpError:
    """Why a folder is refused."""
    pickles = sorted(folder.glob(f"layer_*/{_PICKLE}")) + sorted(folder.glob(_PICKLE))
    if pickles:
        return InterpError(
            f"The source {shown(str(folder))} holds an index of LatentLens as pickles ({pickles[0].relative_to(folder)}), which can run code "
            f"when they are read. {_CONVERT}"
        )
    return InterpError(f"The source {shown(str(folder))} has no {ABOUT}: it is no index of contexts. {_CONVERT}")


def _context(value: Sequence[Any]) -> Context:
    before, word, after, token = value
    if not all(isinstance(part, str) for part in (before, word, after)) or type(token) is not int or token < 0:
        raise ValueError(f"{shown(value)} is no context")
    return Context(before, word, after, token)


def _plain(word: str) -> str:
    return word.strip().casefold()
