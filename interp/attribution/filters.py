"""Filters: the features of an SAE that are worth a look, chosen by attribution, in the format of multimodal-sae (filters.json).

    {"model.layers.24": [1203, 88, 40211]}

A module name stands for the output of that decoder block, our layer of the same number.
"""

import json
import re
from collections.abc import Sequence
from os import PathLike
from typing import Any, Literal

import torch

from ..errors import InterpError
from ..files import write_text
from ..saes.sae import Sae
from ..validation import file_path, instance, one_of, whole_number
from .attribute import Attribution
from .scores import Scores

Pool = Literal["sum", "avg", "max"]
POOLS: tuple[Pool, ...] = ("sum", "avg", "max")
_MODULE = re.compile(
    r"(?:[\w-]+\.)*layers\.(0|[1-9]\d{0,5})", re.ASCII
)  # it may be the name in a whole VLM: language_model.model.layers.24
_MOST_BYTES = 64 << 20  # of a filters.json


def filters(attribution: Attribution, path: str | PathLike[str], pool: Pool = "sum", k: int = 50) -> list[int]:
    """Write the k features that raised the word most at the image positions, largest first, as a filters.json; returns them.

    `pool`: the sum, the average or the maximum of a feature's scores over the image positions, with their sign; positions where it is not
    active count as 0. Features that did not raise the word anywhere are never listed, so there may be fewer than k. BOS and attention sinks
    are left out.

    Raises InterpError for k below 1 or above the number of features, an unknown pool, an SAE of the embed layer, which such files cannot
    name, and where nothing can be written.
    """
    instance("attribution", attribution, Attribution, "what interp.attribute(...) returns")
    chosen = pooled(attribution, one_of("pool", pool, POOLS), k)
    write_filters(path, module_name(attribution.sae), chosen)
    return chosen


def pooled(attribution: Attribution, pool: Pool, k: int) -> list[int]:
    """The features of `filters`."""
    k = whole_number("k", k, 1, attribution.sae.d_sae, hint=f"the number of features of {attribution.sae.name}")
    features, values = pooled_scores(attribution.scores, pool)
    order = values.argsort(descending=True, stable=True)[:k]
    chosen: list[int] = features[order[values[order] > 0]].tolist()
    return chosen


def pooled_scores(scores: Scores, pool: Pool) -> tuple[torch.Tensor, torch.Tensor]:
    """The features active at the image positions, ascending, and the pooled scores there: int64 and float32.

    BOS and attention sinks are left out; positions where a feature is not active count as 0.
    """
    _, positions = scores.encoding.select("image")
    features, _, values = scores.at(positions)
    found, index, counts = features.unique(return_inverse=True, return_counts=True)
    if pool == "max":
        highest = torch.full((len(found),), -torch.inf).scatter_reduce(0, index, values, "amax")
        return found, torch.where(counts < len(positions), highest.clamp(min=0), highest)
    return found, torch.zeros(len(found)).index_add(0, index, values) / (len(positions) if pool == "avg" else 1)


def write_filters(path: str | PathLike[str], module: str, features: Sequence[int]) -> None:
    """Write a filters.json of one module. Raises InterpError where nothing can be written."""
    written = json.dumps({module: list(features)})
    write_text(path, lambda: written)


def read_filters(path: str | PathLike[str]) -> dict[int, list[int]]:
    """The features that a filters.json lists for each layer. Raises InterpError for a missing file, and for one of another format."""
    file = file_path("path", path)
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise InterpError(f"The file at path {file} has more than {_MOST_BYTES >> 20} MiB, so it holds no filters.")
        data: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else "not JSON"
        raise InterpError(f"The filters at path {file} cannot be read ({why}).") from error
    if not isinstance(data, dict):
        raise InterpError(f"The file at path {file} holds no filters: they are one JSON object, module names with lists of features.")
    out: dict[int, list[int]] = {}
    for module, features in data.items():
        if not isinstance(features, list) or not all(type(feature) is int and feature >= 0 for feature in features):
            raise InterpError(f"The filters at path {file} must list whole numbers from 0 for {module[:80]!r}.")
        layer = layer_of(module, str(file))
        if layer in out:
            raise InterpError(f"The filters at path {file} name layer {layer} twice.")
        out[layer] = features
    return out


def module_name(sae: Sae) -> str:
    """The name that multimodal-sae gives to the states an SAE reads. Raises InterpError for the embed layer, which has none."""
    if sae.layer < 0:
        raise InterpError(
            f"attribution is by {sae.name}, which reads the embed layer; files of multimodal-sae can only name decoder blocks."
        )
    return f"model.layers.{sae.layer}"


def layer_of(module: str, file: str) -> int:
    """The layer that a module name stands for."""
    if not (found := _MODULE.fullmatch(module)):
        raise InterpError(f"The file at path {file} names the module {module[:80]!r}; it must be a decoder block, such as model.layers.24.")
    return int(found[1])
