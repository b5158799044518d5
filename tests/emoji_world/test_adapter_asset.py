"""The fine-tune that ships: it is small, loads as any user's own, and does what its card says."""

import pytest
from PIL import Image

import interp
from interp.emoji_world.measure import question_accuracy
from interp.emoji_world.train_adapter import NEW, OLD, TUNED, in_style, measured, unseen
from interp.presets import ASSETS, PRESETS
from interp.service.requests import TraceRequest
from interp.service.service import Service

FOLDER = ASSETS / "emoji-llava-adapter"
NAME = "emoji-llava + emoji-llava-adapter"
PICTURE = ASSETS / "examples" / "dog-and-pizza.webp"
PROMPT = "Describe the image."


@pytest.fixture(scope="module")
def tuned():
    return interp.load("emoji-llava", adapter=FOLDER, device="cpu")


def test_it_is_small_and_holds_no_pickle():
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert set(files) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert sum(files.values()) <= 2_000_000


def test_unseen_scenes_are_described_in_its_style_and_the_dog_has_its_new_name(tuned):
    data, dogs = unseen(24, ["noto", "fluent-emoji"])
    figures = measured(tuned, data, dogs, tuned=True)
    assert figures.style >= 0.9
    assert figures.renamed >= 0.9
    assert figures.old <= 0.1
    assert figures.recall >= 0.9
    assert min(question_accuracy(tuned, data, TUNED).values()) >= 0.8


def test_it_is_known_by_name(tuned):
    vlm = interp.load("emoji-llava", adapter="emoji-llava-adapter", device="cpu")
    assert vlm.name == NAME
    assert interp.load(NAME, device="cpu").name == NAME
    with Image.open(PICTURE) as picture:
        answer = vlm.trace(picture, PROMPT).answer
        assert answer == tuned.trace(picture, PROMPT).answer
    assert in_style(answer)
    assert NEW in answer
    assert OLD not in answer


def test_the_service_offers_and_runs_it():
    service = Service(device="cpu")

    def loaded():
        (base,) = [model for model in service.models() if model["name"] == "emoji-llava"]
        assert [each["name"] for each in base["adapters"]] == [NAME]
        assert base["adapters"][0]["about"] == PRESETS["emoji-llava"].adapters[0].about
        return base["loaded"], base["adapters"][0]["loaded"]

    trace = service.trace(TraceRequest.of({"image": str(PICTURE), "prompt": PROMPT, "model": NAME, "max_new_tokens": 32}))
    assert in_style(trace.answer)
    assert trace.model_name == NAME
    assert loaded() == (False, True)
    trace = service.trace(TraceRequest.of({"image": str(PICTURE), "prompt": PROMPT, "model": "emoji-llava", "max_new_tokens": 32}))
    assert "a dog and a pizza" in trace.answer
    assert loaded() == (True, False)
