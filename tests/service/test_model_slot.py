"""One model after another: what a switch frees, what it leaves when it fails, who may ask for it, and what those who wait are told."""

import dataclasses
import threading
import weakref

import pytest
import safetensors.torch
import torch

from interp import InterpError, Lens, Trace
from interp.models import loading
from interp.service import model_slot
from interp.service.requests import LensRequest, TraceRequest
from interp.service.service import Service
from interp.service.streaming import Done
from interp.ui.tabs.lens_tab import steps
from tests import adapters
from tests.conftest import PROMPT


def alive(references):
    return [reference() for reference in references if reference() is not None]


def weights_of(vlm):
    return [weakref.ref(weight) for weight in vlm.model.parameters()]


def test_a_switch_frees_all_that_held_the_old_model(checkpoint, picture):
    service = Service()
    service.saes.get(None, service.default_model)  # its first import may log an error, which pytest keeps with the frames of all callers
    trace = service.trace(TraceRequest(picture, PROMPT, max_new_tokens=4))
    lens = service.lens(LensRequest(picture, PROMPT, max_new_tokens=4))
    run = service.remember(lens)
    service.remember(service.features(trace))
    references = weights_of(service.vlm())
    assert len(alive(references)) == len(references) > 50
    del trace, lens
    service.vlm(checkpoint("crop"))
    assert alive(references) == []
    assert not service.saes.holds(None, "emoji-llava")
    with pytest.raises(InterpError, match="no longer keeps"):
        service.remembered(run, Lens)
    assert service.trace(TraceRequest(picture, PROMPT, checkpoint("crop"), max_new_tokens=4)).model_name == checkpoint("crop")


def test_the_old_model_is_gone_before_the_new_one_is_loaded(checkpoint, picture, monkeypatch):
    service = Service(checkpoint("crop"))
    references = weights_of(service.vlm())
    counts = []
    real = loading.Ready.load
    monkeypatch.setattr(loading.Ready, "load", lambda *args: counts.append(len(alive(references))) or real(*args))
    service.vlm(checkpoint("pad"))
    assert counts == [0]


def test_the_room_that_the_old_model_makes_is_counted(checkpoint, monkeypatch):
    service = Service(checkpoint("crop"), device="cpu")
    service.vlm()
    monkeypatch.setattr(loading, "free_bytes", lambda _device: 0)
    assert service.vlm(checkpoint("pad")).name == checkpoint("pad")  # as large as the one before
    with pytest.raises(InterpError, match=r"needs .* GB on cpu for its weights alone"):
        service.vlm("emoji-llava")
    assert service.vlm(checkpoint("pad")).name == checkpoint("pad")


def test_what_is_known_to_fail_leaves_everything_as_it_was(checkpoint, checkpoint_copy, picture):
    service = Service(checkpoint("crop"))
    trace = service.trace(TraceRequest(picture, PROMPT, max_new_tokens=4))
    lens = service.lens(LensRequest(picture, PROMPT, max_new_tokens=4))
    run, vlm = service.remember(lens), service.vlm()
    whole = (checkpoint_copy / "model.safetensors").read_bytes()
    (checkpoint_copy / "model.safetensors").write_bytes(whole[:-10])
    for name in ("no-such-model", "someone/no-such-model", "/nowhere", str(checkpoint_copy)):
        with pytest.raises(InterpError):
            service.vlm(name)
        assert service.vlm() is vlm
        assert service.trace(TraceRequest(picture, PROMPT, max_new_tokens=4)) is trace
        assert service.remembered(run, Lens) is lens


def test_what_fails_while_it_is_loaded_brings_the_old_model_back(checkpoint, checkpoint_copy, picture):
    service = Service(checkpoint("crop"))
    before = service.trace(TraceRequest(picture, PROMPT, max_new_tokens=4))
    weights = safetensors.torch.load_file(checkpoint_copy / "model.safetensors")
    del weights[next(iter(weights))]
    safetensors.torch.save_file(weights, checkpoint_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InterpError, match=r"do not fit its config: .* has been loaded again\.$"):
        service.vlm(str(checkpoint_copy))
    after = service.trace(TraceRequest(picture, PROMPT, max_new_tokens=4))
    assert after is not before
    assert torch.equal(after.states, before.states)


