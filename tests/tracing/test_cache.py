import gc
import io

import pytest
import torch
from PIL import Image

import interp
from interp import InterpError, TraceCache
from interp.vision import stored
from tests import tiny
from tests.conftest import PROMPT
from tests.tracing.test_trace import in_threads


@pytest.fixture
def runs(vlm):
    """One entry for every forward of the decoder."""
    calls = []
    decoder = vlm.model.get_decoder()
    handle = decoder.register_forward_pre_hook(lambda *_: calls.append(1))
    yield calls
    handle.remove()


def test_a_second_look_runs_nothing(vlm, picture, runs):
    cache = TraceCache()
    first = cache.get(vlm, picture, PROMPT, max_new_tokens=3)
    assert len(runs) == 3
    seen = []
    again = cache.get(vlm, picture.copy(), PROMPT, max_new_tokens=3, on_text=seen.append)
    assert again is first
    assert seen == [first.answer]
    assert len(runs) == 3
    assert len(cache) == 1


def test_what_makes_a_trace_another_one(vlm, load, picture):
    cache = TraceCache()
    base = {"vlm": vlm, "image": picture, "prompt": PROMPT, "max_new_tokens": 2}
    one_pixel = picture.copy()
    one_pixel.putpixel((5, 5), (0, 0, 0))
    turned = Image.frombytes("RGB", picture.size[::-1], picture.tobytes())  # the same bytes in another shape
    twin = interp.Vlm(load("crop").model, load("crop").processor)  # could have been patched by its owner
    changes = [
        {},
        {"image": one_pixel},
        {"image": turned},
        {"prompt": PROMPT + " "},
        {"max_new_tokens": 3},
        {"answer": "dog"},
        {"answer": "cat"},
        {"vlm": load("pad")},
        {"vlm": twin},
    ]
    traces = [cache.get(**base | change) for change in changes]
    assert len({id(trace) for trace in traces}) == len(cache) == len(changes)
    assert all(cache.get(**base | change) is trace for change, trace in zip(changes, traces, strict=True))


def test_a_cached_file_is_known_by_its_content(vlm, picture, tmp_path):
    cache = TraceCache()
    picture.save(tmp_path / "a.png")
    first = cache.get(vlm, tmp_path / "a.png", PROMPT, max_new_tokens=1)
    assert cache.get(vlm, picture, PROMPT, max_new_tokens=1) is first
    tiny.noise(50, 50, 3).save(tmp_path / "a.png")
    assert cache.get(vlm, tmp_path / "a.png", PROMPT, max_new_tokens=1) is not first


def test_notes_survive_the_cache(vlm):
    clear = Image.new("RGBA", (60, 60), (0, 0, 0, 0))
    assert "Transparent" in TraceCache().get(vlm, clear, PROMPT, max_new_tokens=1).notes[0]
    assert "Transparent" in vlm.trace(clear, PROMPT, max_new_tokens=1).notes[0]


def test_the_cache_is_bounded_in_bytes_and_forgets_the_least_recent(vlm, picture, runs):
    size = TraceCache().get(vlm, picture, PROMPT, answer="dog").nbytes
    cache = TraceCache(max_bytes=2 * size)
    words = {word: cache.get(vlm, picture, PROMPT, answer=word) for word in ("dog", "cat")}
    assert cache.nbytes == 2 * size
    cache.get(vlm, picture, PROMPT, answer="dog")  # now "cat" is the least recent
    cache.get(vlm, picture, PROMPT, answer="tree")
    assert cache.nbytes <= 2 * size
    runs.clear()
    assert cache.get(vlm, picture, PROMPT, answer="dog") is words["dog"]
    assert not runs
    assert cache.get(vlm, picture, PROMPT, answer="cat") is not words["cat"]
    assert runs
    tight = TraceCache(max_bytes=1)
    for word in ("dog", "cat"):
        tight.get(vlm, picture, PROMPT, answer=word)
        assert len(tight) == 1  # the newest stays, whatever its size


def pixels_alive():
    """Bytes of all decoded pictures in this process."""
    gc.collect()
    held = [one for one in gc.get_objects() if Image.Image in type(one).__mro__]
    return sum(4 * one.width * one.height for one in held if one._im is not None)


def picture_of(kind, seed):
    if kind == "noise":
        return tiny.noise(400, 300, seed)
    return Image.radial_gradient("L").resize((400, 300)).rotate(seed).convert("RGB")


@pytest.fixture
def small_is_large(monkeypatch):
    """Pictures of 360 000 bytes are treated as large ones are."""
    monkeypatch.setattr(stored, "_SMALL", 100_000)


@pytest.mark.parametrize(("kind", "source"), [("noise", "file"), ("smooth", "bytes"), ("noise", "picture")])
def test_everything_that_cached_traces_hold_is_counted(vlm, tmp_path, small_is_large, kind, source):
    before = pixels_alive()
    cache = TraceCache(max_bytes=1_400_000)
    for seed in range(5):
        given = picture_of(kind, seed)
        if source != "picture":
            given.save(tmp_path / "a.jpg", quality=90)
            given = tmp_path / "a.jpg" if source == "file" else (tmp_path / "a.jpg").read_bytes()
        trace = cache.get(vlm, given, PROMPT, max_new_tokens=1)
        given = None
    assert pixels_alive() == before, "nothing is held decoded"
    held = [vars(trace)["image"] for trace, _ in cache._traces.values()]
    assert sum(len(image.data) for image in held) < cache.nbytes <= cache.max_bytes
    assert len(cache) == (3 if source == "picture" else 5)  # 360 000 bytes each as rows of RGB; a file is kept as it is
    assert trace.image_size == trace.image.size == (400, 300)


