"""The Python side of the study view, and of the app's option."""

import pytest

import app
from interp.errors import InterpError
from interp.service.service import Service
from interp.ui.components.study_view import StudyView
from interp.ui.page import build
from tests.study.made_index import write_index
from tests.web.study_payload import payload


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
    monkeypatch.setenv("STUDY", folder)
    assert app.arguments([]).study == [folder]
    with pytest.raises(InterpError, match="holds no index of features"):
        app.service_for(app.arguments(["--study", str(tmp_path / "none")]))