def test_all_who_wait_hear_what_is_done(checkpoint, monkeypatch):
    service = Service(checkpoint("crop"))
    going, told = threading.Event(), threading.Event()
    real = loading.Ready.load

    def load(ready, tell):
        tell("Loading it …")
        going.set()
        assert told.wait(20)
        return real(ready, tell)

    monkeypatch.setattr(loading.Ready, "load", load)
    first, second = [], []
    begun = threading.Thread(target=service.vlm, args=("", first.append))
    begun.start()
    assert going.wait(20)

    def hear(doing):
        second.append(doing)
        told.set()

    assert service.vlm("", hear) is service.vlm()
    begun.join(20)
    assert second[0] == "Loading it …"
    assert second == first[-len(second) :]
    third = []
    service.vlm("", third.append)
    assert third == []


@pytest.mark.parametrize("name", ["llava-interleave-0.5b", "someone/vlm", ".", "/etc", "emoji-llava + someone/adapter"])
def test_a_shared_server_runs_its_own_model_only(name, monkeypatch):
    monkeypatch.setattr(model_slot, "fetch", lambda *_args, **_kwargs: pytest.fail("it was looked at"))
    shared = Service(shared=True)
    assert not shared.can_switch
    with pytest.raises(InterpError, match=r"this server runs only emoji-llava\. Leave model out"):
        shared.vlm(name)
    for open_to_all in (Service(shared=True, any_model=True), Service()):
        assert open_to_all.can_switch
        with pytest.raises(pytest.fail.Exception, match="it was looked at"):
            open_to_all.vlm(name)


def test_a_fine_tune_and_its_base_are_two_models(checkpoint, picture, tmp_path):
    adapters.save(tmp_path / "adapter", checkpoint("crop"))
    service, name = Service(checkpoint("crop")), f"{checkpoint('crop')} + {tmp_path / 'adapter'}"
    asked = TraceRequest(picture, PROMPT, max_new_tokens=4)
    base = service.trace(asked)
    run = service.remember(base)
    tuned = service.trace(dataclasses.replace(asked, model=name))
    assert tuned.model_name == name
    assert not torch.equal(tuned.states, base.states)
    with pytest.raises(InterpError, match="no longer keeps"):
        service.remembered(run, Trace)
    assert service.trace(dataclasses.replace(asked, model=name)) is tuned
    assert torch.equal(service.trace(asked).states, base.states)
    assert service.saes.names("emoji-llava + emoji-llava-adapter") == ()
    missing = service.lens_shelf.missing(tuned.vlm)
    assert f"--model '{name}' --text" in missing


@pytest.mark.parametrize("problem", ["pickle", "another base", "not finite"])
def test_an_adapter_that_cannot_be_put_on_leaves_a_model_in_its_place(checkpoint, tmp_path, problem):
    adapters.save(
        tmp_path, checkpoint("crop"), targets=("q_proj", "lm_head")
    )  # there are as many words as in "pad", and fewer than in "interleave"
    weights = safetensors.torch.load_file(tmp_path / "adapter_model.safetensors")
    if problem == "pickle":
        (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    elif problem == "not finite":
        safetensors.torch.save_file({key: w * torch.inf for key, w in weights.items()}, tmp_path / "adapter_model.safetensors")
    other = "interleave" if problem == "another base" else "crop"
    service = Service(checkpoint("pad"))
    service.vlm()
    with pytest.raises(InterpError, match="has been loaded again" if problem == "not finite" else "only a pickle|does not fit this base"):
        service.vlm(f"{checkpoint(other)} + {tmp_path}")
    assert service.vlm().name == checkpoint("pad")


def test_the_page_says_what_is_done_while_a_model_is_loaded(checkpoint, tmp_path, picture):
    picture.save(tmp_path / "picture.png")
    service = Service(checkpoint("crop"))
    asked = LensRequest(str(tmp_path / "picture.png"), PROMPT, checkpoint("pad"), 4)
    *said, done = steps(service, asked)
    assert said[0] == ("", f"Loading {checkpoint('pad')} …")
    assert isinstance(done, Done)
    assert done.result.trace.model_name == checkpoint("pad")
    again = [step for step in steps(service, asked) if not isinstance(step, Done)]
    assert not any("Loading" in doing for _, doing in again)
