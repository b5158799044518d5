"""The static files: what becomes of them in gradio and in a page, and the bundling of modules into one script."""

from __future__ import annotations

import re

import pytest

from interp.ui.components.attention_view import AttentionView
from interp.ui.components.attribution_view import AttributionView
from interp.ui.components.concepts_view import ConceptsView
from interp.ui.components.edits_view import EditsView
from interp.ui.components.feature_view import FeatureView
from interp.ui.components.lens_view import LensView
from interp.ui.components.steer_view import SteerView
from interp.ui.components.study_view import StudyView
from interp.web import bundle as bundling
from interp.web.bundle import STATIC, bundle, markup, modules

VIEWS = {
    "lens": LensView,
    "attention": AttentionView,
    "features": FeatureView,
    "attribution": AttributionView,
    "concepts": ConceptsView,
    "edits": EditsView,
    "steer": SteerView,
    "study": StudyView,
}
# Elements that a view finds by a name put together when it runs, not as part.name.
BY_NAME = {"steer": {"plain", "steered", "plainChips", "steeredChips"}}


@pytest.mark.parametrize("view", VIEWS)
def test_a_component_carries_the_bundle_of_its_view_in_its_head(view):
    config = VIEWS[view]().get_config()
    assert config["head"] == f"<script>{bundle(f'{view}/view.js')}</script>"
    assert config["head"].lower().count("</script") == 1


def test_every_module_is_part_of_some_view():
    used = {name for view in VIEWS for name in modules(f"{view}/view.js")} | {
        name for view in ("lens", "attention", "attribution", "concepts") for name in modules(f"{view}/standalone.js")
    }
    assert used == {str(path.relative_to(STATIC)) for path in STATIC.rglob("*.js")}


def test_a_view_takes_modules_only_from_its_own_folder_and_the_shared_one():
    for view in VIEWS:
        assert {name.split("/")[0] for name in modules(f"{view}/view.js")} == {view, "shared"}


@pytest.mark.parametrize("path", [*STATIC.rglob("*.css"), *STATIC.glob("*/*.html")], ids=lambda path: str(path.relative_to(STATIC)))
def test_markup_and_styles_survive_gradio_s_templates(path):
    # gradio evaluates both as Handlebars and as a JavaScript template string
    assert not re.search(r"\$\{|\{\{|`|\\|@keyframes", path.read_text())


def test_no_script_can_turn_text_into_markup():
    for path in STATIC.rglob("*.js"):
        text = path.read_text()
        assert "</script" not in text.lower(), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), path


def test_modules_stay_small():
    assert {str(path): lines for path in STATIC.rglob("*.js") if (lines := len(path.read_text().splitlines())) > 420} == {}


@pytest.mark.parametrize("view", VIEWS)
def test_every_part_that_the_scripts_use_is_in_the_markup_and_the_other_way_round(view):
    parts = set(re.findall(r'data-part="(\w+)"', markup(view)))
    scripts = "".join((STATIC / name).read_text() for name in modules(f"{view}/view.js"))
    assert "<!--" not in markup(view)
    used = set(re.findall(r"\bpart\.(\w+)", scripts)) - {"base", "marks"}  # the canvases, which the editor of edits makes itself
    assert used <= parts
    unused = {name for name in parts if not re.search(rf"\b{name}\b", scripts)}
    assert unused <= BY_NAME.get(view, set()) <= parts


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ("lens", {"select"}),
        ("attention", {"select"}),
        ("features", set()),
        ("attribution", {"select"}),
        ("concepts", {"select"}),
        ("edits", {"input", "run"}),
        ("steer", {"select"}),
        ("study", {"select"}),
    ],
)
def test_in_js_on_load_the_quoted_words_are_the_events_and_what_is_watched(view, words):
    # gradio takes every quoted word there for the name of an event
    assert set(re.findall(r"['\"`](\w*)['\"`]", VIEWS[view]().get_config()["js_on_load"])) == {"value"} | words


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Write modules into an empty static folder: made(**{"a": text})."""
    monkeypatch.setattr(bundling, "STATIC", tmp_path)
    bundling.static.cache_clear()
    bundling.bundle.cache_clear()

    def write(**files):
        for name, text in files.items():
            (tmp_path / f"{name}.js").write_text(text)

    yield write
    bundling.static.cache_clear()
    bundling.bundle.cache_clear()


def test_modules_come_after_those_they_import_and_once(made):
    made(
        a='import { x } from "./b.js";\nimport * as C from "./c.js";\n',
        b='import { y } from "./c.js";\nexport const x = y;\n',
        c="export const y = 1;\n",
    )
    assert modules("a.js") == ["c.js", "b.js", "a.js"]
    assert bundle("a.js").count("const y = 1;") == 1


def test_imports_of_types_are_left_out(made):
    made(a='// About a.\n/** @import { X } from "./b.js" */\nexport const x = 1;\n')
    assert "@import" not in bundle("a.js")
    assert modules("a.js") == ["a.js"]


def test_modules_in_a_circle_are_refused_by_name(made):
    made(a='import { x } from "./b.js";\n', b='import { y } from "./a.js";\n')
    with pytest.raises(ValueError, match=r"a\.js → b\.js → a\.js"):
        bundle("a.js")


@pytest.mark.parametrize(
    "line",
    [
        "export default 1;",
        "export { x };",
        'import "./b.js";',
        'import x from "./b.js";',
        'export * from "./b.js";',
        "export let x = 1;",
        "export const x = 1,\n  y = 2;",
    ],
)
def test_imports_and_exports_in_another_form_are_refused(made, line):
    made(a=line + "\n", b="")
    with pytest.raises(ValueError, match=r"a\.js: cannot bundle"):
        bundle("a.js")
