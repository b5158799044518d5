"""Work in units of one file each, shared between the processes of `accelerate launch` or torchrun.

A unit's file is written whole or not at all, and a unit whose file is there is done, so a run that was killed goes on where it stopped. What a
unit gives does not depend on the process that computes it: one process or many make the same files.
"""

import datetime as dt
import functools
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors.torch import save_file
from torch.distributed import TCPStore  # type: ignore[attr-defined] # public all the same
from tqdm import tqdm

from ..errors import InterpError

T = TypeVar("T")
_alone = ContextVar("_alone", default=False)
_PATIENCE = dt.timedelta(days=7)  # for the slowest process: shares of a long study differ by hours


@functools.cache
def state() -> PartialState:
    """This process among those that work together; the only one, unless started by `accelerate launch` or torchrun."""
    _check_gpus()
    begun = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
    if begun.num_processes != (asked := int(os.environ.get("WORLD_SIZE", "1"))):
        raise RuntimeError(
            f"{asked} processes were started, and accelerate was set up for {begun.num_processes} before this module asked for all"
        )
    return begun


def _check_gpus() -> None:
    """Raise InterpError if more processes were started on this machine than it has GPUs, unless it has none."""
    started, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if gpus and started > gpus:
        raise InterpError(
            f"{started} processes were started on a machine with {gpus} {'GPU' if gpus == 1 else 'GPUs'}. Start one for each, or set "
            "CUDA_VISIBLE_DEVICES= to compute on the CPU."
        )


def device() -> str:
    """Where this process keeps its copy of the model."""
    place = state().device
    return "cpu" if place.type == "cpu" else str(place)  # gloo numbers CPUs, which nothing else does


@dataclass(frozen=True)
class Unit:
    """A piece of work that ends in one file."""

    number: int
    file: Path


def shared(units: Sequence[Unit], what: str) -> Iterator[Unit]:
    """The units that are not done and that this process gets to, ascending, with a progress bar over all of them; then all processes wait for each other."""
    name, todo = agreed((uuid.uuid4().hex, [number for number, unit in enumerate(units) if not unit.file.exists()]))
    with tqdm(total=len(units), desc=what, disable=None if state().is_main_process else True) as bar:
        for place in _claimed(name, len(todo)):
            bar.update(len(units) - len(todo) + place - bar.n)  # those before it are done, or others are at work on them
            yield units[todo[place]]
        state().wait_for_everyone()
        bar.update(len(units) - bar.n)


def _claimed(name: str, count: int) -> Iterator[int]:
    """Numbers up to `count`, each to the process that comes for it first. `name`: of this work, unlike any other's."""
    if state().num_processes == 1:
        yield from range(count)
        return
    # torchrun or the main process serves this store, which holds the count of those that were taken.
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=_PATIENCE)
    while (place := store.add(name, 1) - 1) < count:
        yield place


def once(do: Callable[[], T]) -> T | None:
    """Do something in the main process alone, while the others wait. None in the others."""
    _together()
    token = _alone.set(True)
    try:
        return do() if state().is_main_process else None
    finally:
        _alone.reset(token)
        state().wait_for_everyone()


def _together() -> None:
    """Raise RuntimeError where one process would wait for the others and they do not for it: a mistake that a single process would not notice."""
    if _alone.get():
        raise RuntimeError("what the main process does alone cannot wait for the others")


def agreed(value: T) -> T:
    """The main process's value, in all of them: what each would see by itself may depend on when it looks."""
    _together()
    given = [value]
    state()  # accelerate would otherwise begin one without us, which takes this process for the only one
    broadcast_object_list(given)
    return given[0]


def write(file: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write all of a safetensors file or nothing. With one entry of metadata at most the file is the same each time: safetensors shuffles several."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{state().process_index}.tmp")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata=dict(metadata or {}))
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
