"""Work in a thread, seen through a generator."""

import threading

import pytest

from interp.service.streaming import Done, stream


def slow_reader(*shown, end=lambda: "result"):
    """What a reader gets who takes the first step and comes back when the work has ended."""
    read = threading.Event()

    def work(show):
        show(shown[0])
        assert read.wait(20)
        for step in shown[1:]:
            show(step)
        return end()

    before = set(threading.enumerate())
    steps = stream(work)
    got = [next(steps)]
    read.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
    try:
        for step in steps:
            got.append(step)  # noqa: PERF402 - what came before an error counts
    except ZeroDivisionError as error:
        got.append(error)
    return got


def test_the_newest_step_comes_before_the_end_however_slow_the_reader():
    assert slow_reader("a", "a dog", "a dog and") == ["a", "a dog and", Done("result")]


def test_the_newest_step_comes_before_an_error():
    *steps, error = slow_reader("a", "a dog", end=lambda: 1 // 0)
    assert steps == ["a", "a dog"]
    assert isinstance(error, ZeroDivisionError)


def test_work_that_shows_nothing_ends_at_once():
    assert list(stream(lambda _show: 5)) == [Done(5)]
    with pytest.raises(ZeroDivisionError):
        list(stream(lambda _show: 1 // 0))


def test_a_reader_that_keeps_up_gets_every_step():
    asked = threading.Event()

    def work(show):
        for step in range(3):
            asked.clear()
            show(step)
            assert asked.wait(20)

    got = []
    for step in stream(work):
        got.append(step)
        asked.set()
    assert got == [0, 1, 2, Done(None)]
