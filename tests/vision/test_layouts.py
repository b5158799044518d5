import copy
import dataclasses
import functools

import numpy as np
import pytest
import torch
from PIL import ImageDraw

import interp
from interp.emoji_world.architecture import build_model, build_processor
from interp.vision.layouts import LAYOUTS
from interp.vision.pixels import denormalise
from tests import tiny
from tests.conftest import PROMPT
from tests.painting import image_rows, inner_half

MODELS = ["crop", "pad", "stretch", "interleave", "emoji shape", "emoji"]
PICTURES = {"portrait": (120, 200), "landscape": (200, 120), "square": (150, 150), "wide": (400, 120), "tall": (120, 400), "odd": (101, 97)}


@pytest.fixture(scope="module")
def model_of(load, request):
    random_emoji = build_processor()

    @functools.cache
    def get(name):
        if name == "emoji":
            return request.getfixturevalue("emoji_vlm")
        return interp.Vlm(build_model(random_emoji), random_emoji, name=name) if name == "emoji shape" else load(name)

    return get


def probes(vlm, picture, *, apart):
    """(index of the image token, picture with the inner half of its box painted red) for every patch that shows something.

    `apart`: so far from the patch's border that bicubic resizing (two pixels of the view) cannot carry red into the next patch. The inner
    half of a whole patch is; a sliver of picture beside padding is not, and is left out.
    """
    inputs = vlm.prepare(picture, PROMPT)
    grid = inputs.layout.grids[0]
    first = int((inputs["input_ids"][0] == vlm.image_token_id).nonzero()[0])
    sizes = grid.boxes[..., 2:] - grid.boxes[..., :2]
    reaches = (sizes.amax((0, 1)) / vlm.model.config.vision_config.patch_size).tolist()  # pixels of the picture in one of the view
    if getattr(vlm.processor.image_processor, "do_pad", False):
        reaches = [max(reaches)] * 2  # all patches of a row may be clipped
    for row in range(grid.rows):
        for col in range(grid.cols):
            box = grid.box(row, col)
            inner = inner_half(box, [2.2 * reach for reach in reaches] if apart else (0, 0))
            if inner is not None:
                painted = picture.copy()
                ImageDraw.Draw(painted).rectangle(inner, fill=(255, 0, 0))
                yield int(grid.positions[row, col]) - first, painted


