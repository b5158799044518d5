"""The .pth files of xl-vlms, read without running code in them.

Its features are {"hidden_states": one {module: [1, P, d]} for each sample, "image", "token_of_interest_mask", "model_predictions"}. The tool writes
pictures and mask as lists of one-element lists; its documentation shows plain lists and one tensor. Both are read.
"""

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import InterpError
from ..models.vlm import Vlm
from ..steering.edits import Contrast
from ..validation import file_path, instance, one_of, shown, text, whole_number
from .concepts import Concepts, Example, Fit, Method
from .samples import Unique
from .state_files import packed
from .states import ConceptStates, Sampled
from .wanted import MEAN

_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)$")
_NORM = re.compile(r"(?:^|\.)(?:norm|ln_f|final_layernorm)$")
_PAIR = re.compile(r"steering_vector_concept_(\d+)_to_(\d+)$")
_COARSE = ("steering_vector", "steering_vector_shift_of_means")
_SIGN, _MENDED = "sign_convention", "u_j - u_i"
_METHODS: dict[str, Method] = {"kmeans": "k-means", "pca": "pca", "snmf": "semi-nmf", "nndl": "semi-nmf"}
_HINT = (
    "It holds pickled Python objects, which can run code when they are read, such as the analysis_model of a dictionary. Save it again without "
    "them: d = torch.load(path, weights_only=False); d.pop('analysis_model', None); torch.save(d, path), where you trust the file."
)


def read_xl_features(
    path: str | os.PathLike[str], vlm: Vlm | None = None, *, module: str | None = None, position: int | None = None
) -> ConceptStates:
    """The states in a file of features ({hook}_{name}.pth) of xl-vlms.

    `module`: which of the file's modules, where it has several. Decoder layers become our layers of the same number; states of a final norm are
    marked as `normed`, and need `vlm` to know how many layers lie before it. `position`: which of the stored positions of each sample; by default
    their mean. Samples that the mask leaves out have no state.

    Raises InterpError for a file that holds anything but tensors and plain values, for one without features, and for a module that it lacks.
    """
    file = file_path("path", path)
    if vlm is not None:
        instance("vlm", vlm, Vlm, "a Vlm, as interp.load(...) returns")
    about = load_plain(file)
    hidden = about.get("hidden_states")
    if not isinstance(hidden, list) or not hidden or not all(isinstance(row, Mapping) and row for row in hidden):
        raise InterpError(
            f"The file at path {shown(str(file))} holds no features of xl-vlms: a list `hidden_states` of {{module: states}}."
        )
    names = [str(name) for name in hidden[0]]
    chosen = names[0] if module is None and len(names) == 1 else one_of("module", module, names)
    layer, normed = _layer_of(chosen, vlm)
    rows = [_pooled(row, chosen, position, str(file)) for row in hidden]
    if len({row.shape for row in rows}) != 1:
        raise InterpError(f"The states of {chosen!r} in the file at path {shown(str(file))} differ in width.")
    kept = _mask(about.get("token_of_interest_mask"), len(rows), str(file))
    pictures, said = _texts(about.get("image"), len(rows)), _texts(about.get("model_predictions"), len(rows))
    unique = Unique()
    samples = tuple(
        Sampled(unique(name or str(i)), "", answer, "", name) for i, (name, answer) in enumerate(zip(pictures, said, strict=True))
    )
    states = torch.stack(rows)[kept]
    found = ConceptStates(
        model_name="" if vlm is None else vlm.name,
        layers=(layer,),
        where=f"features of xl-vlms, module {chosen}",
        samples=samples,
        sample_of=kept.nonzero().flatten(),
        positions=torch.full((len(states),), MEAN),
        width=states.shape[1],
        normed=normed,
        _parts=({f"layer.{layer}": states, **packed([b""] * len(samples))},),
        _vlm=vlm,
    )
    if vlm is not None:
        found.check(vlm)
    return found


def load_plain(file: Path) -> dict[str, Any]:
    """A .pth file of tensors and plain values. Raises InterpError for any other, with a hint where it holds pickled objects."""
    try:
        about = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InterpError(f"There is no file at path {shown(str(file))}.") from error
    except pickle.UnpicklingError as error:
        raise InterpError(f"The file at path {shown(str(file))} is not read. {_HINT}") from error
    except Exception as error:  # torch raises many kinds for damaged bytes
        raise InterpError(
            f"The file at path {shown(str(file))} is not a .pth file, or is damaged ({' '.join(str(error).split())[:200]})."
        ) from error
    if not isinstance(about, dict):
        raise InterpError(f"The file at path {shown(str(file))} holds {shown(about)}; files of xl-vlms hold a dictionary.")
    return about