def test_a_large_picture_is_kept_as_its_file_and_decoded_to_the_same_pixels(vlm, small_is_large):
    picture, buffer = picture_of("noise", 0), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(buffer, "JPEG", quality=80, exif=exif)
    plain = vlm.trace(buffer.getvalue(), PROMPT, max_new_tokens=1)
    cached = TraceCache().get(vlm, buffer.getvalue(), PROMPT, max_new_tokens=1)
    assert cached.nbytes < plain.nbytes - 100_000
    assert cached.image_size == (300, 400)
    assert cached.image.tobytes() == plain.image.tobytes()


def test_views_are_counted(vlm, picture):
    trace = vlm.trace(picture, PROMPT, max_new_tokens=1)
    view, grid = trace.views[0], trace.grids[0]
    parts = trace.states.nbytes + 3 * picture.width * picture.height + 3 * view.width * view.height
    assert trace.nbytes >= parts + grid.boxes.nbytes + grid.positions.nbytes


def test_what_a_caller_does_to_a_cached_picture_stays_with_the_caller(vlm, picture, runs):
    cache = TraceCache()
    given = picture.copy()
    first = cache.get(vlm, given, PROMPT, max_new_tokens=1)
    before, view = first.image.tobytes(), first.views[0].tobytes()
    for touched in (given, first.image, first.views[0]):
        touched.paste((0, 0, 0), (0, 0, 20, 20))
    assert first.image.tobytes() == before == picture.tobytes()
    assert first.views[0].tobytes() == view
    runs.clear()
    assert cache.get(vlm, picture, PROMPT, max_new_tokens=1) is first
    assert not runs


@pytest.mark.parametrize(
    "change",
    [lambda trace: trace.states.zero_(), lambda trace: trace.residual(1).add_(1), lambda trace: trace.grids[0].boxes[0, 0].fill_(7)],
    ids=["states", "a layer", "boxes"],
)
def test_a_trace_whose_tensors_a_caller_changed_is_computed_again(vlm, picture, change):
    cache = TraceCache()
    first = cache.get(vlm, picture, PROMPT, max_new_tokens=2)
    states, boxes = first.states.clone(), first.grids[0].boxes.clone()
    change(first)
    again = cache.get(vlm, picture, PROMPT, max_new_tokens=2)
    assert torch.equal(again.states, states)
    assert torch.equal(again.grids[0].boxes, boxes)
    assert cache.get(vlm, picture, PROMPT, max_new_tokens=2) is again


def test_pictures_that_differ_in_their_notes_only_are_kept_apart(vlm):
    cache = TraceCache()
    white, clear = Image.new("RGB", (60, 60), "white"), Image.new("RGBA", (60, 60), (255, 255, 255, 0))
    assert cache.get(vlm, white, PROMPT, max_new_tokens=1).notes == ()
    assert "Transparent" in cache.get(vlm, clear, PROMPT, max_new_tokens=1).notes[0]


@pytest.fixture
def own_vlm(checkpoint):
    """A model that a test may change."""
    return interp.load(checkpoint("crop"), quantize="none", device="cpu")


def scale(vlm):
    with torch.no_grad():
        vlm.blocks[1].mlp.up_proj.weight.mul_(2)


def scale_data(vlm):
    vlm.blocks[1].mlp.up_proj.weight.data *= 2


def replace(vlm):
    vlm.blocks[1].mlp.up_proj.weight = torch.nn.Parameter(2 * vlm.blocks[1].mlp.up_proj.weight.detach())


def load_state(vlm):
    vlm.model.load_state_dict({name: 2 * value if "up_proj" in name else value for name, value in vlm.model.state_dict().items()})


def template(vlm):
    vlm.processor.chat_template = vlm.processor.chat_template.replace("ASSISTANT", "ANSWER")


def end(vlm):
    free = vlm.trace(tiny.noise(120, 90), PROMPT, max_new_tokens=2)
    vlm.model.generation_config.eos_token_id = free.tokens[-2].id


def image_mean(vlm):
    vlm.processor.image_processor.image_mean = [0.1, 0.2, 0.3]


@pytest.mark.parametrize("change", [scale, scale_data, replace, load_state, template, end, image_mean])
def test_a_changed_model_does_not_return_the_old_trace(own_vlm, picture, change):
    cache = TraceCache()
    old = cache.get(own_vlm, picture, PROMPT, max_new_tokens=2)
    change(own_vlm)
    new = cache.get(own_vlm, picture, PROMPT, max_new_tokens=2)
    assert new.states.shape != old.states.shape or not torch.equal(new.states, old.states)
    assert cache.get(own_vlm, picture, PROMPT, max_new_tokens=2) is new


@pytest.mark.parametrize("wrong", [None, "emoji-llava", object()])
def test_what_is_not_a_model_is_refused(wrong, picture):
    with pytest.raises(InterpError, match=r"vlm is .*it must be a Vlm"):
        TraceCache().get(wrong, picture, PROMPT)


def test_what_failed_is_not_kept(vlm, picture):
    cache = TraceCache()
    for arguments in ({"prompt": ""}, {"prompt": PROMPT, "max_new_tokens": 0}):
        with pytest.raises(InterpError):
            cache.get(vlm, picture, **arguments)
    assert len(cache) == 0
    cache.get(vlm, picture, PROMPT, max_new_tokens=1)
    with pytest.raises(InterpError, match="max_new_tokens is True"):  # though True == 1
        cache.get(vlm, picture, PROMPT, max_new_tokens=True)


def test_threads_that_ask_for_the_same_trace_share_one_generation(vlm, picture, runs):
    cache = TraceCache()
    traces = in_threads(*[lambda: cache.get(vlm, picture, PROMPT, max_new_tokens=3)] * 4)
    assert all(trace is traces[0] for trace in traces)
    assert len(runs) == 3
