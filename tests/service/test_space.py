"""A Space: ZeroGPU with its worker played by `tests.fake_spaces`, the default model, and what README and pins promise."""

import contextvars
import dataclasses
import os
import re
import threading
from pathlib import Path

import gradio as gr
import pytest
import torch
import yaml
from gradio_client import Client, handle_file

import app
from interp import PRESETS, InterpError
from interp.service import zerogpu
from interp.service.attention_service import AttentionService
from interp.service.questions import Questions
from interp.service.requests import LensRequest, MapRequest, Ranking, SteerRequest, TraceRequest
from interp.service.service import Service
from interp.service.steer_service import SteerRun, SteerService
from interp.service.streaming import stream
from interp.service.whatif_service import WhatIfService
from interp.steering.batch import StoppedError
from interp.ui.page import build
from tests import tiny
from tests.fake_spaces import spaces
from tests.server import ROOT, serve

PROMPT = "Describe the image."
EDIT = {"feature": 460, "target": -10, "where": "image"}
GIB = 1 << 30


@pytest.fixture(scope="module")
def picture():
    return tiny.noise(96, 96)


class Zero:
    """A service whose model runs in a worker, beside one that runs it here."""

    def __init__(self):
        self.service, self.plain = Service(device="cpu"), Service(device="cpu")  # a forked worker cannot use the GPU of its parent
        self.steering, self.plain_steering = SteerService(self.service), SteerService(self.plain)
        self.service.vlm()
        self.service.saes.get(None, "emoji-llava")


@pytest.fixture
def zero(monkeypatch, both):
    """ZeroGPU: the weights are not in this process."""
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    here = os.getpid()

    def refuse(module, _args):
        assert os.getpid() != here, f"{type(module).__name__} ran in the process that has no GPU"

    vlm = both.service.vlm()
    handles = [module.register_forward_pre_hook(refuse) for module in (vlm.model, vlm.norm, vlm.head)]
    monkeypatch.setattr(zerogpu, "_call", spaces.GPU(duration=lambda _asked, allow: allow)(zerogpu._work))
    assert zerogpu.remote()
    yield both
    for handle in handles:
        handle.remove()
    spaces.end_workers()


@pytest.fixture(scope="module")
def both():
    return Zero()


def test_a_lens_from_the_worker(zero, picture):
    texts = []
    lens = zero.service.read(zero.service.trace(TraceRequest(picture, PROMPT, max_new_tokens=8), on_text=texts.append))
    here = here_of(zero, lambda: zero.plain.lens(LensRequest(picture, PROMPT, max_new_tokens=8)))
    assert lens.trace.answer == here.trace.answer == texts[-1]
    assert len(texts) > 2  # it came word by word
    assert lens.trace.vlm is zero.service.vlm()
    assert lens.trace is zero.service.trace(TraceRequest(picture, PROMPT, max_new_tokens=8))  # kept here, not in the worker
    asked = len(spaces.durations)
    assert (
        zero.service.lens(LensRequest(picture, PROMPT, max_new_tokens=8)) is lens
    )  # the page opens without a GPU once someone has opened it
    assert len(spaces.durations) == asked
    assert torch.equal(lens.ids, here.ids)
    torch.testing.assert_close(lens.probs, here.probs)
    torch.testing.assert_close(lens.trace.states, here.trace.states)
    assert len(spaces.workers) == 1


def here_of(zero, call):
    """What `call` returns without a worker."""
    remote, zerogpu._call = zerogpu._call, zerogpu._work
    try:
        return call()
    finally:
        zerogpu._call = remote


