"""The Python side of the study view, and of the app's option."""

import json

import gradio as gr
import pytest

import app
from interp.errors import InterpError
from interp.service.service import Service
from interp.service.study_service import StudyService
from interp.ui.components.study_view import StudyView
from interp.ui.page import build
from interp.ui.tabs.study_tab import StudyTab
from tests.sae_checkpoints import sparsify
from tests.study.made_index import write_index
from tests.web.study_payload import payload

GEMMA = "gemma-2b-res-jb/blocks.6.hook_resid_post"


def test_component_passes_payloads_and_nothing_else():
    made = payload()
    assert StudyView().postprocess(None) is None
    assert StudyView(made).get_config()["value"] == made
    with pytest.raises(InterpError, match=r"study view reads .llava-microscope/study-view/1"):
        StudyView().postprocess({"schema": "llava-microscope/study-view/2"})


def test_there_is_a_tab_only_where_a_study_is_open(tmp_path):
    def tabs(service):
        return {block.elem_id for block in build(service).blocks.values() if getattr(block, "elem_id", None)}

    assert "study-tab" not in tabs(Service())
    assert "study-tab" in tabs(Service(studies=[str(write_index(tmp_path))]))


def test_a_study_chooses_model_and_sae_unless_they_are_given(tmp_path, monkeypatch):
    monkeypatch.delenv("STUDY", raising=False)
    folder = str(write_index(tmp_path))
    args = app.arguments(["--study", folder])
    service = app.service_for(args)
    assert (service.default_model, service.saes.names(), service.studies.names) == ("emoji-llava", ("emoji-llava-sae",), ("made-up",))
    given = app.service_for(app.arguments(["--study", folder, "--model", "smol-llava"]))
    assert (given.default_model, given.studies.names) == ("smol-llava", ("made-up",))
    other = app.service_for(app.arguments(["--study", folder, "--sae", "mine"]))
    assert (other.default_model, other.saes.names()) == ("emoji-llava", ("mine", "emoji-llava-sae"))
    monkeypatch.setenv("STUDY", folder)
    assert app.arguments([]).study == [folder]
    with pytest.raises(InterpError, match="holds no index of features"):
        app.service_for(app.arguments(["--study", str(tmp_path / "none")]))


def begun_with(folder, **sae):
    """A study that was begun with this SAE."""
    about = json.loads((write_index(folder) / "index.json").read_text())
    about["sae"] |= sae
    (folder / "index.json").write_text(json.dumps(about))
    return str(folder)


@pytest.mark.parametrize("options", [[], ["--model", "emoji-llava"]])
def test_a_study_chooses_the_sae_of_the_layer_that_it_was_begun_with(tmp_path, options):
    for layer in (2, 5):
        sparsify(tmp_path / f"two/layers.{layer}", hookpoint=f"layers.{layer}")
    study = begun_with(tmp_path / "study", name=f"{tmp_path}/two/layers.5", source=str(tmp_path / "two"), picked=5)
    saes = app.service_for(app.arguments(["--study", study, *options])).saes
    assert saes.names() == ("two", "emoji-llava-sae")
    assert (saes.get("", "emoji-llava").layer, saes.get("emoji-llava-sae", "emoji-llava").layer) == (5, 3)


@pytest.mark.parametrize(("source", "picked"), [("llava-gemma-2b", 6), (GEMMA, None), (GEMMA, 6)])
def test_an_sae_that_is_known_for_the_model_goes_by_its_name(tmp_path, source, picked):
    study = begun_with(tmp_path, name=GEMMA, source=source, picked=picked)
    about = json.loads((tmp_path / "index.json").read_text())
    about["model"] = {"name": "llava-gemma-2b", "source": "llava-gemma-2b"}
    (tmp_path / "index.json").write_text(json.dumps(about))
    saes = app.service_for(app.arguments(["--study", study])).saes
    assert saes.names()[0] == GEMMA
    assert len(saes.names()) == 3


def test_the_layer_of_an_sae_may_be_given_on_the_command_line(tmp_path):
    assert app.service_for(app.arguments(["--model", "llava-gemma-2b", "--layer", "6"])).saes.names()[0] == GEMMA
    none = app.service_for(app.arguments(["--model", "emoji-llava", "--layer", "6"])).saes
    with pytest.raises(InterpError, match=r"The SAEs of 'emoji-llava' read layer 3; layer 6 was asked for"):
        none.get("", "emoji-llava")


@pytest.mark.parametrize("number", ["6", "-1", "dog", "", "9" * 5000])
def test_a_link_to_no_feature_of_the_study_is_refused(tmp_path, number):
    service = Service(studies=[str(write_index(tmp_path))])
    with gr.Blocks(), gr.Tabs():
        tab = StudyTab(StudyService(service))
    assert next(iter(tab.opened({"feature": "2"}).values()))["feature"]["feature"] == 2
    with pytest.raises(InterpError, match="does not exist"):
        tab.opened({"feature": number})
