"""Writes an SAE as a sparsify checkpoint, the format of EleutherAI and LMMs-Lab, beside the folder that sae-lens writes; and figures into either."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..errors import InterpError
from ..files import write_whole
from .formats import SPARSIFY
from .sae import Sae


def write_sparsify(sae: Sae, folder: Path) -> None:
    """Write a TopK SAE as cfg.json and sae.safetensors in float32. The name of the folder must tell the layer, as in "model.layers.24".

    The model's name goes into config.json beside the folder, where sparsify keeps it. Raises InterpError for an SAE of another kind: the format
    has no thresholds, and its encoder subtracts `b_dec` and normalises nothing.
    """
    if sae.k is None or sae.normalisation != "none" or not sae.subtract_b_dec:
        raise InterpError(
            f"{sae.name} is a {sae.activation} SAE with normalisation {sae.normalisation!r}; sparsify's format holds TopK SAEs that subtract "
            "b_dec and normalise nothing. Use the folder in the format of sae-lens."
        )
    tensors = {"encoder.weight": sae.W_enc.T, "encoder.bias": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    norms = sae.W_dec.float().norm(dim=1)
    config = {
        "activation": "topk",
        "expansion_factor": -(-sae.d_sae // sae.d_in),  # where it is no whole number, num_latents counts
        "normalize_decoder": bool(torch.isclose(norms, torch.ones_like(norms), atol=1e-3).all()),
        "num_latents": sae.d_sae,
        "k": sae.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": sae.d_in,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.float().cpu().contiguous() for name, value in tensors.items()}, folder / SPARSIFY)
    write_whole(folder / "cfg.json", json.dumps(config, indent=1) + "\n")
    write_whole(folder.parent / "config.json", json.dumps({"model": sae.model_name}) + "\n")


def write_figures(folder: Path, trained: dict[str, dict[str, float]], density: torch.Tensor) -> None:
    """Put figures into the folder of an SAE, in either format, where `interp.load_sae` reads them.

    `trained`: kind of token ("image", "text") → its "explained_variance" and "l0". `density`: share of tokens on which each feature is active, [F].
    """
    file = folder / "cfg.json"
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    config.setdefault("metadata", {})["trained"] = trained
    if "device" in config:
        config["device"] = "cpu"  # where it was trained is of no use to those who load it
    write_whole(file, json.dumps(config, indent=1) + "\n")
    save_file({"sparsity": (density.float().cpu() + 1e-10).log10()}, folder / "sparsity.safetensors")
