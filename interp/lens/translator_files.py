"""Files of trained lenses: our own (lens.json and lens.safetensors), and those that the tuned-lens package publishes, as safetensors.

That package numbers translators by the block whose input they read, so its translator l reads our layer l - 1.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import InterpError
from ..models.hub import fetch_files, repo_files
from ..models.identity import Fingerprint, fits
from ..tracing.trace import EMBED
from ..validation import LONGEST_PATH, file_path, shown, text, whole_number
from .translators import Affine, Kind, Translators

SCHEMA = "llava-microscope/lens-translators/1"
OUR_CONFIG, OUR_WEIGHTS = "lens.json", "lens.safetensors"
CONFIG, WEIGHTS = "config.json", "params.safetensors"
_PICKLE = "params.pt"
_CONVERT = f"python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('{_PICKLE}', map_location='cpu', weights_only=True), '{WEIGHTS}')\""
_LARGEST = 1 << 20  # width and number of layers


class _DamagedError(Exception):
    """Part of a file is invalid."""


def load_translators(source: str | os.PathLike[str]) -> Translators:
    """Load a trained lens: a folder, or a hub repository with or without a folder in it ("owner/name/folder").

    Two formats are read: our own, and that of the tuned-lens package with its parameters converted to params.safetensors. Pickles are refused.

    Raises InterpError for a source that does not exist or holds neither format, and for damaged files.
    """
    given = os.fspath(source) if isinstance(source, str | os.PathLike) else source
    if not isinstance(given, str) or not given.strip():
        raise InterpError(f"source is {shown(source)}; it must be a folder or a hub repository.")
    given = text("source", given, LONGEST_PATH).strip()
    folder = _folder(given)
    try:
        if (folder / OUR_CONFIG).is_file():
            return _ours(folder)
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return _published(folder)
    except (OSError, SafetensorError, _DamagedError, InterpError, ValueError, RecursionError) as error:
        raise InterpError(f"source {given!r} is not a trained lens, or is damaged: {' '.join(str(error).split())}") from error
    if (folder / _PICKLE).is_file():
        raise InterpError(
            f"source {given!r} holds its parameters as a pickle, {_PICKLE}, which can run code when it is read. Convert it in that folder: {_CONVERT}"
        )
    raise InterpError(f"source {given!r} holds no trained lens: neither {OUR_CONFIG} nor {CONFIG} with {WEIGHTS} (tuned-lens).")


def save(translators: Translators, folder: str | os.PathLike[str]) -> None:
    """Write our own format: 16 bit, bfloat16 where a value is too large for float16."""
    place = file_path("folder", folder)
    tensors: dict[str, torch.Tensor] = {}
    for layer, move in translators.maps.items():
        for name, part in move.parts.items():
            half = part.detach().cpu().half()
            tensors[f"{layer}.{name}"] = (half if half.isfinite().all() else part.detach().cpu().bfloat16()).contiguous()
    about = {
        "schema": SCHEMA,
        "kind": translators.kind,
        "model": translators.model_name,
        "width": translators.width,
        "layers": translators.n_layers,
        "trained_on": translators.trained_on,
        "figures": translators.figures,
    }
    try:
        place.mkdir(parents=True, exist_ok=True)
        save_file(tensors, place / OUR_WEIGHTS, metadata={"weights": json.dumps(translators.weights)})
        (place / OUR_CONFIG).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    except (OSError, SafetensorError) as error:
        raise InterpError(f"folder is {shown(str(place))}, where nothing can be written ({error}). Name one that you may write.") from error


def _folder(source: str) -> Path:
    folder = Path(source)
    try:
        if folder.is_dir():
            return folder
        is_file = folder.is_file()
    except (OSError, ValueError):  # a name too long for a file, or with a zero byte in it
        is_file = False
    if is_file:
        raise InterpError(f"source {source!r} is a file; give the folder that holds {OUR_CONFIG}, or {CONFIG} and {WEIGHTS}.")
    parts = source.rstrip("/").split("/")
    if source.startswith((".", "/", "~")) or "\\" in source or len(parts) < 2 or ".." in parts:
        raise InterpError(
            f"source is {shown(source)}, and there is no such folder. Give a folder or a hub repository ('owner/name/folder')."
        )
    inner = "/".join(parts[2:])
    names = [f"{inner}/{name}".lstrip("/") for name in (OUR_CONFIG, OUR_WEIGHTS, CONFIG, WEIGHTS)]
    listed = repo_files("/".join(parts[:2]))
    if not any(name in listed.names for name in names) and f"{inner}/{_PICKLE}".lstrip("/") in listed.names:
        raise InterpError(f"source {source!r} holds its parameters only as a pickle, {_PICKLE}. Download it and convert it: {_CONVERT}")
    return fetch_files(listed, names) / inner


def _ours(folder: Path) -> Translators:
    about = _json(folder / OUR_CONFIG)
    _expect(about.get("schema") == SCHEMA, f"{OUR_CONFIG} says {shown(about.get('schema'))}; this version reads {SCHEMA!r}.")
    kind: Kind = "token" if about.get("kind") == "token" else "tuned"
    _expect(about.get("kind") == kind, f"its kind is {shown(about.get('kind'))}; it must be tuned or token.")
    width, n_layers = (whole_number(name, about.get(name), 1, _LARGEST) for name in ("width", "layers"))
    tensors, metadata = _tensors(folder / OUR_WEIGHTS)
    named: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        _expect(layer.removeprefix("-").isdecimal() and part in {"up", "down", "bias"}, f"{name!r} is no part of a translator.")
        named.setdefault(int(layer), {})[part] = tensor
    weights: Fingerprint | None = json.loads(metadata.get("weights", "null"))
    _expect(weights is None or fits(weights), "the values of its model's weights are damaged.")
    figures = about.get("figures", {})
    _expect(isinstance(figures, dict), "its figures are no object.")
    return Translators(
        kind,
        _maps(named, kind, width, n_layers),
        text("model", about.get("model")),
        width,
        n_layers,
        text("trained_on", about.get("trained_on")),
        figures,
        weights,
    )


def _published(folder: Path) -> Translators:
    about = _json(folder / CONFIG)
    lens_type = about.get("lens_type", "linear_tuned_lens")
    _expect(lens_type == "linear_tuned_lens", f"it is a {shown(lens_type)}; only linear tuned lenses are read.")
    width, n_layers = (whole_number(name, about.get(name), 1, _LARGEST) for name in ("d_model", "num_hidden_layers"))
    model = text("base_model_name_or_path", about.get("base_model_name_or_path"))
    tensors, _ = _tensors(folder / WEIGHTS)
    named: dict[int, dict[str, torch.Tensor]] = {}
    for block in range(n_layers):
        _expect(f"{block}.weight" in tensors, f"{WEIGHTS} has no '{block}.weight'.")
        weight = tensors[f"{block}.weight"]
        named[block + EMBED] = {"up": weight, "bias": tensors.get(f"{block}.bias", torch.zeros(width, dtype=weight.dtype))}
    return Translators(
        "tuned",
        _maps(named, "tuned", width, n_layers),
        model,
        width,
        n_layers,
        f"Published by the tuned-lens project for {model}; tuned lenses are trained on text.",
    )


def _maps(named: Mapping[int, Mapping[str, torch.Tensor]], kind: Kind, width: int, n_layers: int) -> dict[int, Affine]:
    maps = {}
    last = n_layers - (2 if kind == "tuned" else 1)
    for layer, parts in sorted(named.items()):
        _expect(EMBED <= layer <= last, f"it has a map for layer {layer}; layers {EMBED} to {last} can have one.")
        _expect({"up", "bias"} <= set(parts), f"layer {layer} lacks a part.")
        rank = parts["down"].shape[0] if "down" in parts else width
        shapes = {"up": (width, rank), "bias": (width,), "down": (rank, width)}
        for name, part in parts.items():
            _expect(
                tuple(part.shape) == shapes[name], f"{name} of layer {layer} has shape {list(part.shape)}; expected {list(shapes[name])}."
            )
            _expect(part.is_floating_point() and bool(part.isfinite().all()), f"{name} of layer {layer} is not finite.")
        maps[layer] = Affine(parts["up"], parts["bias"], parts.get("down"))
    _expect(bool(maps), "it has a map for no layer.")
    return maps


def _json(file: Path) -> dict[str, Any]:
    about = json.loads(file.read_text(encoding="utf-8"))
    _expect(isinstance(about, dict), f"{file.name} is no JSON object.")
    return dict(about)


def _tensors(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    _expect(file.is_file(), f"{file.name} is missing.")
    with safe_open(file, framework="pt") as held:
        return {name: held.get_tensor(name) for name in held.keys()}, held.metadata() or {}  # noqa: SIM118 - it is no dict


def _expect(sound: bool, what: str) -> None:  # noqa: FBT001 - reads like an assertion
    if not sound:
        raise _DamagedError(what)
