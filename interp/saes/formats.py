"""Reads SAE folders, in the formats of sae-lens and of EleutherAI's sparsify, into this package's `Sae`.

sae-lens reads its own format and releases; sparsify checkpoints, which it misreads, are read here. Settings that change the arithmetic are
either carried over or refused by name. Weights come from safetensors.
"""

import contextlib
import dataclasses
import functools
import importlib
import json
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import InterpError
from ..models import hub_errors
from ..tracing.trace import EMBED
from .labels.labels import Labels, is_neuronpedia_id, labels_from_file
from .labels.published import neuronpedia_labels
from .sae import Activation, Sae, SaeMetrics

SAE_LENS, SPARSIFY = "sae_weights.safetensors", "sae.safetensors"
_ACTIVATIONS: dict[str, Activation] = {"standard": "relu", "topk": "topk", "jumprelu": "jumprelu", "gated": "gated"}
_LARGE = 1 << 30  # bytes in float32 above which weights are kept in bfloat16
_HOOKS = (
    (r"blocks\.(\d+)\.hook_resid_post", 0),
    (r"blocks\.(\d+)\.hook_resid_pre", -1),
    (r"(?!.*vis)(?:\w+\.)*layers?[._](\d+)(?:\.output)?", 0),
)
FAILURES = (*hub_errors.FAILURES, SafetensorError)
"""What fetching and reading third-party files can raise."""


def import_sae_lens() -> Any:
    """The sae_lens module. The first call takes 7 to 12 seconds on two cores."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("sae_lens")


def loaders() -> Any:
    """The module of sae-lens that reads checkpoints."""
    import_sae_lens()
    return importlib.import_module("sae_lens.loading.pretrained_sae_loaders")


@contextlib.contextmanager
def told(what: str, way_out: str = "") -> Iterator[None]:
    """Turn errors from reading third-party files into an InterpError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InterpError:
        raise
    except FAILURES as error:
        why = " ".join(str(error).split())[:600] or type(error).__name__
        why = f"it lacks {why}" if isinstance(error, KeyError) else why
        raise InterpError(f"{what}: {why.rstrip('.')}. {way_out}".rstrip()) from error


def read_folder(folder: Path, name: str, layer: int | None, device: str, dtype: str) -> Sae:
    """The SAE in one folder; `layer` is used if it does not state its own."""
    with told(f"The SAE in {name!r} cannot be read"):
        raw = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or not isinstance(raw.get("metadata", {}), dict):
            raise InterpError(f"The SAE in {name!r} cannot be read: cfg.json must be a JSON object, and so must its metadata.")
        if (folder / SAE_LENS).exists():
            _refuse_kind(raw, name)
            config, read = loaders().handle_config_defaulting(raw), loaders().sae_lens_disk_loader
        else:
            config = _sparsify_config(raw, folder, name)
            read = functools.partial(_read_sparsify, config)
        own = raw | raw.get("metadata", {})  # sae-lens drops unknown keys from configs older than version 6
        factor = own.get("norm_scaling_factor")
        at = layer_read(refuse(config, name, factor), name, folder.name, layer)
        sae = import_sae_lens().SAE.load_from_disk(folder, device=device, dtype=kept_as(config, dtype), converter=read)
    density, notes = None, []
    if (path := folder / "sparsity.safetensors").exists():
        with contextlib.suppress(*FAILURES), safe_open(path, framework="pt") as file:
            density = densities(file.get_tensor("sparsity"), config["d_sae"])
        if density is None:
            notes.append("feature densities cannot be read (sparsity.safetensors is damaged)")
    labels = labels_from_file(folder / "labels.json", features=config["d_sae"])
    found = converted(sae, name, at, own.get("neuronpedia_id"), labels, factor)
    return dataclasses.replace(found, trained=_figures(own.get("trained")), density=density, notes=tuple(notes))


