"""The folder of saved concepts: concepts.json says what they are, concepts.safetensors holds atoms, activations, maps and small pictures."""

import json
import os
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import InterpError
from ..files import write_whole
from ..models.identity import fits
from ..models.vlm import Vlm
from ..saes.sae import Sae
from ..validation import file_path, finite_number, flag, instance, one_of, shown, text, whole_number
from .concepts import METHODS, Concepts, Example, Fit
from .state_files import packed, picture

SCHEMA = "llava-microscope/concepts/1"
INDEX, TENSORS = "concepts.json", "concepts.safetensors"


class _DamagedError(Exception):
    """Part of a folder is invalid."""


def save(concepts: Concepts, folder: str | os.PathLike[str]) -> None:
    """See `Concepts.save`."""
    place = file_path("folder", folder)
    flat = [each for row in concepts.examples for each in row]
    tensors = {"atoms": concepts.atoms, "activations": concepts.activations, "mean": concepts.mean, **packed([each.webp for each in flat])}
    tensors |= {f"map.{number}": each.map for number, each in enumerate(flat) if each.map is not None}
    about = concepts.to_dict() | {
        "schema": SCHEMA,
        "ids": list(concepts.ids),
        "penalty": concepts.penalty,
        "normed": concepts.normed,
        "sae": concepts._sae.name if concepts._sae is not None else None,  # noqa: SLF001 - this module is the other half of the class
        "weights": concepts._weights,  # noqa: SLF001
    }
    for entry, row in zip(about["concepts"], concepts.examples, strict=True):
        entry["examples"] = [
            {
                "sample": e.sample,
                "row": e.row,
                "activation": e.activation,
                "prompt": e.prompt,
                "answer": e.answer,
                "word": e.word,
                "path": e.path,
            }
            for e in row
        ]
    try:
        place.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, place / TENSORS)
        write_whole(place / INDEX, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    except (OSError, SafetensorError) as error:
        raise InterpError(f"folder is {shown(str(place))}, where nothing can be written ({error}). Name one that you may write.") from error


def saved(folder: str | os.PathLike[str]) -> bool:
    """Whether there are saved concepts in a folder. Raises InterpError for what is no path."""
    try:
        return (file_path("folder", folder) / INDEX).is_file()
    except OSError:  # such as a name that is too long
        return False


def load(folder: str | os.PathLike[str], vlm: Vlm | None, sae: Sae | None) -> Concepts:
    """See `Concepts.load`."""
    place = file_path("folder", folder)
    if vlm is not None:
        instance("vlm", vlm, Vlm, "a Vlm, as interp.load(...) returns")
    if sae is not None:
        instance("sae", sae, Sae, "an SAE, as interp.load_sae(...) returns")
    try:
        about = json.loads((place / INDEX).read_text(encoding="utf-8"))
        _expect(isinstance(about, dict), "it is no JSON object.")
        _expect(about.get("schema") == SCHEMA, f"it holds {shown(about.get('schema'))}, and this version reads {SCHEMA!r}.")
        with safe_open(place / TENSORS, framework="pt") as held:
            tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 - it is no dict
        concepts = _concepts(about, tensors, vlm, sae)
    except FileNotFoundError as error:
        raise InterpError(f"folder is {shown(str(place))}, and there are no saved concepts in it.") from error
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RecursionError, _DamagedError) as error:
        raise InterpError(f"The concepts in folder {shown(str(place))} are damaged: {' '.join(str(error).split())[:300]}") from error
    if vlm is not None:
        concepts.check_model(vlm)
    if sae is not None and (concepts.method != "sae" or about.get("sae") != sae.name):
        raise InterpError(f"sae is {sae.name!r}; these concepts were made with {about.get('sae') or 'no SAE'}.")
    return concepts


def _concepts(about: dict[str, Any], tensors: dict[str, torch.Tensor], vlm: Vlm | None, sae: Sae | None) -> Concepts:
    atoms, activations, mean = (tensors[name] for name in ("atoms", "activations", "mean"))
    _expect(atoms.ndim == activations.ndim == 2 and mean.ndim == 1, "its tensors have wrong shapes.")
    count, width = atoms.shape
    _expect(activations.shape[1] == count and len(mean) == width, "its tensors do not fit each other.")
    _expect(all(bool(part.isfinite().all()) for part in (atoms, activations, mean)), "its values are not finite.")
    entries, ids, weights, fit = (about[name] for name in ("concepts", "ids", "weights", "fit"))
    _expect(isinstance(entries, list) and len(entries) == count, "it does not describe every concept.")
    _expect(isinstance(ids, list) and len(ids) == len(activations), "it does not name the sample of every state.")
    _expect(weights is None or fits(weights), "the values of its model's weights are damaged.")
    examples, number = [], 0
    for entry in entries:
        row = []
        for each in entry["examples"]:
            row.append(_example(each, tensors, number, len(activations)))
            number += 1
        examples.append(tuple(row))
    features = [entry["feature"] for entry in entries]
    opposite = tuple(tuple(text("A word", word) for word in entry["opposite"]) for entry in entries)
    method = one_of("method", about["method"], METHODS)
    return Concepts(
        method=method,
        model_name=text("model", about["model"]),
        layer=whole_number("layer", about["layer"], -1),
        where=text("where", about["where"]),
        atoms=atoms.float(),
        activations=activations.float(),
        ids=tuple(text("An id", each) for each in ids),
        mean=mean.float(),
        penalty=float(finite_number("penalty", about["penalty"], 0)),
        objective=text("objective", about["objective"]),
        seed=whole_number("seed", about["seed"], 0),
        words=tuple(tuple(text("A word", word) for word in entry["words"]) for entry in entries),
        opposite=opposite if method == "pca" and any(opposite) else (),
        examples=tuple(examples),
        fit=Fit(_share("fvu", fit["fvu"]), _share("fvu_zero", fit["fvu_zero"]), float(finite_number("used", fit["used"], 0))),
        stability=tuple(float(finite_number("stability", entry["stability"], -1.1, 1.1)) for entry in entries),
        normed=flag("normed", about["normed"]),
        features=tuple(whole_number("feature", each, 0) for each in features) if method == "sae" else None,
        notes=tuple(text("A note", each) for each in about["notes"]),
        _vlm=vlm,
        _sae=sae,
        _weights=weights,
    )


def _example(each: dict[str, Any], tensors: dict[str, torch.Tensor], number: int, rows: int) -> Example:
    held = tensors.get(f"map.{number}")
    _expect(held is None or held.ndim == 2, "a map has the wrong shape.")
    said = {name: text(name, each[name]) for name in ("sample", "prompt", "answer", "word", "path")}
    return Example(
        row=whole_number("row", each["row"], 0, rows - 1),
        activation=float(finite_number("activation", each["activation"])),
        map=held,
        webp=picture(tensors["pictures"], tensors["picture_ends"], number),
        **said,
    )


def _share(name: str, value: Any) -> float | None:
    return None if value is None else float(finite_number(name, value, 0))


def _expect(sound: bool, what: str) -> None:  # noqa: FBT001 - reads like an assertion
    if not sound:
        raise _DamagedError(what)