def _layer_of(module: str, vlm: Vlm | None) -> tuple[int, bool]:
    """Our layer for a module's name, and whether it is the final norm behind that layer."""
    if found := _BLOCK.search(module):
        return int(found[1]), False
    if not _NORM.search(module):
        raise InterpError(f"module {shown(module)} is neither a decoder layer nor a final norm, and no other states are read.")
    if vlm is None:
        raise InterpError(f"module {shown(module)} is a final norm: pass vlm=interp.load(...), whose last layer lies before it.")
    return vlm.n_layers - 1, True


def _pooled(row: Mapping[str, Any], module: str, position: int | None, file: str) -> torch.Tensor:
    states: Any = row.get(module)
    sound = isinstance(states, torch.Tensor) and states.is_floating_point() and 1 <= states.ndim <= 3 and states.numel() > 0
    if not sound or (states.ndim == 3 and states.shape[0] != 1):
        raise InterpError(
            f"The states of {module!r} in the file at path {shown(file)} are {shown(states)}; each must be a tensor [1, P, d]."
        )
    flat = states.reshape(-1, states.shape[-1]).float()
    if position is None:
        return flat.mean(0)
    return flat[whole_number("position", position, 0, len(flat) - 1, hint="the positions that the file stores")]


def _mask(mask: Any, count: int, file: str) -> torch.Tensor:
    """Which samples count: bool [count], from one tensor or a list of booleans or of one-element tensors or lists."""
    if mask is None:
        return torch.ones(count, dtype=torch.bool)
    flat = torch.tensor([bool(torch.as_tensor(each).reshape(-1)[:1].any()) for each in mask])
    if len(flat) != count:
        raise InterpError(f"The mask in the file at path {shown(file)} has {len(flat)} entries, and there are {count} samples.")
    return flat


def _texts(values: Any, count: int) -> list[str]:
    """One text for each sample, from a list of texts or of lists of one; "" where there is none."""
    if not isinstance(values, list) or len(values) != count:
        return [""] * count
    firsts = [each[0] if isinstance(each, list | tuple) and each else each for each in values]
    return [each if isinstance(each, str) else "" for each in firsts]


def read_xl_concepts(path: str | os.PathLike[str], vlm: Vlm | None = None, *, layer: int | None = None) -> Concepts:
    """The dictionary in a file of results (decompose_activations_…pth) of xl-vlms: its concepts, activations, words and pictures' paths.

    Its layer is only in the file's name: pass `layer`. The decomposition itself is a pickled object there, which is not read: save the file without
    its analysis_model, as the error says. "kmeans", "pca", "snmf" and "nndl" become our methods, whose `transform` then gives our codes for its atoms.

    Raises InterpError for pickles, and for a file without concepts.
    """
    file = file_path("path", path)
    if vlm is not None:
        instance("vlm", vlm, Vlm, "a Vlm, as interp.load(...) returns")
    about = load_plain(file)
    atoms, codes = (_matrix(about.get(name)) for name in ("concepts", "activations"))
    if atoms is None or codes is None or codes.shape[1] != len(atoms):
        raise InterpError(f"The file at path {shown(str(file))} holds no dictionary of xl-vlms: concepts [K, d] and activations [N, K].")
    given = str(about.get("decomposition_method", ""))
    if given not in _METHODS:
        raise InterpError(f"The dictionary at path {shown(str(file))} was made by {shown(given)}; {', '.join(_METHODS)} are read.")
    if layer is None:
        raise InterpError("The files of xl-vlms state no layer inside: pass layer=, which their names often end with.")
    words = about.get("text_grounding")
    lists = (
        [tuple(str(word) for word in each) for each in words] if isinstance(words, list) and len(words) == len(atoms) else [()] * len(atoms)
    )
    paths = about.get("image_grounding_paths")
    pictures = [_texts(each, len(each)) for each in paths] if isinstance(paths, list) and len(paths) == len(atoms) else [[]] * len(atoms)
    found = Concepts(
        method=_METHODS[given],
        model_name="" if vlm is None else vlm.name,
        layer=whole_number("layer", layer, 0),
        where=f"a dictionary of xl-vlms ({given})",
        atoms=atoms,
        activations=codes,
        ids=tuple(map(str, range(len(codes)))),
        mean=torch.zeros(atoms.shape[1]),
        penalty=1.0 if _METHODS[given] == "semi-nmf" else 0.0,
        objective=f"{given} of xl-vlms",
        seed=0,
        words=tuple(lists),
        opposite=(),
        examples=tuple(tuple(Example(path, 0, 0.0, "", "", "", path) for path in each) for each in pictures),
        fit=Fit(None, None, 0.0),
        stability=(0.0,) * len(atoms),
        notes=("Read from xl-vlms, which seeds nothing and measures neither fit nor stability: these two are 0 here.",),
        _vlm=vlm,
    )
    if vlm is not None:
        found.check_model(vlm)
    return found


