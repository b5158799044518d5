"""What can be asked: a frozen dataclass for each kind of question, checked once, before a model is loaded for it.

The page, a share link and the API name the same settings, so all three make the same objects from them with `of`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self, get_type_hints

from .. import validation
from ..errors import InterpError
from ..vision.images import OpenedImage, open_image

MAX_NEW_TOKENS = 256
MAX_TOP_K = 50
MAX_FEATURES = 200
MAX_TEXT = 20_000  # characters of a prompt or a name; a model's own context is shorter
Check = Callable[[str, Any], Any]
"""`check(name, value)` returns the value as it is used, or raises InterpError."""


def _picture(_name: str, value: Any) -> OpenedImage:
    if value is None:
        raise InterpError("There is no picture. Choose or upload one first.")
    return open_image(value)


def _text(name: str, value: Any) -> str:
    return validation.text(name, value, MAX_TEXT)


def _whole(low: int, high: int) -> Check:
    return lambda name, value: validation.whole_number(name, value, low, high)


def _temperature(name: str, value: Any) -> float:
    return validation.finite_number(name, value, low=0)


def _layers(name: str, value: Any) -> str:
    return validation.one_of(name, value, ("auto", "all"))


def _unless_empty(default: str) -> Check:
    """Anything, to be checked against the trace; nothing means the default."""
    return lambda _name, value: default if value is None or value == "" else value


SETTINGS = ("prompt", "model", "max_new_tokens", "temperature", "seed", "words", "sweep")
"""The settings of a `SteerRequest` that a link holds."""


def checked(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of these values that a request of this kind has, each checked. Raises InterpError for the first that is not what it must be."""
    hints = get_type_hints(kind, include_extras=True).items()
    return {name: hint.__metadata__[0](name, values[name]) for name, hint in hints if name in values}


@dataclass(frozen=True)
class _Request:
    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From values by name, those of other names ignored. See `checked`."""
        return cls(**checked(cls, values))


@dataclass(frozen=True)
class TraceRequest(_Request):
    """One generation to look into. `image` is anything `open_image` takes; `of` opens it, so that it is opened once."""

    image: Annotated[Any, _picture]
    prompt: Annotated[str, _text]
    model: Annotated[str, _text] = ""
    """Empty for the model that the app was started with."""
    max_new_tokens: Annotated[int, _whole(1, MAX_NEW_TOKENS)] = 32


@dataclass(frozen=True)
class LensRequest(TraceRequest):
    """A logit lens."""

    top_k: Annotated[int, _whole(1, MAX_TOP_K)] = 5
    layers: Annotated[str, _layers] = "auto"
    """"all", or "auto" for as many as can be read quickly."""


@dataclass(frozen=True)
class Ranking(_Request):
    """Which features of a trace are wanted, and how many."""

    sae: Annotated[str, _text] = ""
    """Empty for the model's first."""
    where: Annotated[Any, _unless_empty("image")] = "image"
    rank_by: Annotated[Any, _unless_empty("mean")] = "mean"
    top_k: Annotated[int, _whole(1, MAX_FEATURES)] = 10


@dataclass(frozen=True)
class SteerRequest(TraceRequest):
    """A steered answer beside the plain one; the edits come separately."""

    sae: Annotated[str, _text] = ""
    """Of edits that name none; empty for the model's first."""
    temperature: Annotated[float, _temperature] = 0
    """0 is greedy decoding."""
    seed: Annotated[int, _whole(0, 2**32 - 1)] = 0
    words: Annotated[str, _text] = ""
    """To watch, with commas between them."""
    sweep: Annotated[bool, validation.flag] = False
    """Whether the page runs a sweep after the pair."""

    @property
    def sampling(self) -> dict[str, Any]:
        """How answers are generated."""
        return {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature, "seed": self.seed}

    @property
    def settings(self) -> dict[str, Any]:
        """What a link holds of them, beside the picture and the edits."""
        return {name: getattr(self, name) for name in SETTINGS}
