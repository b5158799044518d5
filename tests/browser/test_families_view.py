"""The views of models that look at a picture twice, or at no patch at all, in a real browser."""

from __future__ import annotations

import pytest

import interp
from interp.service.attention_service import AttentionService
from interp.service.service import Service
from interp.web.payloads.lens import lens_payload
from interp.web.standalone import standalone_html
from tests import families, tiny


@pytest.fixture
def open_view(chromium, tmp_path):
    """A family's standalone view: (page, its lens)."""
    contexts = []

    def opened(name):
        lens = interp.logit_lens(families.vlm(name).trace(tiny.noise(120, 200), "Describe the image.", max_new_tokens=3))
        file = tmp_path / "lens.html"
        file.write_text(standalone_html(lens_payload(lens)), encoding="utf-8")
        contexts.append(chromium.new_context(viewport={"width": 1200, "height": 1000}))
        page = contexts[-1].new_page()
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.goto(file.as_uri())
        page.wait_for_selector(".lens[data-ready]")
        return page, lens

    yield opened
    for context in contexts:
        context.close()


def part(page, name):
    return page.locator(f".lens [data-part={name}]")


def state(page, name):
    return page.locator(".lens").evaluate("(root, name) => root.__lens[name]", name)


def hover_patch(page, lens, grid, row, col):
    left, top, right, bottom = lens.trace.grids[grid].box(row, col)
    stage = part(page, "stage").bounding_box()
    scale = stage["height"] / lens.trace.image.height
    part(page, "stage").hover(position={"x": (left + right) / 2 * scale, "y": (top + bottom) / 2 * scale})
    page.wait_for_function(
        "row => document.querySelector('.lens').__lens.hover === row", arg=int(lens.trace.grids[grid].positions[row, col])
    )


def test_a_picture_with_tiles_opens_on_them_and_can_show_the_whole(open_view):
    page, lens = open_view("llava_next")
    assert part(page, "grid").locator("option").all_inner_texts() == ["whole picture 4\u00d74", "tiles 8\u00d74"]
    assert part(page, "grid").input_value() == "1"
    hover_patch(page, lens, 1, 5, 2)
    assert "tiles, row 6, column 3" in part(page, "where").inner_text()
    part(page, "grid").select_option("0")
    hover_patch(page, lens, 0, 2, 1)
    assert "whole picture, row 3, column 2" in part(page, "where").inner_text()
    part(page, "view").locator("input").nth(1).check()  # the square that the encoder saw
    assert page.faults == []


def test_tokens_without_a_place_stand_in_the_table_and_show_what_they_read(open_view):
    page, lens = open_view("idefics2 split")
    assert part(page, "gridBox").is_hidden()
    assert "have no patches of their own" in part(page, "pictureNote").inner_text()
    quadrant = lens.trace.regions[1]
    row = int(quadrant.positions[2])
    cell = part(page, "tableBody").locator("tr", has_text="3 · top right").locator("td").nth(1)
    cell.hover()
    page.wait_for_function("row => document.querySelector('.lens').__lens.shownRow === row", arg=row)
    assert "top right, token 3 of 4" in part(page, "where").inner_text()
    assert lens.texts(0, row)[0].strip() in part(page, "top").inner_text()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    left, _, right, _ = quadrant.box
    edge = part(page, "marks").evaluate(
        """(canvas, [x, y]) => { const d = canvas.getContext("2d").getImageData(x * canvas.width, 0, 1, y * canvas.height).data;
            return d.filter((_, i) => i % 4 === 3).some((alpha) => alpha > 0); }""",
        [(left + right) / 2 / 120, 0.05],
    )
    assert edge  # the upper border of what it reads
    assert page.faults == []


@pytest.mark.parametrize("name", ["llava_next", "idefics2 split", "qwen3_5"])
def test_a_word_is_explained_with_as_many_grids_as_there_are(chromium, tmp_path, name):
    explaining = AttentionService(Service())
    trace = families.vlm(name).trace(tiny.noise(120, 200), "Describe the image.", max_new_tokens=3)
    payload = explaining.payload(trace)
    file = tmp_path / "why.html"
    file.write_text(standalone_html(payload), encoding="utf-8")
    page = chromium.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_selector(".attention[data-ready]")
    look = page.locator(".attention [data-part=grid] option")
    assert look.count() == max(1, len(trace.grids))
    page.locator(".attention [data-part=words] button").nth(2).click()
    page.locator(".attention [data-part=matrix]").click(position={"x": 40, "y": 5})
    layer = payload["layers"][0]
    page.locator(".attention [data-part=title]").filter(has_text=f"layer {layer}, head 0").wait_for()
    said = page.locator(".attention [data-part=pictureNote]").inner_text()
    assert ("no patches of their own" in said) == bool(trace.regions)
    assert faults == []
    page.close()
