"""Work that processes share: what one does alone never waits for the others, and files are whole or not there."""

import json

import pytest
import torch
from safetensors.torch import load_file

from interp import InterpError
from interp.study import work
from tests.study.processes import launched


def test_what_one_process_does_alone_cannot_wait_for_the_others():
    for within in (lambda: work.once(lambda: 1), lambda: work.agreed(1), lambda: list(work.shared([], "units"))):
        with pytest.raises(RuntimeError, match="cannot wait for the others"):
            work.once(within)
    assert work.once(lambda: 1) == work.agreed(1) == 1  # and afterwards everything is as before


def test_units_that_are_there_are_left_alone(tmp_path):
    units = [work.Unit(number, tmp_path / f"{number}.safetensors") for number in range(3)]
    work.write(units[1].file, {"a": torch.ones(2)})
    done = []
    for unit in work.shared(units, "units"):
        done.append(unit.number)
        work.write(unit.file, {"a": torch.zeros(2)})
    assert done == [0, 2]
    assert load_file(units[1].file)["a"].tolist() == [1, 1]


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "new" / "file.safetensors"
    same = torch.zeros(2)
    with pytest.raises(RuntimeError, match="share memory"):
        work.write(file, {"a": same, "b": same})
    assert not list(file.parent.iterdir())


@pytest.mark.parametrize(("processes", "gpus"), [(2, 0), (1, 1), (8, 8)])
def test_as_many_processes_as_gpus_or_any_number_on_the_cpu(monkeypatch, processes, gpus):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    work._check_gpus()


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(InterpError, match="2 processes were started on a machine with 1 GPU"):
        work._check_gpus()


HELD_UP = """
import sys, time
from pathlib import Path
import torch
from interp.study import work

folder = Path(sys.argv[1])
units = [work.Unit(number, folder / f"{number}.safetensors") for number in range(9)]


def wait(until):
    end = time.monotonic() + 60
    while not until() and time.monotonic() < end:
        pass


for again in range(2):
    done = []
    for unit in work.shared(units, "units"):
        if not again and work.state().is_main_process:
            wait((folder / "held up").exists)
        elif not again:
            (folder / "held up").touch()
            wait(lambda: sum(other.file.exists() for other in units) == 8)
        done.append(unit.number)
        work.write(unit.file, {"a": torch.tensor(unit.number)})
    (folder / f"{again} {work.state().process_index}.json").write_text(str(done))
    work.once(units[5].file.unlink)
"""


@pytest.mark.slow
def test_a_process_that_is_held_up_leaves_the_others_the_rest(tmp_path):
    launched(tmp_path, HELD_UP, str(tmp_path))
    first, second, *again = (json.loads((tmp_path / f"{time} {process}.json").read_text()) for time in (0, 1) for process in (0, 1))
    assert len(first) == 8
    assert first == sorted(first)
    assert sorted(first + second) == [*range(9)]
    assert sorted(again) == [[], [5]]
