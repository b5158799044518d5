"""Requests: a frozen dataclass for each kind, checked once, before any model is loaded.

The page, share links and the API use the same names for settings, so all three build requests with `of`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_type_hints

from .. import validation
from ..errors import InterpError
from ..vision.images import OpenedImage, open_image
from ..web.payloads.lens_texts import NAMES

MAX_NEW_TOKENS = 256
MAX_TOP_K = 50
MAX_FEATURES = 200
MAX_ATTRIBUTED = 100  # each is taken away in a run of its own
MAX_STEP = 4  # of the way from one concept to another
MAX_LAYERS = 1000  # and heads of a layer; the model's own number is checked later
MAX_LEARNED = 100  # concepts
MAX_CONCEPTS = 1_000_000  # in a link; the dictionary's own number is checked later
MAX_TEXT = 20_000  # characters of a prompt or a name; a model's own context is shorter
Check = Callable[[str, Any], Any]
"""`check(name, value)` returns the value as it is used, or raises InterpError."""


def _picture(_name: str, value: Any) -> OpenedImage:
    if value is None:
        raise InterpError("No picture. Choose or upload one first.")
    return open_image(value)


def _text(name: str, value: Any) -> str:
    return validation.text(name, value, MAX_TEXT)


def _text_or_none(name: str, value: Any) -> str:
    return "" if value is None else _text(name, value)


def _whole(low: int, high: int) -> Check:
    return lambda name, value: validation.whole_number(name, value, low, high)


def _temperature(name: str, value: Any) -> float:
    return validation.finite_number(name, value, low=0)


def _step(name: str, value: Any) -> float:
    return validation.finite_number(name, value, low=0, high=MAX_STEP)


def _layers(name: str, value: Any) -> str:
    return validation.one_of(name, value, ("auto", "all"))


def _optional(check: Check) -> Check:
    """None (or "", as an empty field arrives) for all, or what `check` takes."""
    return lambda name, value: None if value is None or value == "" else check(name, value)


def _lenses(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > len(NAMES):
        raise InterpError(f"{name} must be a list of lenses.")
    return tuple(validation.one_of(name, each, tuple(NAMES)) for each in value)


def _one_of(*names: str) -> Check:
    return lambda name, value: validation.one_of(name, value, names)


def _as_it_is(_name: str, value: Any) -> Any:
    """Any value, checked later against the trace."""
    return value


def _unless_empty(default: str | None) -> Check:
    """Any value, checked later against the trace; an empty one means the default."""
    return lambda _name, value: default if value is None or value == "" else value


def _unless_blank(default: str) -> Check:
    """Text; an empty one means the default."""
    return lambda name, value: _text_or_none(name, value).strip() or default


SETTINGS = ("prompt", "model", "max_new_tokens", "temperature", "seed", "words", "sweep")
"""The settings of a `SteerRequest` that a share link stores."""


def checked(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are fields of this kind of request, checked. Raises InterpError for the first invalid one."""
    hints = get_type_hints(kind, include_extras=True).items()
    return {name: hint.__metadata__[0](name, values[name]) for name, hint in hints if name in values}


@dataclass(frozen=True)
class Request:
    """The base of all requests."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From values by name; other names are ignored. See `checked`."""
        return cls(**checked(cls, values))


@dataclass(frozen=True)
class TraceRequest(Request):
    """One generation to inspect. `image` is anything `open_image` takes; `of` opens it, so that it is opened only once."""

    image: Annotated[Any, _picture]
    prompt: Annotated[str, _text]
    model: Annotated[str, _text] = ""
    """Empty for the model the app was started with."""
    max_new_tokens: Annotated[int, _whole(1, MAX_NEW_TOKENS)] = 32


@dataclass(frozen=True)
class LensRequest(TraceRequest):
    """A lens."""

    top_k: Annotated[int, _whole(1, MAX_TOP_K)] = 5
    layers: Annotated[str, _layers] = "auto"
    """"all", or "auto" for as many as can be read quickly."""
    method: Annotated[str, _text_or_none] = ""
    """Empty for the one that the model opens with; which there are, depends on the model."""


@dataclass(frozen=True)
class LensLook(Request):
    """What a reader looks at in the lens view. All of it comes from a page or a link; whether the model has it, is checked later."""

    model: Annotated[str, _text_or_none] = ""
    method: Annotated[str, _one_of("", "activation_map", *NAMES)] = ""
    layer: Annotated[int | None, _optional(_whole(-1, MAX_LAYERS))] = None
    row: Annotated[int | None, _optional(_whole(0, 1 << 20))] = None
    """The locked position."""
    token: Annotated[int | None, _optional(_whole(0, MAX_NEW_TOKENS))] = None
    """The word of the activation map, by its number in the answer."""
    read: Annotated[tuple[str, ...], _lenses] = ()
    """The lenses that were read so far."""


@dataclass(frozen=True)
class Ranking(Request):
    """Which features of a trace to list, and how many."""

    sae: Annotated[str, _text] = ""
    """Empty for the model's first."""
    where: Annotated[Any, _unless_empty("image")] = "image"
    rank_by: Annotated[Any, _unless_empty("mean")] = "mean"
    top_k: Annotated[int, _whole(1, MAX_FEATURES)] = 10


METHODS = ("attention", "value_weighted", "rollout", "relevancy", "activation_map", "knockout")
"""The ways to make a map for a word of the answer."""


