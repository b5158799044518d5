"""The identity of a model: a key that changes when a loaded model is changed, and a fingerprint by which a saved trace recognises its model."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from .vlm import Vlm

_ADAPTED = ".lora_"  # in the names of an adapter's weights
_SAMPLES = 4  # values compared per tensor
_READABLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_TOLERANCE = 2**-7  # relative: more than rounding to bfloat16 changes on both sides together

Fingerprint = Mapping[str, Any]
"""Name of a parameter → [dtype, shape, a few values], or None if it is quantised or not in memory."""


def state_key(vlm: Vlm) -> str:
    """A key that changes with the weights, chat template, processor settings or end-of-answer tokens of a loaded model.

    Takes a few milliseconds. Weights are identified by address, torch's count of in-place changes and, on the CPU, four values each. Changes
    through `.data` are therefore missed on a GPU, and on a CPU unless they touch those values. Hooks are not seen either.
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
    """A few values of every weight of the decoder, the same for a checkpoint on every device and machine."""
    return {name: _sample(weight) for name, weight in _chosen(vlm)}


def fits(saved: object) -> bool:
    """Whether what a file holds is a fingerprint."""
    return isinstance(saved, dict) and all(part is None or _sound(part) for part in saved.values())


def mismatch(saved: Fingerprint, vlm: Vlm) -> str | None:
    """The name of a weight that differs from the fingerprint, None if all agree, or "" if none can be compared.

    Values of the same dtype must be equal; between dtypes they must agree to 16-bit precision, which a light fine-tune may pass. Weights that
    are quantised or not in memory on either side are skipped. None can be compared, either, if only one side has an adapter beside its weights.
    """
    compared, chosen = 0, dict(_chosen(vlm))
    beside = [{name for name in names if _ADAPTED in name} for names in (saved, chosen)]
    for name, weight in chosen.items():
        own, other = _sample(weight), saved.get(name)
        if own is None or other is None:
            continue
        compared += 1
        (dtype, shape, values), (other_dtype, other_shape, other_values) = own, other
        exact = dtype == other_dtype
        one, two = torch.tensor(values, dtype=torch.float64), torch.tensor(other_values, dtype=torch.float64)
        if shape != other_shape or not torch.allclose(one, two, rtol=0 if exact else _TOLERANCE, atol=0 if exact else 1e-6, equal_nan=True):
            return name
    return None if compared and beside[0] == beside[1] else ""


def _chosen(vlm: Vlm) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights of the embedding, final norm and head, which are never quantised, and of the blocks, under names that do not depend on the family."""
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


def _sound(part: Any) -> bool:
    sound = isinstance(part, list) and [type(each) for each in part] == [str, list, list]
    return sound and all(isinstance(size, int) for size in part[1]) and all(isinstance(value, float) for value in part[2])


def _some(weight: torch.Tensor) -> torch.Tensor:
    flat = weight.detach().reshape(-1)
    return flat[:: max(1, len(flat) // _SAMPLES)][:_SAMPLES]


def _address(weight: torch.Tensor) -> int:
    try:
        return weight.data_ptr()
    except RuntimeError:  # a placeholder without memory of its own, as on ZeroGPU outside of a call
        return 0
