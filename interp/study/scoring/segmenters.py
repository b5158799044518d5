"""Segmenters: a picture and a label become a mask of what the label names. Models of transformers that take text, or masks that are known.

A segmenter is a plain function, `Segment`; `segmenter` makes one from the name of a model. SAM 3 takes text itself. GroundingDINO, and any
other detector that takes text, finds boxes that a SAM fills: the pair that multimodal-sae uses.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate
from transformers import (
    AutoConfig,
    AutoModelForMaskGeneration,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
    AutoTokenizer,
    BatchFeature,
)
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling

from ...concepts.clip import loaded
from ...errors import InterpError
from ...validation import shown
from ...vision.images import open_image
from .measures import Mask

Segment = Callable[[Image.Image, str, str], Mask | None]
"""(picture, its id, label) → bool [height, width] of that picture, or None if nothing was found."""

SAM_3 = "facebook/sam3"
GROUNDED_SAM = "IDEA-Research/grounding-dino-base+facebook/sam-vit-huge"
THRESHOLD = 0.3  # of a box: GroundingDINO's in multimodal-sae, and SAM 3's own default


def segmenter(name: str, device: torch.device) -> Segment:
    """The segmenter of a model: the folder or hub id of a SAM 3, or those of a detector and a SAM with a plus sign between them.

    Raises InterpError for a model that is neither or cannot be loaded.
    """
    first, plus, second = (name, "", "") if Path(name).exists() else name.partition("+")
    kind = loaded(first, AutoConfig, None).model_type
    if kind in {"sam3", "sam3_video"} and not plus:
        return sam_3(first, device)
    if not plus or kind.startswith("sam"):
        raise InterpError(
            f"segmenter is {shown(name)}, a {kind}; it must be a SAM 3 (such as {SAM_3}), or a detector that takes text and a SAM with a plus "
            f"sign between them (such as {GROUNDED_SAM})."
        )
    return grounded_sam(first, second, device)


class _Sam3Pictures(PilBackend):
    """Sam3ImageProcessor without torchvision, for which alone it exists. What a checkpoint says goes before these defaults, which are its own."""

    resample = PILImageResampling.BILINEAR
    image_mean = image_std = (0.5, 0.5, 0.5)
    size = {"height": 1008, "width": 1008}  # noqa: RUF012 - the signature of transformers
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True


def sam_3(name: str, device: torch.device) -> Segment:
    """Everything that a SAM 3 finds for the label: the union of its instances with a score of at least 0.3."""
    from transformers.models.sam3.modeling_sam3 import Sam3Model  # noqa: PLC0415 - the name in transformers itself asks for torchvision

    model, pictures, tokenizer = loaded(name, Sam3Model, device), loaded(name, _Sam3Pictures, None), loaded(name, AutoTokenizer, None)
    longest = model.config.text_config.max_position_embeddings

    def segment(picture: Image.Image, _: str, label: str) -> Mask | None:
        inputs = BatchFeature(
            {
                **pictures(images=picture, return_tensors="pt"),
                **tokenizer(label, return_tensors="pt", padding="max_length", max_length=longest, truncation=True),
            }
        ).to(device)
        with torch.inference_mode():
            return instances(model(**inputs), picture)

    return segment


def instances(found: Any, picture: Image.Image) -> Mask | None:
    """The union of the instances in what a SAM 3 returned for one picture, as its processor's post_process_instance_segmentation finds them."""
    scores = found.pred_logits[0].sigmoid() * found.presence_logits[0].sigmoid()
    masks = found.pred_masks[0][scores > THRESHOLD].sigmoid()
    if not len(masks):
        return None
    masks = interpolate(masks[None].float(), (picture.height, picture.width), mode="bilinear", align_corners=False)[0]
    return _some((masks > 0.5).any(0))


def grounded_sam(detector: str, sam: str, device: torch.device) -> Segment:
    """The union of a SAM's masks in the boxes that a detector finds for the label with a score above 0.3.

    Of the SAM's three proposals for a box, every pixel counts that one of them has ("mean > 0"), as in multimodal-sae.
    """
    finder, reader = loaded(detector, AutoModelForZeroShotObjectDetection, device), loaded(detector, AutoProcessor, None)
    filler, marker = loaded(sam, AutoModelForMaskGeneration, device), loaded(sam, AutoProcessor, None)

    def segment(picture: Image.Image, _: str, label: str) -> Mask | None:
        size = (picture.height, picture.width)
        phrase = f"{label.lower().strip(' .')}."
        with torch.inference_mode():
            inputs = reader(images=picture, text=phrase, return_tensors="pt").to(device)
            (found,) = reader.post_process_grounded_object_detection(finder(**inputs), threshold=THRESHOLD, target_sizes=[size])
            boxes = found["boxes"].int().tolist()  # whole pixels, as transformers' pipeline gives them
            if not boxes:
                return None
            marked = marker(images=picture, input_boxes=[boxes], return_tensors="pt").to(device, torch.float32)
            sizes = {name: marked.pop(name).cpu() for name in ("original_sizes", "reshaped_input_sizes")}
            proposals = filler(**marked, multimask_output=True).pred_masks.cpu()
        masks = marker.image_processor.post_process_masks(proposals, **sizes)[0]  # [boxes, 3, height, width]
        return _some(masks.flatten(0, 1).any(0))

    return segment


def _some(mask: torch.Tensor) -> Mask | None:
    """A mask that covers something."""
    found: Mask = mask.cpu().numpy()
    return found if found.any() else None


def known_masks(folder: Path) -> Segment:
    """Masks that are known from the data: FOLDER/LABEL/ID.png, black where picture ID does not show the label, in the picture's proportions.

    Names are those of `mask_file`. A label without a folder is unknown, so nothing is found. A picture without a file in the folder of a label shows
    none of it: its mask is empty, and a heat on it is wrong. Raises InterpError for a missing folder, and for masks that are none of their pictures.
    """
    if not folder.is_dir():
        raise InterpError(f"masks is {shown(str(folder))}, and there is no such folder. It must hold a folder for each label.")
    files = {place.name: {file.name for file in place.iterdir()} for place in folder.iterdir() if place.is_dir()}

    def segment(picture: Image.Image, name: str, label: str) -> Mask | None:
        file = mask_file(folder, label, name)
        if file.parent.name not in files:
            return None
        if file.name not in files[file.parent.name]:
            return np.zeros((picture.height, picture.width), np.bool_)
        mask = open_image(file).image.convert("L")
        if abs(mask.width * picture.height / mask.height - picture.width) > max(2, picture.width / 50):
            raise InterpError(
                f"The mask {file} has {mask.width} x {mask.height} pixels, and its picture {picture.width} x {picture.height}; "
                "they must have the same proportions."
            )
        return np.asarray(mask.resize(picture.size, Image.Resampling.NEAREST)) > 0

    return segment


def mask_file(folder: Path, label: str, picture: str) -> Path:
    """Where the mask of a label (in lower case) in the picture of this id lies. What file names cannot hold is percent-encoded, as in addresses."""
    place = quote(label.strip().lower(), safe=" ").replace(".", "%2E")  # a label may be "..", which is no folder of masks
    return folder / place / f"{quote(picture, safe=' ')}.png"
