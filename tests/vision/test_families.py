"""Every family's geometry, lens and steering, on tiny random models of its real classes with their real processors."""

import functools
import importlib.util
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from transformers import AutoModelForImageTextToText, DynamicCache

import interp
from interp import Edit, InterpError
from interp.models.loading import _four_bit
from interp.tracing.record import record
from interp.vision.layouts import LAYOUTS, REFUSED
from tests import families, tiny
from tests.conftest import PROMPT
from tests.families import vlm as family
from tests.painting import image_rows, inner_half

NAMES = list(families.FAMILIES)
WITH_GRIDS = [name for name in NAMES if not name.startswith("idefics2")]
SIZES = {"portrait": (120, 200), "landscape": (200, 120), "square": (150, 150), "tiny": (23, 31), "huge": (660, 240), "tall": (90, 270)}
PAINTED = 7  # patches of a grid that are tried: its corners, and others by chance


@functools.cache
def picture(width, height):
    """Grey noise that stays noise when a large picture is made small."""
    small = tiny.noise(max(1, width // 3), max(1, height // 3)) if max(width, height) > 500 else tiny.noise(width, height)
    return small.resize((width, height), Image.Resampling.NEAREST)


def painted(image, box):
    inner = inner_half(box)
    if inner is None:
        return None
    out = image.copy()
    ImageDraw.Draw(out).rectangle(inner, fill=(255, 0, 0))
    return out


def tried(grid):
    """Cells of a grid: the corners, and some others."""
    last_row, last_col = grid.rows - 1, grid.cols - 1
    corners = [(0, 0), (0, last_col), (last_row, 0), (last_row, last_col)]
    cells = [(row, col) for row in range(grid.rows) for col in range(grid.cols)]
    return list(dict.fromkeys(corners + random.Random(0).sample(cells, min(len(cells), PAINTED - 4))))


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", WITH_GRIDS)
def test_a_painted_box_changes_its_own_token_most(name, size):
    vlm, image = family(name), picture(*size)
    grids = vlm.prepare(image, PROMPT).layout.grids
    cases = [(grid, cell, paint) for grid in grids for cell in tried(grid) if (paint := painted(image, grid.box(*cell))) is not None]
    assert len(cases) >= len(grids)
    plain, *changed = image_rows(vlm, [image, *(paint for _, _, paint in cases)])
    positions = torch.cat([grid.positions.flatten() for grid in grids])
    row_of = {int(position): row for row, position in enumerate(positions.sort().values)}
    # Rows come in the order of their positions, without the newlines.
    for (grid, cell, _), rows in zip(cases, changed, strict=True):
        change = (rows - plain).norm(dim=-1)
        of_grid = torch.tensor([[float(change[row_of[position]]) for position in line] for line in grid.positions.tolist()])
        best = divmod(int(of_grid.argmax()), grid.cols)
        slack = 1 if name == "onevision shrunk" and grid.name == "tiles" else 0  # its patches are blends of neighbours
        assert max(abs(best[0] - cell[0]), abs(best[1] - cell[1])) <= slack, (grid.name, cell, best)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", WITH_GRIDS)
def test_views_show_what_the_boxes_say(name, size):
    """What is painted in the picture is red at the same place of the view."""
    vlm, image = family(name), picture(*size)
    plain = vlm.prepare(image, PROMPT).layout
    for g, grid in enumerate(plain.grids):
        cell = (grid.rows // 2, grid.cols // 2)
        paint = painted(image, grid.box(*cell))
        if paint is None:
            continue
        view = vlm.prepare(paint, PROMPT).layout.views[g]
        assert view.size == plain.views[g].size
        red = np.asarray(view, dtype=int)
        red = red[..., 0] - red[..., 2]
        height, width = red.shape
        y, x = np.unravel_index(red.argmax(), red.shape)
        rows, cols = grid.rows, grid.cols
        if name.startswith("molmo2"):  # a pooled cell at the edge may be of fewer patches
            continue
        assert abs((y + 0.5) * rows / height - cell[0] - 0.5) < 1
        assert abs((x + 0.5) * cols / width - cell[1] - 0.5) < 1


@pytest.mark.parametrize("size", [(120, 200), (200, 120), (150, 150)], ids=str)
@pytest.mark.parametrize("name", WITH_GRIDS)
def test_a_view_is_what_its_grid_covers_of_the_picture(name, size):
    width, height = size
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    slope = Image.fromarray(np.stack([across, down, 255 - across], -1).astype(np.uint8))
    layout = family(name).prepare(slope, PROMPT).layout
    for grid, view in zip(layout.grids, layout.views, strict=True):
        expected = slope.resize(view.size, Image.Resampling.BILINEAR, box=grid.seen)
        off = np.abs(np.asarray(view, dtype=float) - np.asarray(expected, dtype=float))
        inner = off[off.shape[0] // 8 : -off.shape[0] // 8, off.shape[1] // 8 : -off.shape[1] // 8]  # a patch at the edge may hold padding
        assert inner.mean() < 5


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_every_image_token_has_one_place_or_is_a_separator(name, size):
    vlm, image = family(name), picture(*size)
    trace = vlm.trace(image, PROMPT, max_new_tokens=1)
    placed = [i for part in (*trace.grids, *trace.regions) for i in part.positions.flatten().tolist()]
    assert len(placed) == len(set(placed))
    assert sorted(placed) == trace.positions("image")
    tokens = [i for i, token in enumerate(trace.tokens) if token.id == vlm.image_token_id]
    assert set(tokens) <= set(placed) | set(trace.positions("separator"))
    assert trace.regions or trace.grids
    for grid in trace.grids:
        assert torch.equal(grid.positions.flatten().sort().values, grid.positions.flatten()) or grid.name == "tiles"
        left, top, right, bottom = grid.seen
        assert 0 <= left < right <= image.width
        assert 0 <= top < bottom <= image.height


# (family, sizes of pictures that its processor or model cannot take, what the error says)
TOO_EXTREME = [
    ("qwen2_vl", [(2100, 10)], "absolute aspect ratio must be smaller than 200"),
    ("idefics2 split", [(1, 1)], "division"),  # it has no quadrants
    ("mistral3", [(1, 1)], "a single patch, which Mistral 3 cannot read"),
    *(
        (name, [(570, 3), (3, 570)], "Size must contain") for name in ("mistral3", "pixtral")
    ),  # scaled down, the short side is less than a pixel
]


@pytest.mark.parametrize("size", [(1, 1), (570, 3), (3, 570)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_extreme_shapes_have_their_places(name, size):
    if any(name == refusing and size in sizes for refusing, sizes, _ in TOO_EXTREME):
        pytest.skip("refused")
    trace = family(name).trace(tiny.noise(*size), PROMPT, max_new_tokens=1)
    assert sorted(i for part in (*trace.grids, *trace.regions) for i in part.positions.flatten().tolist()) == trace.positions("image")
    for grid in trace.grids:
        assert torch.isfinite(grid.boxes).all()


@pytest.mark.parametrize(("name", "size", "why"), [(name, sizes[0], why) for name, sizes, why in TOO_EXTREME])
def test_a_picture_that_a_processor_refuses_is_refused_in_words(name, size, why):
    with pytest.raises(InterpError, match=rf"{size[0]} x {size[1]} pixels.*{why}.*[Ss]cale it"):
        family(name).trace(tiny.noise(*size), PROMPT)


def test_newlines_behind_rows_of_tiles_are_separators():
    for name in ("llava_next", "onevision"):
        vlm = family(name)
        trace = vlm.trace(picture(120, 200), PROMPT, max_new_tokens=1)
        newlines = trace.residual(interp.EMBED)[trace.positions("separator")]
        assert len(newlines) == trace.grids[1].rows
        assert torch.equal(newlines, vlm.model.model.image_newline.detach().expand_as(newlines))


@pytest.mark.parametrize(("name", "mark"), [("idefics3", "<row_"), ("molmo2", "<im_col>"), ("idefics2 split", "<fake_token_around_image>")])
def test_marks_between_image_tokens_are_separators(name, mark):
    trace = family(name).trace(picture(120, 200), PROMPT, max_new_tokens=1)
    first, last = trace.positions("image")[0], trace.positions("image")[-1]
    inside = {trace.tokens[i].kind for i in range(first, last) if trace.tokens[i].text.startswith(mark)}
    assert inside == {"separator"}
    assert trace.tokens[first - 1].kind == "special"  # what opens the picture is not inside it


def test_a_perceiver_has_regions_and_no_grid():
    """With splitting, paint in one quadrant reaches its own latents, and those of the whole picture, and no others."""
    vlm, image = family("idefics2 split"), picture(120, 200)
    layout = vlm.prepare(image, PROMPT).layout
    assert not layout.grids
    assert not layout.views
    with pytest.raises(InterpError, match="image tokens are not patches"):
        interp.logit_lens(vlm.trace(image, PROMPT, max_new_tokens=1)).grid(1)
    assert [region.name for region in layout.regions] == ["top left", "top right", "bottom left", "bottom right", "whole picture"]
    paints = [painted(image, region.box) for region in layout.regions[:4]]
    plain, *changed = image_rows(vlm, [image, *paints])
    for quadrant, rows in enumerate(changed):
        change = (rows - plain).norm(dim=-1).view(5, -1).amax(1)
        assert (change > 1e-3).tolist() == [i in {quadrant, 4} for i in range(5)]
    (whole,) = family("idefics2").prepare(image, PROMPT).layout.regions
    assert whole.box == (0, 0, 120, 200)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_layer_of_the_lens_is_what_the_model_says(name):
    vlm, image = family(name), picture(120, 200)
    trace = vlm.trace(image, PROMPT, max_new_tokens=5)
    lens = interp.logit_lens(trace, top_k=3)
    inputs = vlm.prepare(image, PROMPT)
    ids = [token.id for token in trace.tokens[inputs["input_ids"].shape[1] : -1]]
    with torch.inference_mode():
        own = vlm.model(**inputs).logits[0].float()  # of the whole prompt, as the model's own forward gives them
        said = vlm.read(inputs.tensors, ids)[0].float()
    logits = torch.cat([own[:-1], said])
    torch.testing.assert_close(lens.log_z[-1], logits.logsumexp(-1), atol=1e-4, rtol=1e-4)
    best = logits.masked_fill(torch.isin(torch.arange(logits.shape[1]), torch.tensor(vlm.vocabulary.undecodable)), -torch.inf)
    assert (lens.ids[-1, :, 0] == best.argmax(-1)).float().mean() > 0.99  # rounding may turn a tie
    assert trace.tokens[-1].id == int(logits[-1].argmax())


@pytest.mark.parametrize("name", NAMES)
def test_a_forced_answer_is_read_as_it_was_generated(name):
    vlm, image = family(name), picture(120, 200)
    trace = vlm.trace(image, PROMPT, max_new_tokens=5)
    inputs = vlm.prepare(image, PROMPT)
    start = inputs["input_ids"].shape[1]
    forced = record(vlm, inputs, max_new_tokens=0, answer=torch.tensor([token.id for token in trace.tokens[start:]]))
    assert [token.id for token in forced.tokens] == [token.id for token in trace.tokens]
    torch.testing.assert_close(forced.states, trace.states, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_s_mark_in_a_forced_answer_stands_for_no_picture(name):
    vlm, image = family(name), picture(120, 200)
    mark = vlm.tokenizer.convert_ids_to_tokens(vlm.image_token_id)
    plain, marked = (vlm.trace(image, PROMPT, answer=answer) for answer in ("dog and cat", f"dog {mark} cat"))
    assert marked.positions("image") == plain.positions("image")
    assert vlm.image_token_id in [token.id for token in marked.tokens[plain.positions("answer")[0] :]]


@pytest.mark.parametrize("name", NAMES)
def test_a_push_of_nothing_changes_nothing_and_a_push_does(name):
    vlm, image = family(name), picture(120, 200)
    direction = torch.randn(vlm.d_model, generator=torch.Generator().manual_seed(0))
    trace = vlm.trace(image, PROMPT, max_new_tokens=4)
    nothing = interp.steer(vlm, image, PROMPT, [Edit(vector=direction, layer=1, strength=0)], max_new_tokens=4)
    assert nothing.plain == nothing.steered == trace.answer
    assert max(nothing.kl) < 1e-6
    pushed = interp.steer(vlm, image, PROMPT, [Edit(vector=direction, layer=1, strength=1, where="image")], max_new_tokens=4)
    assert pushed.fired == (len(trace.positions("image")),)
    assert pushed.plain == trace.answer
    assert max(pushed.kl) > 1e-6


def test_a_layer_is_read_and_edited_after_picture_features_are_added_to_it(monkeypatch):
    """Qwen3-VL adds to the stream behind its first two blocks (deepstack): what the next block reads is the layer, and what an edit changes."""
    vlm, image = family("qwen3_vl"), picture(120, 200)
    decoder, added = vlm.model.get_decoder(), []
    inject = decoder._deepstack_process

    def watched(hidden, *args):
        added.append((hidden, inject(hidden, *args)))
        return added[-1][1]

    monkeypatch.setattr(decoder, "_deepstack_process", watched)
    trace = vlm.trace(image, PROMPT, max_new_tokens=1)
    assert len(added) == 2
    seen = trace.positions("image")
    for layer, (before, after) in enumerate(added):
        assert torch.equal(trace.residual(layer)[: after.shape[1]], after[0])
        assert ((after - before)[0, seen].norm(dim=-1) > 1e-3).all()

    read = []  # by the block behind the edited layer
    handle = vlm.blocks[1].input_layernorm.register_forward_pre_hook(lambda _module, args: read.append(args[0].clone()))
    try:
        direction = torch.randn(vlm.d_model, generator=torch.Generator().manual_seed(0))
        interp.steer(vlm, image, PROMPT, [Edit(vector=direction, layer=0, strength=0.5, where="image")], max_new_tokens=1)
    finally:
        handle.remove()
    plain, steered = read[0]
    expected = 0.5 * plain[seen].norm(dim=-1).median() * direction / direction.norm()
    torch.testing.assert_close((steered - plain)[seen], expected.expand(len(seen), -1), atol=1e-4, rtol=1e-4)


def test_a_linear_attention_layer_cannot_forget_its_answer_and_the_prompt_is_read_again():
    """Qwen3.5: the state of linear attention has no positions to cut off, so the cache is not reused, and the answer is the same."""
    vlm = family("qwen3_5")
    out = vlm.model.generate(**vlm.prepare(picture(120, 200), PROMPT).tensors, max_new_tokens=3, return_dict_in_generate=True)
    with pytest.raises(RuntimeError, match="crop"):
        out.past_key_values.crop(-2)


@pytest.mark.parametrize("name", NAMES)
def test_reading_behind_the_cache_of_the_answer_is_reading_all_anew(name, monkeypatch):
    vlm, image = family(name), picture(120, 200)
    direction = torch.randn(vlm.d_model, generator=torch.Generator().manual_seed(0))
    edits = [
        Edit(vector=direction, layer=layer, strength=0.5, where=where) for layer, where in ((0, "image"), (1, "answer"), (2, "prompt"))
    ]
    quick = interp.steer(vlm, image, PROMPT, edits, max_new_tokens=4, words=["dog"])

    def refuse(*_args):
        raise RuntimeError("the window has moved on")

    monkeypatch.setattr(DynamicCache, "crop", refuse)
    anew = interp.steer(vlm, image, PROMPT, edits, max_new_tokens=4, words=["dog"])
    assert (anew.plain_answer, anew.steered_answer, anew.fired) == (quick.plain_answer, quick.steered_answer, quick.fired)
    assert anew.kl == pytest.approx(quick.kl, rel=1e-2, abs=1e-5)
    for one, other in zip(anew.words["dog"], quick.words["dog"], strict=True):
        assert one == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_is_saved_with_its_places(name, tmp_path):
    vlm = family(name)
    trace = vlm.trace(picture(120, 200), PROMPT, max_new_tokens=2)
    trace.save(tmp_path / "trace")
    again = interp.Trace.load(tmp_path / "trace", vlm)
    for part, other in zip((*trace.grids, *trace.regions), (*again.grids, *again.regions), strict=True):
        assert part.name == other.name
        assert torch.equal(part.positions, other.positions)
    assert [region.box for region in again.regions] == [region.box for region in trace.regions]
    assert again.tokens == trace.tokens


WITHOUT_TORCHVISION = ["llava_next", "vipllava", "idefics2", "idefics2 split", "idefics3", "gemma3", "paligemma", "aya_vision"]


@pytest.mark.parametrize("name", WITHOUT_TORCHVISION)
def test_a_checkpoint_is_loaded_and_gives_what_the_model_gives(name, tmp_path):
    vlm, image = family(name), picture(120, 200)
    loaded = interp.load(tiny.save(tmp_path / "checkpoint", vlm.model, vlm.processor), device="cpu")
    assert "Pil" in type(loaded.processor.image_processor).__name__
    here, there = (one.trace(image, PROMPT, max_new_tokens=3) for one in (vlm, loaded))
    torch.testing.assert_close(here.states, there.states, atol=1e-5, rtol=1e-5)  # where weights lie in memory may turn a last bit
    for ours, theirs in zip((*here.grids, *here.regions), (*there.grids, *there.regions), strict=True):
        assert torch.equal(ours.positions, theirs.positions)


@pytest.mark.parametrize("name", WITHOUT_TORCHVISION)
def test_4_bit_is_for_the_decoder_alone(name, tmp_path):
    vlm, image = family(name), picture(120, 200)
    loaded = interp.load(tiny.save(tmp_path / "checkpoint", vlm.model, vlm.processor), device="cpu", quantize="4bit")
    four_bit = {name for name, module in loaded.model.named_modules() if type(module).__name__ == "Linear4bit"}
    decoder = next(name for name, module in loaded.model.named_modules() if module is loaded.model.get_decoder())
    assert four_bit
    assert all(name.startswith(f"{decoder}.layers.") for name in four_bit)
    here, there = (one.trace(image, PROMPT, max_new_tokens=2) for one in (vlm, loaded))
    seen = here.positions("image")
    assert torch.equal(here.residual(interp.EMBED)[seen], there.residual(interp.EMBED)[seen])
    assert not torch.equal(here.residual(0)[seen], there.residual(0)[seen])
    said = interp.logit_lens(there, top_k=1, layers=[vlm.n_layers - 1]).ids[0, :, 0].tolist()
    start = next(i for i, token in enumerate(there.tokens) if token.kind == "answer")
    assert said[start - 1 :] == [token.id for token in there.tokens[start:]]


NEEDS_TORCHVISION = [name for name in NAMES if name.split()[0] not in WITHOUT_TORCHVISION]


@pytest.mark.parametrize("name", [name for name in NEEDS_TORCHVISION if name not in {"onevision shrunk", "molmo2 odd"}])
def test_4_bit_is_for_the_decoder_alone_where_a_processor_cannot_be_loaded_here(name, tmp_path):
    model = family(name).model
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32, quantization_config=_four_bit(model, torch.float32))
    four_bit = [name for name, module in loaded.named_modules() if type(module).__name__ == "Linear4bit"]
    decoder = next(name for name, module in loaded.named_modules() if module is loaded.get_decoder())
    assert four_bit
    assert all(name.startswith(f"{decoder}.layers.") for name in four_bit)


@pytest.mark.parametrize("name", NEEDS_TORCHVISION)
def test_a_processor_that_needs_torchvision_says_what_to_install(name, tmp_path, monkeypatch):
    vlm = family(name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _package: None)
    with pytest.raises(InterpError, match=r"needs torchvision, which is not installed\. Run: pip install torchvision=="):
        interp.load(tiny.save(tmp_path / "checkpoint", vlm.model, vlm.processor.tokenizer), device="cpu")


def test_every_family_is_tried():
    assert {family(name).model.config.model_type for name in NAMES} | {"llava"} == set(LAYOUTS)
    assert not set(LAYOUTS) & set(REFUSED)


@pytest.mark.parametrize(("model_type", "why"), [("mllama", "cross-attention"), ("blip-2", "not known")])
def test_other_families_are_refused_with_the_reason(model_type, why):
    model, processor = tiny.build("crop")
    model.config.model_type = model_type
    with pytest.raises(InterpError, match=rf"model_type '{model_type}'\) is not supported: .*{why}"):
        interp.Vlm(model, processor)


def test_tiles_that_are_wider_than_their_patches_leave_strips_without_a_token():
    """A picture that fills 2 x 2 tiles of 58 pixels exactly: four patches of 14 in each, and two pixels that no patch sees."""
    whole, tiles = family("onevision").prepare(picture(116, 116), PROMPT).layout.grids
    assert whole.seen == (0, 0, 112, 112)
    assert (tiles.rows, tiles.cols) == (8, 8)
    starts = [0, 14, 28, 42, 58, 72, 86, 100]
    assert tiles.boxes[0, :, 0].tolist() == starts
    assert tiles.boxes[0, :, 2].tolist() == [start + 14 for start in starts]
    assert tiles.boxes[:, 0, 1].tolist() == starts
    assert tiles.boxes[:, 0, 3].tolist() == [start + 14 for start in starts]