def test_words_and_features_from_the_worker(zero, picture):
    def asked(service):
        lens = service.lens(LensRequest(picture, PROMPT, max_new_tokens=8))
        found = service.features(lens.trace, Ranking(top_k=4))
        again = service.features(lens.trace, Ranking(top_k=4, rank_by="max", where="answer"))
        run, key = service.remember(lens), service.remember(found)
        return [
            Questions(service).find_word(run, "dog"),
            found.to_dict(),
            again.to_dict(),
            Questions(service).features_at(key, {"patches": [[0, 0]]}),
            Questions(service).find_features(key, "dog"),
            Questions(service).feature_details(key, found.features[0].feature),
        ]

    assert same(asked(zero.service), here_of(zero, lambda: asked(zero.plain)))


def test_words_are_explained_from_the_worker(zero, picture):
    def asked(service):
        lens = service.lens(LensRequest(picture, PROMPT, max_new_tokens=8))
        run, trace = service.remember(lens), lens.trace
        spec = {"method": "relevancy", "token": 1, "layer": None, "head": None, "over": "mean", "sinks": False}
        patches = [int(trace.grids[0].positions[0, 0])]
        explaining, changing = AttentionService(service), WhatIfService(service)
        return [
            list(explaining.payload(trace)["sinks"].values()),
            explaining.test_map(run, spec),
            explaining.patch_map(trace, MapRequest(1, "rollout")).values.tolist(),
            changing.what_if(run, {"positions": patches, "how": "knockout"}),
            changing.what_if(run, {"positions": patches, "how": "mean"}),
            changing.word_flow(run, {"token": 1, "window": 2, "positions": patches}),
        ]

    assert same(asked(zero.service), here_of(zero, lambda: asked(zero.plain)))


def same(one, other):
    if isinstance(one, float):
        return one == pytest.approx(other, rel=1e-4, abs=1e-6)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_steering_from_the_worker(zero, picture):
    def asked(steering, service):
        edits = steering.edits([EDIT])
        steered = steering.steer(SteerRequest(picture, PROMPT, max_new_tokens=8, words="dog"), edits)
        sweep = steering.sweep(SteerRequest(picture, PROMPT, max_new_tokens=8), edits[0], [-0.5, 0.0, 0.5])
        lens = service.lens(LensRequest(picture, PROMPT, max_new_tokens=8))
        kept = service.remember(SteerRun(steered, TraceRequest(picture, PROMPT, max_new_tokens=8)))
        plain, pushed = steering.both_lenses(kept)
        run = service.remember(lens)
        return [
            steered.to_dict(),
            sweep.to_list(),
            plain.probs.tolist(),
            pushed.probs.tolist(),
            {k: v for k, v in steering.editor(lens.trace, "run", None, None).items() if k != "scene"},
            steering.steerable(run, "dog"),
        ]

    assert same(asked(zero.steering, zero.service), here_of(zero, lambda: asked(zero.plain_steering, zero.plain)))


def test_what_a_call_asks_for(zero, picture):
    zero.service.traces = type(zero.service.traces)()
    zero.service.lens(LensRequest(picture, PROMPT, max_new_tokens=100))
    assert spaces.durations == [zerogpu.seconds(100), zerogpu.seconds()]
    assert zerogpu.seconds() < zerogpu.seconds(100) < zerogpu.seconds(100, rows=8) <= 60
    assert zerogpu.seconds(256, rows=17) == 60  # never more than what ZeroGPU gives by itself


def test_errors_keep_their_words(zero, picture):
    with pytest.raises(InterpError, match="has a context of 512"):
        zero.service.lens(LensRequest(picture, "word " * 600))
    assert zero.service.lens(LensRequest(picture, PROMPT, max_new_tokens=3)).trace.answer
    with pytest.raises(InterpError, match=r"ZeroGPU.*ZeroDivisionError"):
        zerogpu.on_gpu(divmod, 1, 0, allow=1)
    assert zerogpu.on_gpu(divmod, 7, 2, allow=1) == (3, 1)


def test_no_gpu_for_this_visitor(zero, picture, monkeypatch):
    def refuse(_asked, _allow):
        raise gr.Error("You have exceeded your quota (60s requested vs. 0s left).")
        yield

    monkeypatch.setattr(zerogpu, "_call", refuse)
    with pytest.raises(InterpError, match="exceeded your quota"):
        zero.service.lens(LensRequest(picture, "What is on the left?", max_new_tokens=3))


