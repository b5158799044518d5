"""The left column: what it says about models."""

import pytest

from interp.presets import PRESETS
from interp.service.service import Service
from interp.ui.controls import about_model, model_names
from interp.ui.page import build


@pytest.fixture(scope="module")
def service():
    return Service()


def test_a_fine_tune_can_be_named(service):
    box, fixed = (
        next(part for part in build(each).blocks.values() if part.elem_id == "model")
        for each in (service, Service("a/b + c/d", shared=True))
    )
    assert "MODEL + ADAPTER" in box.info
    assert box.allow_custom_value
    assert fixed.value == "a/b + c/d"
    assert not fixed.allow_custom_value


def test_a_fine_tune_stands_below_its_base(service):
    names = model_names(service)
    assert names[:3] == ["emoji-llava", "emoji-llava + emoji-llava-adapter", "smol-llava"]
    assert model_names(Service("a/b"))[:2] == ["a/b", "emoji-llava"]


def test_what_is_said_about_a_fine_tune(service):
    assert about_model(service, "emoji-llava") == f"<p>{PRESETS['emoji-llava'].about}</p>"
    own = about_model(service, "llava-1.5-7b + someone/<b>")
    assert own.startswith("<p>With the adapter someone/&lt;b&gt;: LLaVA 1.5")
    assert "GB of memory" in own
    shipped = PRESETS["emoji-llava"].adapters[0]
    assert about_model(service, f"emoji-llava + {shipped.name}") == f"<p>{shipped.about}</p>"
    assert about_model(service, "someone/vlm + someone/<b>") == "<p>someone/vlm + someone/&lt;b&gt;</p>"
