"""Memory that runs out in the middle of a request: freed, tried once more in smaller pieces, told; and the next request works."""

import threading
import weakref

import pytest
import torch

import interp
from interp import InterpError, devices
from interp.devices import retry_on_oom
from interp.lens import logit_lens
from interp.models.unembed import Unembed
from interp.saes.sae import Sae
from interp.service.requests import TraceRequest
from interp.service.service import Service
from interp.steering import batch
from tests.conftest import PROMPT

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.56 GiB.")
BOTH = 2  # times: the first try and the second; the request after them works
MESSAGE = r"Out of memory, even after halving the batch \(2\.00 GiB more were needed\)\. .*quantize='4bit'"


@pytest.fixture
def failing(monkeypatch):
    """Make a function run out of memory the first `times` times, after `good` calls that work; returns how often it was called."""

    def fail(owner, name, times, good=0):
        real, calls = getattr(owner, name), []

        def sometimes(*args, **kwargs):
            calls.append(args)
            if good < len(calls) <= good + times:
                raise FULL.with_traceback(None)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, sometimes)
        return calls

    return fail


@pytest.fixture
def left_behind(vlm):
    """What a request that failed may leave: hooks on the model, and its lock."""

    def count():
        free = []
        other = threading.Thread(target=lambda: free.append(vlm.lock.acquire(timeout=5)) or vlm.lock.release())
        other.start()
        other.join()
        return hooks_of(vlm.model), free

    assert count() == (0, [True])
    return count


def hooks_of(model):
    """How many of our hooks are on it; transformers leaves some of its own."""
    hooks = [hook for module in model.modules() for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())]
    return sum(hook.__module__.startswith("interp") for hook in hooks)


@pytest.fixture(scope="module")
def sae(vlm):
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(vlm.d_model, 700, generator=random)
    return Sae("some", "", 1, weights, torch.zeros(700), weights.T.contiguous(), torch.zeros(vlm.d_model), "topk", k=9)


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
    ids=lambda error: str(error)[:20],
)
def test_every_way_to_say_that_memory_ran_out(error, monkeypatch):
    released = []
    monkeypatch.setattr(devices, "release", lambda: released.append(True))
    tried = []

    def run(less):
        tried.append(less)
        if less == 1:
            raise error
        return "done"

    assert retry_on_oom(run, "Lower it.") == "done"
    assert tried == [1, 2]
    assert released == [True]


def test_other_errors_pass_and_are_not_tried_again():
    for error in (
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError(),
        RuntimeError(3),
        InterpError("no"),
        KeyError("x"),
    ):
        tried = []

        def run(less, tried=tried, error=error):
            tried.append(less)
            raise error

        with pytest.raises(type(error)) as caught:
            retry_on_oom(run, "Lower it.")
        assert caught.value is error
        assert tried == [1]


def test_what_the_first_try_made_is_gone_at_the_second():
    made = []

    def run(less):
        if less == 2:
            return made[0]()
        large = torch.zeros(9)
        made.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    assert retry_on_oom(run, "Lower it.") is None
    with pytest.raises(InterpError, match=r"^Out of memory, even after halving the batch\. Lower it\.$"):
        retry_on_oom(lambda _less: run(1), "Lower it.")


def test_lens(trace, lens, failing, left_behind, monkeypatch):
    sizes = []
    real = Unembed.buffers
    monkeypatch.setattr(Unembed, "buffers", lambda self, *asked: sizes.append(len((made := real(self, *asked))[0])) or made)
    failing(logit_lens, "top_scores", times=1, good=2)
    again = interp.logit_lens(trace, top_k=3)
    assert torch.equal(again.ids, lens.ids)
    for name in ("probs", "entropy", "log_z"):
        torch.testing.assert_close(getattr(again, name), getattr(lens, name))
    assert sizes[1] == sizes[0] // 2
    ranks, chances = lens.rank("dog"), lens.probability("dog")
    failing(Unembed, "chunks", times=1)
    failing(Unembed, "some_logits", times=1)
    assert torch.equal(lens.rank("dog"), ranks)
    assert torch.equal(lens.probability("dog"), chances)
    failing(logit_lens, "top_scores", times=BOTH)
    with pytest.raises(InterpError, match=MESSAGE):
        interp.logit_lens(trace, top_k=3)
    assert left_behind() == (0, [True])
    assert torch.equal(interp.logit_lens(trace, top_k=3).ids, lens.ids)