def test_an_sae_that_is_newer_than_the_worker(zero, picture):
    trace = zero.service.trace(TraceRequest(picture, PROMPT, max_new_tokens=3))
    zerogpu.on_gpu(divmod, 7, 2, allow=1)  # forks the worker
    late = dataclasses.replace(zero.service.saes.get(None, "emoji-llava"), b_enc=zero.service.saes.get(None, "emoji-llava").b_enc + 0.1)
    calls = len(spaces.durations)
    acts = zerogpu.on_gpu(late.encode, trace.residual(late.layer), allow=1)
    assert torch.equal(acts.features, late.encode(trace.residual(late.layer)).features)
    assert len(spaces.durations) == calls + 2  # by its name, then whole
    zerogpu.on_gpu(late.encode, trace.residual(late.layer), allow=1)
    assert len(spaces.durations) == calls + 3  # by its name


def test_a_worker_that_is_gone_is_replaced(zero, picture):
    lens = zero.service.lens(LensRequest(picture, PROMPT, max_new_tokens=5))
    spaces.end_workers()
    run = zero.service.remember(lens)
    assert Questions(zero.service).find_word(run, "dog")["values"]
    assert len(spaces.workers) == 1


def test_stopping_ends_the_run_in_the_worker(zero, picture):
    stop, texts = threading.Event(), []

    def show(answers):
        texts.append(answers)
        stop.set()

    with pytest.raises(StoppedError):
        zero.steering.steer(SteerRequest(picture, PROMPT, max_new_tokens=200), zero.steering.edits([EDIT]), on_text=show, stop=stop)
    assert len(texts) == 1
    assert zero.service.lens(LensRequest(picture, PROMPT, max_new_tokens=3)).trace.answer


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).view(2, 3).T,
        torch.tensor(3, dtype=torch.int64),
        torch.empty(0, 4),
        torch.tensor([True, False]),
        torch.randn(3, 2).bfloat16(),
        pytest.param(
            lambda: torch.arange(4.0, device="cuda"), marks=[pytest.mark.gpu, pytest.mark.skipif("not torch.cuda.is_available()")]
        ),
    ],
    ids=["strided", "scalar", "empty", "bool", "bfloat16", "cuda"],
)
def test_tensors_cross_as_cpu_data(tensor):
    tensor = tensor() if callable(tensor) else tensor
    again = zerogpu._loads(zerogpu._dumps(tensor, lambda _name, _new: False))
    assert (again.dtype, again.shape, again.device.type) == (tensor.dtype, tensor.shape, "cpu")
    assert torch.equal(again, tensor.cpu())


def test_a_row_does_not_take_its_table_along():
    table = torch.zeros(1000, 1000)
    assert len(zerogpu._dumps(table[3], lambda _name, _new: False)) < 10_000


def test_a_thread_knows_whose_request_it_is():
    visitor = contextvars.ContextVar("visitor", default=None)
    visitor.set("someone")
    *_, done = stream(lambda _show: visitor.get())
    assert done.result == "someone"


def test_without_zerogpu_nothing_is_wrapped():
    assert not zerogpu.remote()
    assert zerogpu.on_gpu(os.getpid, allow=1) == os.getpid()


@pytest.mark.server
def test_the_app_on_zerogpu(checkpoint, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "fake_spaces"))
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    example = handle_file(ROOT / "assets" / "examples" / "dog-and-pizza.webp")
    with serve("--model", checkpoint("crop")) as running:
        summary, *_ = Client(running.url, verbose=False).predict(image=example, max_new_tokens=4, api_name="/logit_lens")
        workers = Path(f"/proc/{running.pid}/task").glob("*/children")
        assert any(children.read_text() for children in workers)
    assert summary["model"] == checkpoint("crop")
    assert len(summary["patch_words"][0]) == 4