@pytest.mark.parametrize("mixing", [True, False], ids=["whole tower", "without attention"])
@pytest.mark.parametrize("size", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize("name", MODELS)
def test_a_painted_box_changes_its_own_token(model_of, name, size, mixing):
    vlm, picture = model_of(name), tiny.noise(*size)
    model = vlm.model if mixing else tiny.without_attention(vlm.model)
    shown = list(probes(vlm, picture, apart=not mixing))
    count = len(shown)
    if count == 64:
        shown = shown[::7]  # of 8 x 8: the corners, and one in each other row and column
    tokens, painted = zip(*shown, strict=True)
    plain, *changed = image_rows(vlm, [picture, *painted], model)
    change = (torch.stack(changed) - plain).norm(dim=-1)
    assert change.argmax(1).tolist() == list(tokens)
    if not mixing:
        own = change.amax(1, keepdim=True)
        change[torch.arange(len(tokens)), tokens] = 0
        # Some processors round the rows of a product differently by where they lie in a batch.
        assert (change < 1e-3 * own).all()
    if name != "pad":  # where padding patches have nothing to paint
        assert count == len(plain)


@pytest.mark.parametrize("size", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize("name", MODELS)
def test_boxes_lie_in_the_picture_and_tile_what_is_seen(model_of, name, size):
    width, height = size
    grid = model_of(name).prepare(tiny.noise(*size), PROMPT).layout.grids[0]
    boxes = grid.boxes
    assert boxes.shape == (grid.rows, grid.cols, 4)
    assert boxes[..., 0::2].min() >= 0
    assert boxes[..., 0::2].max() <= width
    assert boxes[..., 1::2].min() >= 0
    assert boxes[..., 1::2].max() <= height
    assert torch.equal(boxes[:, 1:, 0], boxes[:, :-1, 2])  # no gap and no overlap between neighbours
    assert torch.equal(boxes[1:, :, 1], boxes[:-1, :, 3])
    left, top, right, bottom = grid.seen
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    assert areas.sum().item() == pytest.approx((right - left) * (bottom - top), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "seen"),
    [
        ("crop", (120, 200), (0, 40, 120, 160)),  # a centre crop sees the middle square
        ("crop", (200, 120), (40, 0, 160, 120)),
        ("stretch", (120, 200), (0, 0, 120, 200)),
        ("pad", (120, 200), (0, 0, 120, 200)),
        ("interleave", (580, 290), (0, 0, 560, 280)),  # 56 of 58 pixels have a token
    ],
)
def test_what_is_seen(load, name, size, seen):
    grid = load(name).prepare(tiny.noise(*size), PROMPT).layout.grids[0]
    assert grid.seen == pytest.approx(seen, abs=2.2)  # the processor rounds to whole pixels of its view


def test_padding_patches_have_no_area(load):
    boxes = load("pad").prepare(tiny.noise(400, 60), PROMPT).layout.grids[0].boxes
    heights = boxes[..., 3] - boxes[..., 1]
    assert heights[:, 0].tolist() == pytest.approx([0, 30, 30, 0], abs=0.1)
    assert (heights >= 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_grid_positions_are_the_image_tokens_row_by_row(model_of, name):
    vlm = model_of(name)
    inputs = vlm.prepare(tiny.noise(120, 90), PROMPT)
    (grid,) = inputs.layout.grids
    expected = (inputs["input_ids"][0] == vlm.image_token_id).nonzero().flatten()
    assert torch.equal(grid.positions.flatten(), expected)
    side = 8 if "emoji" in name else 4
    assert (grid.rows, grid.cols) == (side, side)


@pytest.mark.parametrize("name", ["crop", "pad", "stretch", "interleave"])
def test_the_view_is_the_picture_that_the_tower_gets(load, name):
    vlm, picture = load(name), tiny.noise(120, 200)
    processor = vlm.processor.image_processor
    (view,) = vlm.prepare(picture, PROMPT).layout.views
    raw = processor(picture, do_normalize=False, do_rescale=False, return_tensors="pt").pixel_values[0]
    assert np.abs(np.asarray(view, dtype=float) - raw.permute(1, 2, 0).numpy()).max() <= 1
    side = tiny.SIGLIP_SIDE if name == "interleave" else tiny.SIDE
    assert view.size == (side, side)


@pytest.mark.parametrize("settings", [{"do_normalize": False}, {"do_rescale": False, "do_normalize": False}, {}], ids=str)
def test_denormalise_undoes_only_what_was_done(load, settings):
    processor = copy.deepcopy(load("stretch").processor.image_processor)
    for key, value in settings.items():
        setattr(processor, key, value)
    picture = tiny.noise(tiny.SIDE, tiny.SIDE)
    pixels = processor(picture, return_tensors="pt").pixel_values[0]
    assert np.abs(np.asarray(denormalise(pixels, processor), dtype=int) - np.asarray(picture)).max() <= 1


def test_the_box_is_in_pixels_of_the_upright_picture(load, tmp_path):
    lying = tiny.noise(200, 120)
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save(tmp_path / "photo.jpg", exif=exif)
    for source in (tmp_path / "photo.jpg", str(tmp_path / "photo.jpg")):
        inputs = load("stretch").prepare(source, PROMPT)
        assert inputs.image.size == (120, 200)
        assert inputs.layout.grids[0].seen == (0, 0, 120, 200)


@pytest.mark.parametrize("size", [(1, 1), (2000, 10)])
@pytest.mark.parametrize("name", ["crop", "pad", "stretch", "interleave"])
def test_pictures_smaller_than_a_patch_have_boxes_too(load, name, size):
    grid = load(name).prepare(tiny.noise(*size), PROMPT).layout.grids[0]
    assert torch.isfinite(grid.boxes).all()
    left, top, right, bottom = grid.seen
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]


def test_a_count_of_tokens_that_is_no_grid_is_refused(load):
    vlm = load("crop")
    inputs = vlm.prepare(tiny.noise(60, 60), PROMPT)
    ids = inputs["input_ids"].clone()
    ids[0, -1] = vlm.image_token_id
    with pytest.raises(interp.InterpError, match="17 image tokens do not fit a grid of 4 x 4"):
        LAYOUTS["llava"](vlm.model.config, vlm.processor, inputs.image, inputs.tensors | {"input_ids": ids})


def test_a_grid_is_read_only(trace):
    with pytest.raises(dataclasses.FrozenInstanceError):
        trace.grids[0].name = "other"