def test_sae(trace, sae, failing, left_behind):
    before = interp.encode(trace, sae).acts
    calls = failing(Sae, "_activate", times=1)
    after = interp.encode(trace, sae).acts
    assert len(calls) > 2  # the blocks of the second try are smaller
    assert torch.equal(after.features, before.features)
    torch.testing.assert_close(after.values, before.values)
    failing(Sae, "_activate", times=BOTH)
    with pytest.raises(InterpError, match=MESSAGE):
        interp.encode(trace, sae)
    assert left_behind() == (0, [True])
    assert torch.equal(interp.encode(trace, sae).acts.features, before.features)


@pytest.mark.parametrize("place", ["generate", "read_on"])
def test_steering(vlm, picture, sae, failing, left_behind, place):
    def sweep():
        return interp.steer_sweep(vlm, picture, PROMPT, interp.Edit(sae=sae, feature=5, strength=1), [-1, 0.5, 2], max_new_tokens=4)

    before = sweep()
    owner = vlm.model if place == "generate" else vlm
    calls = failing(owner, place, times=1)
    after = sweep()
    assert len(calls) == 3  # four rows in one batch, then two and two
    assert [run.steered_answer for run in after.runs] == [run.steered_answer for run in before.runs]
    for one, other in zip(after.runs, before.runs, strict=True):
        torch.testing.assert_close(one.kl, other.kl, rtol=1e-3, atol=1e-6)
        assert one.fired == other.fired
    failing(owner, place, times=BOTH)
    with pytest.raises(InterpError, match=MESSAGE):
        sweep()
    assert left_behind() == (0, [True])
    assert [run.steered_answer for run in sweep().runs] == [run.steered_answer for run in before.runs]


def test_a_batch_of_the_usual_size_is_halved_too(vlm, picture, sae, failing, monkeypatch):
    monkeypatch.setattr(batch, "rows_at_once", lambda *_: 99)
    rows = []
    real = batch.repeated
    monkeypatch.setattr(batch, "repeated", lambda tensors, count: rows.append(count) or real(tensors, count))
    failing(vlm.model, "generate", times=1)
    interp.steer(vlm, picture, PROMPT, [interp.Edit(sae=sae, feature=5, strength=1)], max_new_tokens=2)
    assert rows == [2, 1, 1]


def test_a_steered_trace(vlm, trace, picture, sae, failing, left_behind):
    edits = [interp.Edit(sae=sae, feature=5, strength=1)]
    answer = interp.steer(vlm, picture, PROMPT, edits, max_new_tokens=4).steered_answer
    before = interp.steered_trace(trace, edits, answer)
    failing(vlm, "read", times=1)
    assert torch.equal(interp.steered_trace(trace, edits, answer).states, before.states)
    failing(vlm, "read", times=BOTH)
    with pytest.raises(InterpError, match=MESSAGE):
        interp.steered_trace(trace, edits, answer)
    assert left_behind() == (0, [True])


def test_the_answer_itself(checkpoint, picture, failing):
    service = Service(checkpoint("crop"))
    model = service.vlm().model

    def anew():
        service.traces = type(service.traces)()
        return service.trace(TraceRequest(picture, PROMPT, max_new_tokens=4))

    before = anew()
    calls = failing(model, "generate", times=1)
    assert torch.equal(anew().states, before.states)
    assert len(calls) == 2
    failing(model, "generate", times=BOTH)
    with pytest.raises(InterpError, match=MESSAGE):
        anew()
    assert hooks_of(model) == 0
    assert torch.equal(anew().states, before.states)