# --- which model, and what may be chosen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gigabytes", "quantize", "model"),
    [
        (0, "auto", "emoji-llava"),
        (4.4, "auto", "emoji-llava"),
        (6, "auto", "llava-gemma-2b"),
        (8, "none", "llava-gemma-2b"),
        (15.6, "auto", "llava-next-llama3-8b"),  # what a T4 has free
        (15.6, "none", "llava-gemma-2b"),
        (80, "auto", "llava-next-llama3-8b"),
    ],
)
def test_the_default_model_is_the_largest_that_fits_with_all_tabs(gigabytes, quantize, model):
    assert app.best_model(int(gigabytes * 1e9), quantize) == model


def test_the_default_model_needs_no_further_steps(monkeypatch):
    small = PRESETS["llava-gemma-2b"]
    for changes in ({"gated": True}, {"requires": ("no_such_package",)}, {"saes": ()}):
        presets = {"emoji-llava": PRESETS["emoji-llava"], small.name: dataclasses.replace(small, **changes)}
        monkeypatch.setattr(app, "PRESETS", presets)
        assert app.best_model(100 * GIB) == "emoji-llava"


@pytest.fixture
def card(monkeypatch):
    """A GPU with the memory of a T4."""
    monkeypatch.setattr(app, "pick_devices", lambda _device: [torch.device("cuda:0")])
    monkeypatch.setattr(app, "free_bytes", lambda _device: int(15.6e9))


