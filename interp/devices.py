"""Devices: picking one, its dtype, its free memory, and what to do when memory runs out."""

import contextlib
import re
from collections.abc import Callable
from typing import TypeVar

import psutil
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from .errors import InterpError
from .validation import shown

Result = TypeVar("Result")
# Reports that accelerate does not recognise: the CPU allocator on Windows, CUDA's driver and bitsandbytes, cuBLAS.
_OUT_OF_MEMORY = ("not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def pick_device(device: str) -> torch.device:
    """The torch device that "auto", "cpu", "cuda" or "cuda:N" stands for. Raises InterpError for anything else, and for CUDA without a GPU."""
    place = None
    if isinstance(device, str | torch.device):
        if device == "auto":
            return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        with contextlib.suppress(RuntimeError):
            place = torch.device(device)
    if place is None or place.type not in {"cpu", "cuda"}:
        raise InterpError(f"device is {shown(device)}; it must be 'auto', 'cpu', 'cuda' or 'cuda:N' (or, for a model, 'balanced').")
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InterpError(f"device is {device!r}, but torch sees no CUDA device here. Use 'auto' or 'cpu'.")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise InterpError(f"device is {device!r}, but torch sees {torch.cuda.device_count()} CUDA device(s), counted from 0. Use 'auto'.")
    return place


def pick_devices(device: str) -> list[torch.device]:
    """As `pick_device`, with "balanced" for all GPUs. Raises InterpError for "balanced" with fewer than two."""
    if not isinstance(device, str) or device != "balanced":
        return [pick_device(device)]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < 2:
        raise InterpError(f"device is 'balanced', which spreads a model over several GPUs; torch sees {count} here. Use 'auto'.")
    return [torch.device("cuda", index) for index in range(count)]


def dtype_on(*devices: torch.device) -> torch.dtype:
    """The dtype a model computes in: float32 on a CPU, bfloat16 if every GPU supports it (compute capability 8), else float16."""
    if any(device.type != "cuda" for device in devices):
        return torch.float32
    return torch.bfloat16 if all(torch.cuda.get_device_capability(device) >= (8, 0) for device in devices) else torch.float16


def free_bytes(device: torch.device) -> int:
    """Free memory in bytes: on a GPU including torch's unused reserve, on a CPU including what the system can reclaim."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return psutil.virtual_memory().available


def release() -> None:
    """Return unused memory to the devices."""
    clear_device_cache(garbage_collection=True)


def retry_on_oom(run: Callable[[int], Result], lower: str) -> Result:
    """`run(1)`; if it runs out of memory, memory is freed and `run(2)` is tried once, which should work in batches half as large.

    Raises InterpError if that runs out too; `lower` tells the reader what to lower.
    """
    for less in (1, 2):
        try:
            return run(less)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            asked = re.search(r"tried to allocate (\d[\d.]* \w+)", str(error), re.IGNORECASE)
        release()  # outside the except block, in which the error keeps everything alive that the attempt had allocated
    more = f" ({asked[1]} more were needed)" if asked else ""
    raise InterpError(f"Out of memory, even after halving the batch{more}. {lower}")


def out_of_memory(error: Exception) -> bool:
    """Whether this is how torch or Python reports that memory ran out."""
    message = str(error)
    known = isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in message for words in _OUT_OF_MEMORY)
    return known or should_reduce_batch_size(RuntimeError(message))  # which fails on errors whose argument is not text
