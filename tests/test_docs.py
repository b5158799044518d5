"""The pages that a reader sees first: short enough, and every link in them leads somewhere."""

import copy
import random
import re
from pathlib import Path

import pytest
import torch

import interp
from interp.emoji_world.scenes import draw_picture, sample_scene
from interp.emoji_world.sprites import SEEN_VENDORS, load_sprites
from interp.vision.layouts import LAYOUTS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "assets").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page):
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_table_of_families_is_complete():
    named = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "models.md").read_text(encoding="utf-8")))
    assert set(LAYOUTS) - named == set()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_every_page_of_the_docs_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in readme] == []


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    held = {}
    exec(code, held)  # noqa: S102 - our own
    assert "dog" in held["result"].plain
    assert (tmp_path / "lens.html").exists()


def test_the_python_of_the_page_on_concepts_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng, sprites = random.Random(0), load_sprites(SEEN_VENDORS)
    Path("pictures").mkdir()
    for i in range(12):
        draw_picture(sample_scene(rng, range(len(SEEN_VENDORS)), augment=0.0), sprites).save(f"pictures/{i}.png")
    held = {}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8"), re.DOTALL):
        exec(code, held)  # noqa: S102 - our own
        held["tuned"] = _tuned(held["vlm"])
    assert held["concepts"].words[0]
    assert len(held["shift"].moved) == 4
    assert held["shift"].moved[0].relative > 0
    assert Path("shift.html").exists()


def _tuned(vlm):
    """A fine-tune of sorts."""
    model = copy.deepcopy(vlm.model)
    with torch.no_grad():
        model.get_decoder().layers[3].mlp.down_proj.weight *= 1.2
    return interp.Vlm(model, vlm.processor)