@pytest.fixture
def asked(monkeypatch):
    """Arguments of a command line, in an environment that asks for nothing but what is given."""

    def parsed(*given, **environment):
        for name in ("MODEL", "ADAPTER", "QUANTIZE", "SAE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return app.arguments(given)

    return parsed


def test_command_line_and_environment(asked):
    args = asked()
    assert (args.model, args.quantize, args.sae, args.device, args.any_model) == ("", "auto", "", "auto", False)
    args = asked(MODEL="llava-1.5-7b", QUANTIZE="none", SAE="here")
    assert (args.model, args.quantize, args.sae) == ("llava-1.5-7b", "none", "here")
    args = asked("--model", "emoji-llava", "--quantize", "4bit", "--sae", "there", "--device", "cpu", MODEL="x", QUANTIZE="none", SAE="y")
    assert (args.model, args.quantize, args.sae, args.device) == ("emoji-llava", "4bit", "there", "cpu")
    assert asked(MODEL="", QUANTIZE="").quantize == "auto"  # as an emptied variable of a Space


def test_an_adapter_belongs_to_a_model(asked, capsys):
    for args in (asked("--model", "a/b", "--adapter", "c/d"), asked(MODEL="a/b", ADAPTER="c/d"), asked(MODEL="a/b + c/d")):
        assert args.model == "a/b + c/d"
    with pytest.raises(SystemExit):
        asked("--adapter", "c/d")
    assert "--adapter needs --model: the model that the adapter was trained on" in capsys.readouterr().err


@pytest.mark.parametrize("how", [{"given": ("--quantize", "8bit")}, {"QUANTIZE": "8bit"}])
def test_a_wrong_quantisation_is_refused_at_the_start(asked, how, capsys):
    with pytest.raises(SystemExit):
        asked(*how.pop("given", ()), **how)
    assert "quantize is '8bit'; it must be one of auto, 4bit, none" in capsys.readouterr().err


def test_zerogpu_takes_16_bit_and_one_model(asked, monkeypatch, capsys):
    monkeypatch.setattr(app, "remote", lambda: True)
    assert asked().quantize == "none"
    assert asked("--quantize", "4bit").quantize == "4bit"
    with pytest.raises(SystemExit):
        asked("--any-model")
    assert "on ZeroGPU" in capsys.readouterr().err


def test_a_default_that_cannot_be_loaded_is_replaced_and_the_page_says_why(asked, card, monkeypatch):
    def unreachable(service, *_args, **_more):
        raise InterpError(f"{service.default_model} cannot be fetched: <no network>.")

    monkeypatch.setattr(Service, "vlm", unreachable)
    service = app.service_for(asked())
    assert service.default_model == "emoji-llava"
    assert "llava-next-llama3-8b could not be loaded" in service.notice
    notice = next(part for part in build(service).blocks.values() if part.elem_id == "notice")
    assert "&lt;no network&gt;" in notice.value
    assert "<no" not in notice.value


def test_a_default_that_can_be_loaded_is_served(asked, card, monkeypatch):
    loaded = []
    monkeypatch.setattr(Service, "vlm", lambda service, *_: loaded.append(service.default_model))
    service = app.service_for(asked(SAE="mine"))
    assert (service.default_model, loaded, service.notice) == ("llava-next-llama3-8b", ["llava-next-llama3-8b"], "")
    assert service.saes.names() == ("mine", *[sae.name for sae in PRESETS["llava-next-llama3-8b"].saes])
    assert not [part for part in build(service).blocks.values() if getattr(part, "elem_id", None) == "notice"]


def test_a_model_that_was_asked_for_is_never_replaced(asked, card):
    service = app.service_for(asked(MODEL="no-such-model"))
    assert service.default_model == "no-such-model"
    app.load_ahead(service)
    with pytest.raises(InterpError, match="neither a known model nor a folder"):
        service.vlm()


def test_without_a_gpu_the_embedded_model_is_served(asked, monkeypatch):
    monkeypatch.setattr(app, "free_bytes", lambda device: pytest.fail(f"the memory of {device} says nothing about a GPU"))
    service = app.service_for(asked("--device", "cpu"))
    assert (service.default_model, service.notice) == ("emoji-llava", "")


def test_an_sae_of_ones_own_is_the_first(asked, tmp_path):
    folder = tmp_path / "my-sae"
    folder.symlink_to(ROOT / "assets" / "emoji-llava-sae")
    service = Service(sae=str(folder), shared=True)
    assert service.saes.names() == ("my-sae", "emoji-llava-sae")
    sae = service.saes.get(None, "emoji-llava")
    assert sae.name == "my-sae"  # by which an edit finds it again, without the path that visitors need not know
    assert service.saes.get(sae.name, "emoji-llava") is sae
    assert service.saes.names("llava-1.5-7b") == ()


# --- README and pins ---------------------------------------------------------------------------------------------------------------------


def front_matter():
    return yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---")[1])


def pins(name):
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return dict(re.fullmatch(r"([\w-]+)(?:\[\w+\])?==(\S+)", line).groups() for line in lines if line)


def test_front_matter():
    about = front_matter()
    assert about["sdk"] == "gradio"
    assert about["sdk_version"] == pins("requirements.txt")["gradio"]
    assert about["python_version"] == "3.12.12"
    assert (ROOT / about["app_file"]).is_file()
    assert about["suggested_hardware"] == "t4-small"
    assert len(about["short_description"]) <= 60  # the hub refuses longer ones
    hub = {preset.name: preset for preset in PRESETS.values() if not Path(preset.checkpoint).is_absolute()}
    assert sorted(about["models"]) == sorted(preset.checkpoint for preset in hub.values())
    default = hub[app.best_model(int(15.6e9))]  # what the suggested hardware serves is there before it starts
    assert [line.split()[0] for line in about["preload_from_hub"]] == [default.checkpoint, default.saes[0].source]


def test_the_pins_of_zerogpu_are_the_others_with_an_older_torch():
    ours, theirs = pins("requirements.txt"), pins("requirements-zerogpu.txt")
    changed = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    assert changed == {"torch", "torchvision", "spaces"}
    assert tuple(map(int, theirs["torch"].split("."))) <= (2, 11, 0)
    assert front_matter()["sdk_version"] == theirs["gradio"]