def read_xl_vectors(path: str | os.PathLike[str], layer: int, *, model_name: str = "") -> dict[str, Contrast]:
    """The vectors in a steering file of xl-vlms, by name: "steering_vector" (coarse), and "i to j" for each pair of concepts (fine).

    Under "steering_vector_concept_i_to_j" xl-vlms stores u_i - u_j, the opposite of what the name and the paper say. The sign is turned here, so that
    "i to j" leads from i to j (but for files of `write_xl_vectors`, which say that theirs is right). The layer is only in the file's name. "mean_of_directions", which is always 0, is left out.

    Raises InterpError for pickles, and for a file without vectors.
    """
    file = file_path("path", path)
    layer = whole_number("layer", layer, 0)
    name = text("model_name", model_name)
    out: dict[str, Contrast] = {}
    about = load_plain(file)
    mended = about.get(_SIGN) == _MENDED
    for key, value in about.items():
        pair = _PAIR.match(str(key))
        if not (isinstance(value, torch.Tensor) and value.ndim == 1 and value.is_floating_point() and value.isfinite().all()):
            continue
        if pair:
            said = f"{pair[1]} to {pair[2]}"
            turned = value.float() if mended else -value.float()
            out[said] = Contrast(turned, layer, name, f"concept {said} of xl-vlms{'' if mended else ', its sign turned'}", None, None)
        elif key in _COARSE and "steering_vector" not in out:
            out["steering_vector"] = Contrast(
                value.float(), layer, name, "the mean of the target minus the mean of the base, of xl-vlms", None, None
            )
    if not out:
        raise InterpError(f"The file at path {shown(str(file))} holds no steering vectors of xl-vlms, such as 'steering_vector' [d].")
    return out


def write_xl_vectors(path: str | os.PathLike[str], coarse: Contrast | None = None, concepts: Concepts | None = None) -> None:
    """Write a steering file for xl-vlms: a coarse vector, or the vectors between all pairs of concepts.

    The key "steering_vector_concept_i_to_j" holds u_j - u_i, so that adding it, as xl-vlms does, leads from i to j; in its own files the sign is the
    other one. A further key, "sign_convention", says so. Raises InterpError unless exactly one of `coarse` and `concepts` is given, and where
    nothing can be written.
    """
    file = file_path("path", path)
    if (coarse is None) == (concepts is None):
        raise InterpError("Give exactly one of coarse (a Contrast) and concepts: a steering file of xl-vlms holds one or the other.")
    if coarse is not None:
        instance("coarse", coarse, Contrast, "a Contrast, as interp.steering_vector(...) returns")
        contents: dict[str, Any] = {"steering_vector": coarse.vector.float().clone()}
    else:
        learned = instance("concepts", concepts, Concepts, "concepts, as interp.learn_concepts(...) returns")
        atoms = learned.atoms
        pairs = atoms[None] - atoms[:, None]  # [i, j] = u_j - u_i
        contents = {
            "concepts1": atoms.clone(),
            "activations1": learned.activations.clone(),
            "steering_vector": pairs.clone(),
            _SIGN: _MENDED,
        }
        count = range(len(atoms))
        contents |= {f"steering_vector_concept_{i}_to_{j}": pairs[i, j].clone() for i in count for j in count if i != j}
    try:
        torch.save(contents, file)
    except (OSError, RuntimeError) as error:
        raise InterpError(f"path is {shown(str(file))}, where nothing can be written ({error}). Name a file that you may write.") from error


def _matrix(value: Any) -> torch.Tensor | None:
    """A finite matrix in float32, from a tensor; None for anything else."""
    sound = isinstance(value, torch.Tensor) and value.ndim == 2 and value.is_floating_point() and bool(value.isfinite().all())
    return value.float() if sound else None
