"""Segmenters with tiny random models of the real classes, against transformers' own pipeline and post-processing, and masks that are known."""

import json
import shutil
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, AutoTokenizer, SamModel, pipeline
from transformers.models.sam3.modeling_sam3 import Sam3Model
from transformers.models.sam3_video.configuration_sam3_video import Sam3VideoConfig

from interp import InterpError
from interp.study.scoring.segmenters import instances, known_masks, mask_file, segmenter
from tests import tiny
from tests.study.scoring import tiny_segmenters

CPU = torch.device("cpu")
PICTURES = [tiny.noise(80, 50, seed=i) for i in range(3)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return {name: getattr(tiny_segmenters, name)(tmp_path_factory.mktemp(name)) for name in ("sam_3", "grounding_dino", "sam")}


def test_sam_3_masks_are_the_union_of_its_instances_in_the_picture(saved):
    segment = segmenter(saved["sam_3"], CPU)
    model, words = Sam3Model.from_pretrained(saved["sam_3"]).eval(), AutoTokenizer.from_pretrained(saved["sam_3"])
    covered = []
    for picture in PICTURES:
        small = np.asarray(picture.resize((56, 56), Image.Resampling.BILINEAR), np.float32)
        pixels = torch.from_numpy(small / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.inference_mode():
            found = model(pixels, **words("dog", return_tensors="pt", padding="max_length", max_length=32))
        wanted = instances(found, picture)
        got = segment(picture, "", "dog")
        assert got.shape == (50, 80)
        assert (got != wanted).mean() < 0.01, "both are made from 8-bit pixels, scaled in another order"
        covered.append(got.mean())
    assert 0 < min(covered) < 1


def test_sam_3_is_read_as_it_is_published_too(saved, tmp_path):
    """As the detector of a video model, with one file for all processors."""
    folder = shutil.copytree(saved["sam_3"], tmp_path / "published")
    config = Sam3VideoConfig(detector_config=json.loads((folder / "config.json").read_text()))
    config.save_pretrained(folder)
    weights = {f"detector_model.{name}": weight for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(weights | {"tracker_model.memory": torch.zeros(2)}, folder / "model.safetensors", metadata={"format": "pt"})
    pictures = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": pictures, "processor_class": "Sam3VideoProcessor"}))
    one, other = (segmenter(str(place), CPU)(PICTURES[0], "", "dog") for place in (saved["sam_3"], folder))
    np.testing.assert_array_equal(one, other)
    assert 0 < one.mean() < 1


def test_instances_are_those_of_transformers_own_processor(monkeypatch):
    """Its class cannot be used without torchvision, but this method of it calls none."""
    boxes = types.ModuleType("torchvision.ops.boxes")
    boxes.batched_nms = None
    monkeypatch.setitem(sys.modules, "torchvision.ops.boxes", boxes)
    for name in ("torchvision", "torchvision.ops"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    from transformers.models.sam3.image_processing_sam3 import Sam3ImageProcessor

    make = torch.Generator().manual_seed(0)
    kept = set()
    for i in range(20):
        found = types.SimpleNamespace(
            pred_logits=torch.randn(1, 5, generator=make),
            presence_logits=torch.randn(1, 1, generator=make) + 1,
            pred_masks=torch.randn(1, 5, 8, 8, generator=make) * 3 - 2,
            pred_boxes=torch.rand(1, 5, 4, generator=make),
        )
        (theirs,) = Sam3ImageProcessor.post_process_instance_segmentation(None, found, threshold=0.3, target_sizes=[(50, 80)])
        ours = instances(found, PICTURES[i % 3])
        kept.add(len(theirs["masks"]))
        if len(theirs["masks"]):
            np.testing.assert_array_equal(ours, theirs["masks"].bool().any(0).numpy())
        else:
            assert ours is None
    assert len(kept) > 2
    monkeypatch.delitem(sys.modules, "transformers.models.sam3.image_processing_sam3")


def test_a_detector_with_a_sam_equals_transformers_pipeline_with_the_sam_box_by_box(saved):
    segment = segmenter(f"{saved['grounding_dino']}+{saved['sam']}", CPU)
    reader = AutoProcessor.from_pretrained(saved["grounding_dino"])
    detect = pipeline(
        "zero-shot-object-detection", saved["grounding_dino"], tokenizer=reader.tokenizer, image_processor=reader.image_processor
    )
    sam, marker = SamModel.from_pretrained(saved["sam"]).eval(), AutoProcessor.from_pretrained(saved["sam"])
    for picture in PICTURES:
        union = np.zeros((50, 80), bool)
        found = detect(picture, candidate_labels=["a cat."], threshold=0.3)
        for one in found:
            inputs = marker(images=picture, input_boxes=[[[*map(float, one["box"].values())]]], return_tensors="pt")
            with torch.inference_mode():
                out = sam(inputs["pixel_values"].float(), input_boxes=inputs["input_boxes"].float())
            (masks,) = marker.image_processor.post_process_masks(out.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"])
            union |= (masks[0].float().mean(0) > 0).numpy()  # the three proposals
        got = segment(picture, "", " A Cat. ")
        assert found
        np.testing.assert_array_equal(got, union)


def test_nothing_found_is_none(saved, monkeypatch):
    monkeypatch.setattr("interp.study.scoring.segmenters.THRESHOLD", 1.0)
    for name in (saved["sam_3"], f"{saved['grounding_dino']}+{saved['sam']}"):
        assert segmenter(name, CPU)(PICTURES[0], "", "dog") is None


def test_models_that_segment_nothing_by_text_are_refused(saved, tmp_path):
    for name, message in (
        (saved["sam"], "it must be a SAM 3"),
        (saved["grounding_dino"], "a detector that takes text and a SAM"),
        (f"{saved['sam']}+{saved['grounding_dino']}", "a detector that takes text and a SAM"),
        (f"{saved['grounding_dino']}+{saved['grounding_dino']}", "cannot be loaded"),
        (str(tmp_path), "cannot be loaded"),
    ):
        with pytest.raises(InterpError, match=message):
            segmenter(name, CPU)


def test_known_masks_are_found_by_label_and_picture(tmp_path):
    truth = np.zeros((100, 160), np.uint8)
    truth[20:40, 80:160] = 1  # as labelled data often are: 1, not 255
    for label, picture in (("dog", "in a/folder.png#1"), ("..", "7")):
        file = mask_file(tmp_path / "masks", label, picture)
        assert file.parent.parent == tmp_path / "masks"
        file.parent.mkdir(parents=True)
        Image.fromarray(truth).save(file)
    segment = known_masks(tmp_path / "masks")
    found = segment(PICTURES[0], "in a/folder.png#1", " Dog ")
    assert found.dtype == bool
    np.testing.assert_array_equal(found, truth[::2, ::2] == 1)
    assert segment(PICTURES[0], "another", "dog").sum() == 0, "the data knows dogs, and there is none in it"
    assert segment(PICTURES[0], "another", "a" * 5000) is None, "the data does not know what this is"
    with pytest.raises(InterpError, match="same proportions"):
        segment(PICTURES[0].resize((50, 50)), "7", "..")
    with pytest.raises(InterpError, match="no such folder"):
        known_masks(tmp_path / "nowhere")
