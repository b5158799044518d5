"""A decoder in a GGUF file, the format of llama.cpp: numbers in quantised blocks, and settings; no code.

A checkpoint's config.json names the file in `decoder_gguf`; its vision side stays in safetensors. The blocks are dequantised while the
model is loaded, one weight at a time, so that only the model's own copy is held.
"""

import contextlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from ..errors import InterpError

FIELD = "decoder_gguf"
"""Where config.json names the file."""
_ARCHITECTURE = "llama"
_OUTSIDE = {"embed_tokens": "token_embd", "norm": "output_norm"}
_IN_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_DAMAGE = (OSError, ValueError, LookupError, TypeError, ArithmeticError, struct.error)


@dataclass(frozen=True)
class Weight:
    """One weight of the file. Indexing reads and dequantises it, which is what transformers does with each weight that it loads."""

    stored: Any
    kind: int
    """Number of its type in ggml."""
    shape: tuple[int, ...]
    heads: int
    """Heads whose rows llama.cpp has reordered for its rotary embedding; 0 if none."""

    def __getitem__(self, _: Any) -> torch.Tensor:
        from transformers.integrations.gguf.dequant import dequantize  # noqa: PLC0415 - seconds of import

        raw = self.stored[...]
        values = (raw.float() if raw.is_floating_point() else dequantize(raw.flatten(), self.kind)).reshape(self.shape)
        # llama.cpp interleaves the two halves that transformers' rotary embedding turns together.
        return values.unflatten(0, (self.heads, -1, 2)).transpose(1, 2).flatten(0, 2) if self.heads else values


@dataclass(frozen=True)
class Decoder:
    """A decoder whose file was opened and fits its config, and the rest of its checkpoint."""

    weights: Mapping[str, Weight]
    """By the name of the model's parameter. None is read yet."""
    rest: Sequence[Path]
    """The files of safetensors with all other weights."""
    model_class: Any

    def from_pretrained(self, folder: Path, **options: Any) -> Any:
        """As that of the model's class, which does not know such checkpoints."""
        from transformers import AutoConfig, GenerationConfig  # noqa: PLC0415 - seconds of import

        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        delattr(config, FIELD)  # if the model is saved again, it is all safetensors
        with contextlib.ExitStack() as opened:
            files = [opened.enter_context(safe_open(file, framework="pt")) for file in self.rest]
            weights = {name: file.get_slice(name) for file in files for name in file.keys()} | dict(self.weights)  # noqa: SIM118
            model, found = self.model_class.from_pretrained(None, config=config, state_dict=weights, **options)
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
        return model, found


def decoder_file(cannot: str, folder: Path) -> str | None:
    """The GGUF file that the config.json in `folder` names, or None. Raises InterpError if it is not the name of a GGUF file in the folder."""
    try:
        name = json.loads((folder / "config.json").read_text(encoding="utf-8")).get(FIELD)
    except (OSError, ValueError, AttributeError):  # whoever reads the config itself says what is wrong with it
        return None
    if name is None:
        return None
    if not isinstance(name, str) or not name.endswith(".gguf") or "/" in name or "\\" in name:
        raise InterpError(f"{cannot}: {FIELD} in its config.json is {name!r}; it must be the name of a .gguf file beside it.")
    return name


def open_decoder(cannot: str, file: Path, rest: Sequence[Path], skeleton: Any) -> Decoder:
    """The decoder of `skeleton`, a model without memory, from a GGUF file. `rest`: the safetensors of its checkpoint.

    Raises InterpError, with a message that begins with `cannot`, for a damaged file and for one that holds another model.
    """
    from transformers.integrations.gguf.reader import GgufHeader, load_gguf_state_dict, read_gguf_metadata  # noqa: PLC0415 - seconds of import

    try:
        settings, _ = read_gguf_metadata(str(file))
        header = GgufHeader.from_file(str(file))
        stored = load_gguf_state_dict(header)
        ends = [header.data_start + each.offset + each.nbytes for each in header.tensors]
        lacking = max(ends, default=0) - file.stat().st_size
        if lacking > 0:
            raise ValueError(f"its last {lacking} bytes are missing")
    except _DAMAGE as error:
        place = file.resolve()  # in the hub's cache, files are links, and their targets must be deleted
        why = str(error) or type(error).__name__
        raise InterpError(f"{cannot}: {file.name} is damaged ({why}). Delete {place} and download it again.") from error
    config = skeleton.config.get_text_config()
    _check_settings(cannot, file.name, settings, config)
    wanted = _wanted(skeleton)
    shapes = {each.name: each.shape for each in header.tensors}
    for name in dict.fromkeys([*wanted, *shapes]):
        has, wants = shapes.get(name), tuple(wanted[name][1].shape) if name in wanted else None
        if has != wants:
            raise InterpError(
                f"{cannot}: {file.name} and config.json are of different models: {name} is {_shape(has)} in the file, "
                f"and by the config it is {_shape(wants)}."
            )
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {
        wanted[each.name][0]: Weight(stored[each.name], each.ggml_type, each.shape, heads.get(each.name.split(".")[-2], 0))
        for each in header.tensors
    }
    return Decoder(weights, rest, type(skeleton))


def _check_settings(cannot: str, file: str, settings: Mapping[str, Any], config: Any) -> None:
    """What shapes do not show: the same weights with another number of heads, or other angles, give nonsense."""
    if settings["general.architecture"] != _ARCHITECTURE or config.model_type != _ARCHITECTURE:
        raise InterpError(
            f"{cannot}: {file} holds a decoder of type {settings['general.architecture']!r}, and config.json describes a "
            f"{config.model_type!r}. From GGUF files only {_ARCHITECTURE!r} is read; convert others to safetensors."
        )
    pairs = {
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_parameters["rope_theta"],
    }
    for name, wants in pairs.items():
        has = settings.get(f"{_ARCHITECTURE}.{name}", wants)
        if not math.isclose(has, wants, rel_tol=1e-6):
            raise InterpError(
                f"{cannot}: {file} and config.json are of different models: {name} is {has:g} in the file and {wants:g} in the config."
            )


def _wanted(skeleton: Any) -> dict[str, tuple[str, nn.Parameter]]:
    """Name in the file → name and parameter of the decoder and head. A head that is tied to the embedding has no name of its own."""
    homes = {skeleton.get_decoder(): "", skeleton.get_output_embeddings(): "output"}
    roots = {name: homes[module] for name, module in skeleton.named_modules() if module in homes}
    out = {}
    for name, parameter in skeleton.named_parameters():
        if root := next((root for root in roots if name.startswith(f"{root}.")), None):
            module, _, kind = name.removeprefix(f"{root}.").rpartition(".")
            out[f"{roots[root] or _in_file(module)}.{kind}"] = (name, parameter)
    return out


def _in_file(module: str) -> str:
    """For example "layers.3.mlp.up_proj" → "blk.3.ffn_up"."""
    if module.startswith("layers."):
        _, number, part = module.split(".", 2)
        return f"blk.{number}.{_IN_BLOCK.get(part, part)}"
    return _OUTSIDE.get(module, module)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape))