def _sparsify_config(raw: dict[str, Any], folder: Path, name: str) -> dict[str, Any]:
    """A sparsify config in sae-lens' terms. The encoder always subtracts `b_dec`, whether or not the decoder has unit norm."""
    odd = [key for key in ("signed", "transcode", "skip_connection") if raw.get(key)]
    odd += [f"activation {raw['activation']!r}"] if raw.get("activation", "topk") != "topk" else []
    if odd:
        raise InterpError(f"{name!r} is a sparsify checkpoint with {odd[0]}; only plain TopK autoencoders are supported.")
    model = None
    with contextlib.suppress(*FAILURES):  # may be missing
        model = json.loads((folder.parent / "config.json").read_text(encoding="utf-8"))["model"]
    latents = raw.get("num_latents") or raw["d_in"] * raw["expansion_factor"]  # 0 means the same as none
    return {
        "architecture": "topk",
        "d_in": raw["d_in"],
        "d_sae": latents,
        "k": raw["k"],
        "apply_b_dec_to_input": True,
        "metadata": {"sae_lens_version": import_sae_lens().__version__, "model_name": model},
    }


def _read_sparsify(
    config: dict[str, Any], path: str | Path, device: str, cfg_overrides: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The weights of a sparsify checkpoint, as `SAE.load_from_disk` expects them.

    `W_dec` is already [latents, d_in]; the earliest checkpoints hold the `decoder.weight` of a linear layer, [d_in, latents].
    """
    dtype = getattr(torch, cfg_overrides["dtype"])
    with safe_open(Path(path) / SPARSIFY, framework="pt", device=device) as file:
        held = set(file.keys())
        decoder = "W_dec" if "W_dec" in held else "decoder.weight"
        names = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": decoder, "b_dec": "b_dec"}
        if missing := sorted(set(names.values()) - held):
            raise InterpError(f"{SPARSIFY} lacks {', '.join(missing)}; it holds {', '.join(sorted(held)) or 'nothing'}.")
        state = {ours: file.get_tensor(theirs).to(dtype) for ours, theirs in names.items()}
    for key in ("W_enc", "W_dec") if decoder == "decoder.weight" else ("W_enc",):
        state[key] = state[key].T
    return config | cfg_overrides | {"device": device}, state


def _refuse_kind(config: dict[str, Any], name: str) -> None:
    kind = config.get("architecture", "standard")
    if kind in {"batchtopk", "matryoshka_batchtopk"}:
        raise InterpError(
            f"{name!r} is a {kind} SAE saved for training; save it with `save_inference_model`, which makes it a JumpReLU SAE."
        )
    if kind not in _ACTIVATIONS:
        raise InterpError(f"{name!r} is of architecture {kind!r}; standard, topk, batchtopk, matryoshka, jumprelu and gated are supported.")
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    if activation not in {"relu", "topk", None}:
        raise InterpError(f"{name!r} has the activation {activation!r}; ReLU, TopK, JumpReLU and gated are supported.")


def refuse(config: dict[str, Any], name: str, factor: Any) -> dict[str, Any]:
    """Raise InterpError for unsupported settings that change the arithmetic. Returns the metadata; `factor` is norm_scaling_factor."""
    _refuse_kind(config, name)
    for key in ("d_in", "d_sae", *(("k",) if config.get("architecture") == "topk" else ())):
        size = config[key]
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 1 << 26:
            raise InterpError(f"cfg.json of {name!r} says {key} = {size!r}; it must be a whole number from 1 to {1 << 26}.")
    metadata = config.get("metadata", {})
    if config.get("reshape_activations", "none") != "none":
        raise InterpError(f"{name!r} reads {metadata.get('hook_name')!r}, which is not a residual stream.")
    norm = config.get("normalize_activations", "none")
    if norm not in {"none", "expected_average_only_in", "constant_norm_rescale", "layer_norm"}:
        raise InterpError(f"{name!r} normalises its input by {norm!r}, which is not supported.")
    if norm == "expected_average_only_in" and not (isinstance(factor, int | float) and 0 < factor < math.inf):
        raise InterpError(
            f"{name!r} was trained on rescaled activations, but its cfg.json lacks the factor (norm_scaling_factor); without it the "
            f"features are wrong. Load the release by its sae-lens name, or add the factor to cfg.json."
        )
    return metadata


def kept_as(config: dict[str, Any], dtype: str) -> str:
    """The dtype of the weights in memory, as torch names it."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if 2 * 4 * config["d_in"] * config["d_sae"] > _LARGE else "float32"


def converted(sae: Any, name: str, layer: int, neuronpedia_id: Any, labels: Labels | None = None, factor: Any = None) -> Sae:
    """Convert an SAE of sae-lens; its weights are shared and may be changed in place. `factor` is norm_scaling_factor."""
    cfg, kind = sae.cfg, sae.cfg.architecture()
    weights = {key: value.detach() for key, value in sae.named_parameters()}
    # A sum needs no memory, and is not finite if any term is not; only such matrices are searched.
    damaged = {
        key: sum(int((~part.isfinite()).sum()) for part in value.split(1024))
        for key, value in weights.items()
        if not value.sum().isfinite()
    }
    if bad := {key: count for key, count in damaged.items() if count}:
        told = ", ".join(f"{count} of {weights[key].numel()} in {key}" for key, count in bad.items())
        raise InterpError(f"The weights of {name!r} are damaged: NaN or infinite are {told}.")
    if cfg.normalize_activations == "expected_average_only_in":
        # sae-lens folds in this factor for its own releases, but silently ignores it for folders.
        sae.fold_activation_norm_scaling_factor(float(factor))
    if getattr(cfg, "rescale_acts_by_decoder_norm", False):
        sae.fold_W_dec_norm()  # in place
    gated, neuronpedia_id = kind == "gated", neuronpedia_id if is_neuronpedia_id(neuronpedia_id) else None
    if neuronpedia_id and not (labels and labels.names):
        labels = neuronpedia_labels(neuronpedia_id, features=cfg.d_sae)
    return Sae(
        name=name,
        model_name=str(cfg.metadata.model_name or ""),
        layer=layer,
        W_enc=weights["W_enc"],
        b_enc=weights["b_mag"] if gated else weights["b_enc"],
        W_dec=weights["W_dec"],
        b_dec=weights["b_dec"],
        activation=_ACTIVATIONS[kind],
        k=cfg.k if kind == "topk" else None,
        threshold=weights["threshold"] if kind == "jumprelu" else None,
        gate=(weights["b_gate"], weights["r_mag"]) if gated else None,
        subtract_b_dec=bool(cfg.apply_b_dec_to_input),
        normalisation=cfg.normalize_activations,
        labels=labels or Labels({}, "This SAE comes without names; features show the words they promote."),
        neuronpedia_id=neuronpedia_id,
    )


def densities(log_density: torch.Tensor | None, features: int) -> torch.Tensor | None:
    """Densities from their base-10 logarithms; None unless every feature has one."""
    if log_density is None or log_density.shape != (features,) or log_density.isnan().any():
        return None
    return 10.0 ** log_density.float().cpu()


def _figures(trained: Any) -> dict[str, SaeMetrics]:
    """The metrics in cfg.json, by kind of token; values that are not numbers are skipped."""
    kinds = {kind: said for kind, said in trained.items() if isinstance(said, dict)} if isinstance(trained, dict) else {}
    numbers = {
        kind: {
            key: float(said[key]) for key in ("explained_variance", "l0") if isinstance(said.get(key), int | float) and abs(said[key]) < 1e9
        }
        for kind, said in kinds.items()
    }
    return {kind: SaeMetrics(**values) for kind, values in numbers.items() if values}


def layer_read(metadata: dict[str, Any], name: str, place: str, layer: int | None) -> int:
    """The layer whose output an SAE reads, from its hook name or, if it has none, its folder name."""
    hook = str(metadata.get("hook_name") or metadata.get("hf_hook_name") or "")
    found = hook_layer(hook or place)
    if found is None and not hook and not re.search(r"layers?[._]\d", place):
        found = layer
        if found is None:
            raise InterpError(f"{name!r} does not say which layer it reads; pass `layer`.")
    if found is None:
        raise InterpError(
            f"{name!r} reads {hook or place!r}, which is not a residual stream (blocks.L.hook_resid_post, blocks.L.hook_resid_pre, layers.L). "
            f"Attention, MLP and transcoder dictionaries are not supported."
        )
    return found


def hook_layer(hook: str) -> int | None:
    """The layer of a residual-stream hook named as in TransformerLens or transformers; None for any other hook."""
    if hook in {"hook_embed", "embed_tokens"}:
        return EMBED
    found = [int(match[1]) + offset for pattern, offset in _HOOKS if (match := re.fullmatch(pattern, hook))]
    return found[0] if found else None
