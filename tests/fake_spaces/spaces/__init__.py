"""What `spaces` does with a generator on ZeroGPU, without a GPU: the contract of spaces 0.51, written from its source.

A worker is forked at a function's first call and serves the next ones too, one at a time, each in a thread of its own. Arguments and everything
that is yielded are pickled. What the worker changes stays in it. Of an error only the name of its class comes back. Closing the generator sets
an event, which the worker looks at when it yields.
"""

import inspect
import multiprocessing
import os
import threading

import gradio as gr

PATIENCE = 60.0  # seconds without a word from the worker
_fork = multiprocessing.get_context("fork")
workers = []
durations = []


def GPU(task=None, *, duration=None, size=None):  # noqa: N802 - its name
    if task is None:
        return lambda decorated: GPU(decorated, duration=duration, size=size)
    if os.environ.get("SPACES_ZERO_GPU", "").lower() not in {"1", "t", "true"}:
        return task
    assert inspect.isgeneratorfunction(task), "only generators are played here"

    def handler(*args, **kwargs):
        durations.append(duration(*args, **kwargs))
        if not workers or not workers[-1].process.is_alive():
            workers.append(_Worker(task))
        workers[-1].pipe.send((args, kwargs))
        yield from workers[-1].answers()

    return handler


def end_workers():
    """As ZeroGPU does when it gives the GPU to another Space: the next call forks anew."""
    for worker in workers:
        worker.process.kill()
        worker.process.join()
    workers.clear()
    durations.clear()


class _Worker:
    def __init__(self, task):
        self.pipe, theirs = _fork.Pipe()
        self.stop = _fork.Event()
        self.process = _fork.Process(target=_serve, args=(task, theirs, self.pipe, self.stop), daemon=True)
        self.process.start()

    def answers(self):
        while True:
            kind, value = self.next()
            if kind == "end":
                return
            if kind == "error":
                end_workers()  # it is not used again
                raise gr.Error(value, print_exception=False)
            try:
                yield value
            except GeneratorExit:
                self.stop.set()
                while self.next()[0] != "end":
                    pass
                raise

    def next(self):
        if self.pipe.poll(PATIENCE):
            return self.pipe.recv()
        end_workers()
        raise gr.Error("GPU task aborted", print_exception=False)


def _serve(task, pipe, other_end, stop):
    other_end.close()  # or the pipe would stay open when the app has gone, and this process with it
    while True:
        try:
            args, kwargs = pipe.recv()
        except EOFError:
            return
        stop.clear()

        def iterate(args=args, kwargs=kwargs):
            made = task(*args, **kwargs)
            try:
                for value in made:
                    if stop.is_set():
                        made.close()
                        break
                    pipe.send(("value", value))
            except Exception as error:  # noqa: BLE001 - as spaces does
                pipe.send(("error", type(error).__name__))

        thread = threading.Thread(target=iterate)
        thread.start()
        thread.join()
        pipe.send(("end", None))
