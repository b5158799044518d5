"""Devices: which one, what it computes in, how much of its memory is free. Knows nothing of models."""

import os

import torch

from .errors import InterpError


def pick_device(device: str) -> torch.device:
    """The torch device that "auto", "cpu", "cuda" or "cuda:N" means here. Raises InterpError for any other, and for CUDA without a GPU."""
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        place = None
    if place is None or place.type not in {"cpu", "cuda"}:
        raise InterpError(f"device is {device!r}; it must be 'auto', 'cpu', 'cuda' or 'cuda:N'.")
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InterpError(f"device is {device!r}, but torch sees no CUDA device here. Use 'auto' or 'cpu'.")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise InterpError(f"device is {device!r}, but torch sees only {torch.cuda.device_count()} CUDA devices, counted from 0.")
    return place


def dtype_on(device: torch.device) -> torch.dtype:
    """What a model computes in there: float32 on a CPU, bfloat16 where the GPU has it (compute capability 8), else float16."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def free_bytes(device: torch.device) -> int:
    """Memory that is free on this device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
