"""Files of steering vectors: one safetensors file with the direction, and in its metadata layer, model, place and sign."""

import json
import os
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import InterpError
from ..validation import file_path, finite_number, instance, shown, text, whole_number, whole_numbers
from .edits import Contrast

SCHEMA = "llava-microscope/steering-vector/1"
SIGN = "added to a state, it leads from the negatives (base, concept i) to the positives (target, concept j)"


def save_vector(vector: Contrast, path: str | os.PathLike[str]) -> None:
    """Write a direction with its layer, model and sign convention. Raises InterpError where nothing can be written."""
    instance("vector", vector, Contrast, "a Contrast, as interp.contrast_vector(...) or interp.steering_vector(...) returns")
    file = file_path("path", path)
    about = {
        "schema": SCHEMA,
        "layer": vector.layer,
        "model": vector.model_name,
        "where": vector.where,
        "auroc": vector.auroc,
        "examples": vector.examples,
        "sign": SIGN,
    }
    try:
        save_file({"vector": vector.vector.detach().cpu().float().contiguous()}, file, metadata={"vector": json.dumps(about)})
    except (OSError, SafetensorError) as error:
        raise InterpError(f"path is {shown(str(file))}, where nothing can be written ({error}). Name a file that you may write.") from error


def load_vector(path: str | os.PathLike[str]) -> Contrast:
    """Read what `save_vector` wrote, ready for `interp.Edit(vector=...)`. Raises InterpError for a missing or damaged file, and for a foreign one."""
    file = file_path("path", path)
    try:
        with safe_open(file, framework="pt") as held:
            about: Any = json.loads((held.metadata() or {}).get("vector", "null"))
            if not isinstance(about, dict) or about.get("schema") != SCHEMA or about.get("sign") != SIGN:
                raise InterpError("it holds no steering vector with the sign convention of this version.")
            vector = held.get_tensor("vector")
        if vector.ndim != 1 or vector.dtype != torch.float32 or not vector.isfinite().all():
            raise InterpError(f"its vector is {shown(vector)}.")
        examples, auroc = about.get("examples"), about.get("auroc")
        counts = None if examples is None else whole_numbers("examples", examples)
        if counts is not None and len(counts) != 2:
            raise InterpError(f"its examples are {shown(examples)}.")
        return Contrast(
            vector,
            whole_number("layer", about.get("layer"), -1),
            text("model", about.get("model")),
            text("where", about.get("where")),
            None if auroc is None else float(finite_number("auroc", auroc, 0, 1)),
            None if counts is None else (counts[0], counts[1]),
        )
    except FileNotFoundError as error:
        raise InterpError(f"There is no steering vector at path {shown(str(file))}.") from error
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise InterpError(
            f"The file at path {shown(str(file))} is no steering vector, or is damaged: {' '.join(str(error).split())}"
        ) from error
