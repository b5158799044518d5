"""Fixtures: tiny random models of the real classes, loaded by the real loading code. Nothing here needs a network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported; without it an unknown name is retried for half a minute
# Read when numpy, scikit-learn and torch are imported, here and in processes that tests start: models this small only lose time to more threads.
os.environ["OMP_NUM_THREADS"] = "1"

import functools
import gc
import shutil

import pytest
import transformers

import interp
from interp.study.study import about_sae
from tests import tiny
from tests.hub_server import connected
from tests.server import serve
from tests.study.made_index import write_index

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

KINDS = {
    "crop": {"kind": "crop"},
    "pad": {"kind": "pad"},
    "stretch": {"kind": "stretch"},
    "interleave": {"kind": "siglip", "text": "qwen2", "padding": tiny.PADDING_ROWS},
    "ignored cap": {"kind": "crop", "text": "gemma2"},
    "padded": {"kind": "crop", "padding": tiny.PADDING_ROWS},
}
PROMPT = "Describe the image."


SLOW = (
    "tests/bench/",
    "tests/emoji_world/",
    "tests/models/test_memory.py",
    "tests/service/test_space.py",
    "tests/test_wheel.py",
    "tests/vision/test_families.py",
    "tests/vision/test_layouts.py::test_a_painted_box",
    "tests/web/test_frontend.py::test_format",
)


def pytest_collection_modifyitems(items):
    """Marks for what a test needs, so that `make test-fast` can leave it out."""
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker("slow")
        if "chromium" in item.fixturenames:
            item.add_marker("browser")
        if "url" in item.fixturenames:
            item.add_marker("server")


def pytest_collection_finish():
    """Modules stay: garbage collection, which the package asks for where memory is short, need not look through them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """name → folder of a saved checkpoint."""

    @functools.cache
    def folder(name):
        return tiny.save(tmp_path_factory.mktemp(name.replace(" ", "-")), *tiny.build(**KINDS[name]))

    return folder


@pytest.fixture(scope="session")
def load(checkpoint):
    """(name, quantize) → Vlm, the same one each time: tests must leave it as they found it."""

    @functools.cache
    def loaded(name, quantize="none"):
        if name == "capped":
            return interp.Vlm(capped_model(), tiny.build("crop", text="gemma2")[1], name="capped")
        return interp.load(checkpoint(name), quantize=quantize, device="cpu")

    def capped_model():
        return tiny.CappedLlava.from_pretrained(checkpoint("ignored cap")).eval()

    return loaded


@pytest.fixture(scope="session")
def vlm(load):
    return load("crop")


@pytest.fixture(scope="session")
def picture():
    return tiny.noise(120, 90)


@pytest.fixture(scope="session")
def trace(vlm, picture):
    return vlm.trace(picture, PROMPT, max_new_tokens=6)


@pytest.fixture(scope="session")
def lens(trace):
    return interp.logit_lens(trace, top_k=3)


@pytest.fixture
def checkpoint_copy(checkpoint, tmp_path):
    """A folder that a test may spoil."""
    return shutil.copytree(checkpoint("crop"), tmp_path / "checkpoint")


@pytest.fixture(scope="session")
def emoji_vlm():
    return interp.load("emoji-llava", device="cpu")


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """The real app, with a study of the SAE that it runs. Tests share it: visitors do."""
    sae = interp.load_sae("emoji-llava")
    study = write_index(tmp_path_factory.mktemp("made-up"), about_sae(sae)["weights"], features=sae.d_sae)
    with serve("--study", str(study)) as running:
        yield running


@pytest.fixture(scope="session")
def url(served):
    """Its address."""
    return served.url


@pytest.fixture
def model_hub(tmp_path, monkeypatch):
    """A hub on this machine that huggingface_hub talks to."""
    with connected(tmp_path, monkeypatch) as running:
        yield running