@dataclass(frozen=True)
class MapRequest(Request):
    """A map over the picture for one token of the answer."""

    token: Annotated[Any, _unless_empty("")] = ""
    """Its number in the answer, or a word that is one token of it; empty for the first content word."""
    method: Annotated[str, _one_of(*METHODS)] = "attention"
    layer: Annotated[int | None, _optional(_whole(0, MAX_LAYERS))] = None
    """With the methods "attention" and "value_weighted": None for all."""
    head: Annotated[int | None, _optional(_whole(0, MAX_LAYERS))] = None
    over: Annotated[str, _one_of("mean", "max")] = "mean"
    """How heads and layers are put together."""
    sinks: Annotated[bool, validation.flag] = False
    """Whether attention sinks count."""


@dataclass(frozen=True)
class KnockoutRequest(TraceRequest):
    """An answer whose `targets` cannot read the `sources` in some layers; see `interp.knockout`."""

    sources: Annotated[Any, _as_it_is] = None
    targets: Annotated[Any, _unless_empty("last")] = "last"
    layers: Annotated[Any, _unless_empty(None)] = None
    """None for all."""


@dataclass(frozen=True)
class AttributionRequest(Request):
    """Which word of an answer to attribute to the features of which SAE."""

    sae: Annotated[str, _text] = ""
    """Empty for the model's first."""
    token: Annotated[Any, _unless_empty("")] = ""
    """Its number in the answer, or a word that is one token of it; empty for the first content word."""
    baseline: Annotated[str, _text_or_none] = ""
    """The word it is compared with; empty for the likeliest other one there."""
    top_k: Annotated[int, _whole(1, MAX_ATTRIBUTED)] = 20


@dataclass(frozen=True)
class ConceptsRequest(TraceRequest):
    """The concepts of a dictionary in one run."""

    dictionary: Annotated[str, _text_or_none] = ""
    """Empty for the model's first."""


@dataclass(frozen=True)
class ShiftRequest(Request):
    """A model and its fine-tune, to be compared concept by concept: exactly one of `adapter` and `other`."""

    model: Annotated[str, _text] = ""
    """Empty for the model the app was started with."""
    adapter: Annotated[str, _text_or_none] = ""
    """A fine-tune of `model` as an adapter: a name from its preset, a folder or a hub id."""
    other: Annotated[str, _text_or_none] = ""
    """A fine-tune as a whole model."""
    dictionary: Annotated[str, _text_or_none] = ""
    """Empty for the model's first."""


PLACES = ("places", "image", "answer", "all")
"""Where a step from one concept to another may act: "places" are the image tokens that have most of the first."""


@dataclass(frozen=True)
class StepRequest(Request):
    """A step from one concept to another."""

    source: Annotated[Any, _as_it_is] = None
    target: Annotated[Any, _as_it_is] = None
    value: Annotated[float, _step] = 1.0
    where: Annotated[str, _one_of(*PLACES)] = "places"


@dataclass(frozen=True)
class LearnRequest(Request):
    """A dictionary to be learned: exactly one of `pictures` and `folder`."""

    pictures: Annotated[Any, _as_it_is] = None
    """The path of a zip of pictures, checked when it is unpacked."""
    folder: Annotated[str, _text_or_none] = ""
    """A folder on this machine, of any kind that `interp.collect` takes."""
    prompt: Annotated[str, _text] = "Describe the image."
    model: Annotated[str, _text] = ""
    """Empty for the model the app was started with."""
    layer: Annotated[int | None, _optional(_whole(0, MAX_LAYERS))] = None
    """None for the one that suits the model."""
    where: Annotated[str, _unless_blank("patches")] = "patches"
    """Which states: see `interp.collect`."""
    n: Annotated[int, _whole(2, MAX_LEARNED)] = 20
    method: Annotated[Literal["semi-nmf", "k-means", "pca"], _one_of("semi-nmf", "k-means", "pca")] = "k-means"
    max_new_tokens: Annotated[int, _whole(1, MAX_NEW_TOKENS)] = 32


@dataclass(frozen=True)
class ConceptsLook(Request):
    """What a reader looks at in the concepts view. All of it comes from a page or a link; whether the dictionary has it, is checked later."""

    dictionary: Annotated[str, _text_or_none] = ""
    """Empty for the model's first."""
    concept: Annotated[int | None, _optional(_whole(0, MAX_CONCEPTS))] = None
    target: Annotated[int | None, _optional(_whole(0, MAX_CONCEPTS))] = None
    """The concept that the step leads to."""
    value: Annotated[float, _step] = 1.0
    where: Annotated[str, _one_of(*PLACES)] = "places"


@dataclass(frozen=True)
class SteerRequest(TraceRequest):
    """A steered answer and the plain one for comparison; the edits are passed separately."""

    sae: Annotated[str, _text] = ""
    """For edits that name no SAE; empty for the model's first."""
    temperature: Annotated[float, _temperature] = 0
    """0 is greedy decoding."""
    seed: Annotated[int, _whole(0, 2**32 - 1)] = 0
    words: Annotated[str, _text] = ""
    """Words to watch, separated by commas."""
    sweep: Annotated[bool, validation.flag] = False
    """Whether the page runs a sweep after the pair."""

    @property
    def sampling(self) -> dict[str, Any]:
        """The generation settings."""
        return {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature, "seed": self.seed}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that a share link stores, besides the picture and the edits."""
        return {name: getattr(self, name) for name in SETTINGS}
