"""Work that processes share: what one does alone never waits for the others, and files are whole or not there."""

import pytest
import torch
from safetensors.torch import load_file

from interp.study import work


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
