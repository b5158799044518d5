"""Which model is this: a key that changes when a model in memory is changed, and a fingerprint by which a saved trace finds its own."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from .vlm import Vlm

_SAMPLES = 4  # values of a tensor that are compared
_READABLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_TOLERANCE = 2**-7  # relative, between the 16-bit formats: twice what rounding to bfloat16 changes, once on each side

Fingerprint = Mapping[str, Any]
"""Name of a parameter → its dtype, its shape, and a few of its values; None instead of values that are quantised or not in memory."""


def state_key(vlm: Vlm) -> str:
    """Changes when a model that is held in memory answers differently: new or edited weights, chat template, processor or end of answer.

    Takes a few milliseconds. Weights are known by their address, torch's count of in-place changes and, on the CPU, four of their values.
    Changes behind torch's back go unseen: through `.data` on a GPU, or on a CPU where none of the four values changes; and so do hooks.
    """
    digest = hashlib.sha256()
    probes: dict[torch.dtype, list[torch.Tensor]] = {}
    for weight in vlm.model.parameters():
        version = 0 if weight.is_inference() else weight._version  # noqa: SLF001 - there is no public name for it
        digest.update(repr((_address(weight), version, tuple(weight.shape))).encode())
        if weight.device.type == "cpu" and weight.is_contiguous() and weight.dtype in _READABLE:
            probes.setdefault(weight.dtype, []).append(_some(weight))
    for values in probes.values():
        digest.update(torch.cat(values).double().numpy().tobytes())
    processor, tokenizer = vlm.processor, vlm.tokenizer
    image_processor: Any = getattr(processor, "image_processor", None)
    settings = {name: value for name, value in vars(processor).items() if isinstance(value, str | int | float | dict | None)}
    images = image_processor.to_dict() if hasattr(image_processor, "to_dict") else None
    ends = sorted(vlm.end_ids), vlm.model.generation_config.pad_token_id
    digest.update(repr((settings, images, tokenizer.chat_template, len(tokenizer), ends, vlm.model.config.to_dict())).encode())
    return digest.hexdigest()


def fingerprint(vlm: Vlm) -> Fingerprint:
    """A few values of some weights, the same for a checkpoint on every device and machine."""
    return {name: _sample(weight) for name, weight in _chosen(vlm)}


def mismatch(saved: Fingerprint, vlm: Vlm) -> str | None:
    """The name of a weight by which this model is not the one of a fingerprint; "" where nothing can be compared; None if it may be the one.

    Values of one dtype must be equal. Between dtypes they are compared as far as 16 bits reach, so that a light fine-tune can pass. What is
    quantised on either side is compared by its name only.
    """
    compared = 0
    for name, weight in _chosen(vlm):
        own, other = _sample(weight), saved.get(name)
        if own is None or other is None:
            continue
        compared += 1
        (dtype, shape, values), (other_dtype, other_shape, other_values) = own, other
        exact = dtype == other_dtype
        one, two = torch.tensor(values, dtype=torch.float64), torch.tensor(other_values, dtype=torch.float64)
        if shape != other_shape or not torch.allclose(one, two, rtol=0 if exact else _TOLERANCE, atol=0 if exact else 1e-6, equal_nan=True):
            return name
    return None if compared else ""


def _chosen(vlm: Vlm) -> Iterator[tuple[str, torch.Tensor]]:
    """Embeddings, final norm and head, which are never quantised, and the decoder's blocks, by names that do not depend on the family."""
    parts: dict[str, nn.Module] = {"embed": vlm.model.get_input_embeddings(), "norm": vlm.norm, "head": vlm.head}
    parts |= {f"blocks.{i}": vlm.blocks[i] for i in range(vlm.n_layers)}
    return itertools.chain.from_iterable(
        ((f"{part}.{name}", weight) for name, weight in module.named_parameters()) for part, module in parts.items()
    )


def _sample(weight: torch.Tensor) -> list[Any] | None:
    packed = hasattr(weight, "quant_state")  # of bitsandbytes, which may pack four bits into a floating dtype
    if packed or weight.is_meta or weight.dtype not in _READABLE:
        return None
    return [str(weight.dtype).removeprefix("torch."), list(weight.shape), _some(weight).double().cpu().tolist()]


def _some(weight: torch.Tensor) -> torch.Tensor:
    flat = weight.detach().reshape(-1)
    return flat[:: max(1, len(flat) // _SAMPLES)][:_SAMPLES]


def _address(weight: torch.Tensor) -> int:
    try:
        return weight.data_ptr()
    except RuntimeError:  # a stand-in without memory of its own, as on ZeroGPU outside of a call
        return 0
