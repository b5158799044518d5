"""Devices: which ones, what they compute in, how much of their memory is free, and what to do where it runs out. Knows nothing of models."""

import gc
import re
from collections.abc import Callable
from typing import TypeVar

import psutil
import torch

from .errors import InterpError

Result = TypeVar("Result")
# What torch and its libraries say, besides torch.OutOfMemoryError: the CPU's allocator (Linux, Windows), CUDA's driver, cuBLAS.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def pick_device(device: str) -> torch.device:
    """The torch device that "auto", "cpu", "cuda" or "cuda:N" means here. Raises InterpError for any other, and for CUDA without a GPU."""
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        place = None
    if place is None or place.type not in {"cpu", "cuda"}:
        raise InterpError(f"device is {device!r}; it must be 'auto', 'cpu', 'cuda' or 'cuda:N' (or, for a model, 'balanced').")
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InterpError(f"device is {device!r}, but torch sees no CUDA device here. Use 'auto' or 'cpu'.")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise InterpError(f"device is {device!r}, but torch sees only {torch.cuda.device_count()} CUDA devices, counted from 0.")
    return place


def pick_devices(device: str) -> list[torch.device]:
    """As `pick_device`; "balanced" is every GPU here. Raises InterpError for "balanced" with fewer than two."""
    if device != "balanced":
        return [pick_device(device)]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < 2:
        raise InterpError(f"device is 'balanced', which spreads a model over several GPUs; torch sees {count} here. Use 'auto'.")
    return [torch.device("cuda", index) for index in range(count)]


def dtype_on(*devices: torch.device) -> torch.dtype:
    """What a model computes in there: float32 on a CPU, bfloat16 where every GPU has it (compute capability 8), else float16."""
    if any(device.type != "cuda" for device in devices):
        return torch.float32
    return torch.bfloat16 if all(torch.cuda.get_device_capability(device) >= (8, 0) for device in devices) else torch.float16


def free_bytes(device: torch.device) -> int:
    """Memory that is free on this device now: on a GPU with what torch holds without using it, on a CPU with what the system would give up."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return psutil.virtual_memory().available


def release() -> None:
    """Give memory that nothing uses any more back to its devices."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def retry_on_oom(run: Callable[[int], Result], lower: str) -> Result:
    """`run(1)`; where that runs out of memory, memory is freed and `run(2)` tries once more, in pieces half as large.

    Raises InterpError where that runs out too; `lower` says what its reader can lower.
    """
    for less in (1, 2):
        try:
            return run(less)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            asked = re.search(r"tried to allocate (\d[\d.]* \w+)", str(error), re.IGNORECASE)
        release()  # not before the block above is left: until then the error holds on to everything that the try had made
    more = f" ({asked[1]} more were asked for)" if asked else ""
    raise InterpError(f"The memory does not suffice{more}, not even in smaller pieces. {lower}")


def out_of_memory(error: BaseException) -> bool:
    """Whether this is how torch, or Python, says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)
