"""Files of explanations and labels: what is written, and what the reference's folders hold."""

import json

import pytest

from interp.errors import InterpError
from interp.study.explanation_files import read_texts, write_explanations, write_labels

MODULE = "model.layers.24"


def test_explanations_are_a_list_of_one_key_objects_in_the_order_of_the_features(tmp_path):
    file = write_explanations(tmp_path / "explanations", MODULE, {47230: "fleurs “rouges”", 7: "red flowers"})
    assert file == tmp_path / "explanations" / "model_layers_24.json"
    assert json.loads(file.read_text("utf-8")) == [
        {"model.layers.24_feature7": "red flowers"},
        {"model.layers.24_feature47230": "fleurs “rouges”"},
    ]
    assert read_texts(file.parent) == {24: {7: "red flowers", 47230: "fleurs “rouges”"}}


def test_labels_are_one_object(tmp_path):
    file = write_labels(tmp_path, MODULE, {8: "b", 7: "a"})
    assert json.loads(file.read_text("utf-8")) == {"model.layers.24_feature7": "a", "model.layers.24_feature8": "b"}
    assert read_texts(tmp_path) == {24: {7: "a", 8: "b"}}


def test_equal_texts_give_equal_bytes(tmp_path):
    one = write_explanations(tmp_path / "1", MODULE, {1: "a", 2: "b"}).read_bytes()
    assert write_explanations(tmp_path / "2", MODULE, {2: "b", 1: "a"}).read_bytes() == one


def test_a_folder_of_the_reference_is_read_whole(tmp_path):
    for name in ("images", "activated_images", "masks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "other.json").write_text("not ours")
    (tmp_path / "model_layers_24.json").write_text(
        '[{"prompt": "Describe …"}, {"model.layers.24_feature7": "a"}, {"model.layers.24_feature8": null}]'
    )
    (tmp_path / "more.json").write_text(
        '[{"model.layers.24_feature9": "c", "model.layers.24_feature7": "a"}, {"model.layers.2_feature0": "d"}]'
    )
    assert read_texts(tmp_path) == {24: {7: "a", 9: "c"}, 2: {0: "d"}}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nonsense", "cannot be read .not JSON"),
        ("[" * 100_000, "cannot be read"),
        ("3", "neither a list"),
        ('["text"]', "neither a list"),
        ('[{"model.layers.24_feature7": 3}]', "must have entries such as"),
        ('[{"feature7": "a"}]', "must have entries such as"),
        ('{"model.layers.24_feature-7": "a"}', "must have entries such as"),
        ('{"vision_tower_feature7": "a"}', "must be a decoder block"),
        ('[{"model.layers.24_feature7": "a"}, {"model.layers.24_feature7": "b"}]', "another text than before"),
    ],
)
def test_a_file_of_another_format_is_refused_by_name(tmp_path, text, why):
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(InterpError, match=why) as refused:
        read_texts(tmp_path)
    assert "odd.json" in str(refused.value)


def test_a_folder_without_texts_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InterpError, match="no explanations or labels"):
            read_texts(folder)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InterpError, match="cannot be written"):
        write_labels(tmp_path / "file", MODULE, {1: "a"})
