"""A tiny random model with its real processor for every family of `interp.vision.layouts.LAYOUTS`, beside the LLaVAs of tests/tiny.py."""

import contextlib
import functools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import tokenizers
import torch
import transformers
from PIL import Image
from torch.nn import functional as F
from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    AyaVisionProcessor,
    CLIPVisionConfig,
    Cohere2Config,
    Cohere2VisionConfig,
    Cohere2VisionForConditionalGeneration,
    Cohere2VisionProcessor,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    GemmaConfig,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    Glm4vProcessor,
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2Processor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    Molmo2Config,
    Molmo2ForConditionalGeneration,
    Molmo2Processor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PixtralVisionConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
    processing_utils,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.utils.import_utils import is_torchvision_available
from transformers.video_processing_utils import VideoProcessorMixin

import interp
from tests import tiny


@contextlib.contextmanager
def _as_if_torchvision_were_here() -> Iterator[None]:
    """Some modules import torchvision at their top, whether or not what is needed of them uses it."""
    is_torchvision_available()  # cached: the empty modules must not be taken for the package
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.v2", "torchvision.transforms.v2.functional")
    empty: dict[str, Any] = {name: types.ModuleType(name) for name in names}
    for name in names[1:]:
        parent, _, last = name.rpartition(".")
        setattr(empty[parent], last, empty[name])
    sys.modules.update(empty)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


with _as_if_torchvision_were_here():
    from transformers.models.cohere2_vision.image_processing_cohere2_vision import Cohere2VisionImageProcessor
    from transformers.models.pixtral.processing_pixtral import PixtralProcessor

Built = tuple[Any, Any]
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.15,
}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TILE_MARKS = tuple(f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7))
PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]


def template(image: str) -> str:
    """A chat template in which the picture is `image`."""
    return tiny.LLAVA_TEMPLATE.replace("<image>", image)


def text(words: Any, **more: Any) -> dict[str, Any]:
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    return {**TEXT, **ids, "vocab_size": len(words), "tie_word_embeddings": False, **more}


class NoVideo(VideoProcessorMixin):
    """Stands where a processor demands one for videos: the real ones need torchvision. Pictures never reach it."""

    num_frames = fps = 1


def no_video() -> Any:
    # The check of a processor's parts looks for this name in the module that it keeps, where it is missing without torchvision.
    processing_utils.transformers_module.VideoProcessorMixin = VideoProcessorMixin
    return NoVideo()


def clip_pair(words: Any, config_class: Any, model_class: Any, **more: Any) -> Any:
    vision = CLIPVisionConfig(**{**VISION, "num_hidden_layers": 3}, image_size=tiny.SIDE, patch_size=tiny.PATCH)
    return model_class(
        config_class(vision_config=vision, text_config=LlamaConfig(**text(words)), image_token_index=words.image_token_id, **more)
    )


def llava_next() -> Built:
    words = tiny.tokenizer()
    model = clip_pair(words, LlavaNextConfig, LlavaNextForConditionalGeneration, image_grid_pinpoints=PINPOINTS)
    with torch.no_grad():
        model.model.image_newline.normal_()
    side = {"height": tiny.SIDE, "width": tiny.SIDE}
    processor = LlavaNextProcessor(
        LlavaNextImageProcessorPil(size={"shortest_edge": tiny.SIDE}, crop_size=side, image_grid_pinpoints=PINPOINTS),
        words,
        patch_size=tiny.PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tiny.LLAVA_TEMPLATE,
    )
    return model, processor


def vipllava() -> Built:
    words = tiny.tokenizer()
    model = clip_pair(words, VipLlavaConfig, VipLlavaForConditionalGeneration, vision_feature_layers=[-2, -1])
    return model, tiny.build("stretch")[1]


def onevision(most_tiles: int) -> Built:
    """58 pixels a tile, 56 of which have patches, as 378 of 384 do in the real one."""
    words = tiny.tokenizer(named={"image_token": "<image>", "video_token": "<video>"})
    side = tiny.SIGLIP_SIDE
    pins = [[rows * side, cols * side] for rows in (1, 2, 3) for cols in (1, 2, 3)]
    aspect = f"anyres_max_{most_tiles}"
    vision = SiglipVisionConfig(**VISION, image_size=side, patch_size=tiny.PATCH, vision_use_head=False)
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=transformers.Qwen2Config(**text(words)),
        image_token_index=words.image_token_id,
        video_token_index=words.video_token_id,
        image_grid_pinpoints=pins,
        vision_aspect_ratio=aspect,
        vision_feature_layer=-1,
    )
    model = LlavaOnevisionForConditionalGeneration(config)
    tiny.calm(model.model.vision_tower.encoder.layers)
    with torch.no_grad():
        model.model.image_newline.normal_()
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessorPil(size={"height": side, "width": side}, image_grid_pinpoints=pins),
        words,
        no_video(),
        num_image_tokens=(side // tiny.PATCH) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=aspect,
        chat_template=tiny.LLAVA_TEMPLATE,
    )
    return model, processor


def qwen_words() -> tuple[Any, dict[str, int]]:
    names = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    words = tiny.tokenizer(chatml=True, named=names, more=("<|vision_start|>", "<|vision_end|>"))
    start, end = words.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>"])
    ids = {"vision_start_token_id": start, "vision_end_token_id": end}
    return words, ids | {"image_token_id": words.image_token_id, "video_token_id": words.video_token_id}


# Two heads of width 32: three sections of rotary frequencies, 16 in all.
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
QWEN_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"


def qwen(version: str) -> Built:
    words, ids = qwen_words()
    shape = text(words, num_attention_heads=2, rope_parameters=MROPE)
    if version == "2":
        vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14, "spatial_merge_size": 2}
        model: Any = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=shape, vision_config=vision, **ids))
    else:
        vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64, "num_heads": 2, "patch_size": 14}
        vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=shape, vision_config=vision, **ids))
    pictures = Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 64})
    processor = (Qwen2VLProcessor if version == "2" else Qwen2_5_VLProcessor)(
        pictures, words, no_video(), chat_template=template(QWEN_PICTURE)
    )
    return model, processor


def experts() -> dict[str, int]:
    return {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def qwen3(model_class: Any, config_class: Any, *, deepstack: bool = False, moe: bool = False) -> Built:
    """Qwen3-VL, whose tower writes into the outputs of the first two blocks (deepstack), and Qwen3.5, most of whose blocks are linear attention."""
    words, ids = qwen_words()
    shape = text(words, num_attention_heads=2, head_dim=32, rope_parameters=MROPE, **(experts() if moe else {}))
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64, "num_heads": 2, "patch_size": 14}
    vision |= {"num_position_embeddings": 16}
    if deepstack:
        vision |= {"deepstack_visual_indexes": [0, 1]}
    else:
        kinds = ["linear_attention", "linear_attention", "full_attention"]  # the last is full, as in the real one
        shape |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
        shape |= {"layer_types": kinds, "rope_parameters": MROPE | {"mrope_section": [2, 1, 1], "partial_rotary_factor": 0.25}}
        if moe:
            shape |= {"shared_expert_intermediate_size": 32}
            del shape["intermediate_size"]
    model = model_class(config_class(text_config=shape, vision_config=vision, tie_word_embeddings=False, **ids))
    pictures = Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 64})
    return model, Qwen3VLProcessor(pictures, words, no_video(), chat_template=template(QWEN_PICTURE))


def glm4v(model_class: Any, config_class: Any, *, moe: bool = False) -> Built:
    marks = ("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>")
    words = tiny.tokenizer(named={"image_token": "<|image|>", "video_token": "<|video|>"}, more=marks)
    names = ("image_start_token_id", "image_end_token_id", "video_start_token_id", "video_end_token_id")
    ids = dict(zip(names, words.convert_tokens_to_ids(list(marks)), strict=True))
    ids |= {"image_token_id": words.image_token_id, "video_token_id": words.video_token_id}
    routed = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1}
    shape = text(words, num_attention_heads=2, rope_parameters=MROPE | {"mrope_section": [2, 3, 3], "partial_rotary_factor": 0.5})
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64, "num_heads": 2, "patch_size": 14}
    vision |= {"image_size": 56, "initializer_range": 0.1}
    model = model_class(config_class(text_config={**shape, **(routed if moe else {})}, vision_config=vision, **ids))
    pictures = Glm4vImageProcessorPil(size={"shortest_edge": 28 * 28 * 2, "longest_edge": 28 * 28 * 2 * 64})
    picture = "<|begin_of_image|><|image|><|end_of_image|>"
    return model, Glm4vProcessor(pictures, words, no_video(), chat_template=template(picture))


TILE = {"height": 56, "width": 56}


def internvl() -> Built:
    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    words = tiny.tokenizer(chatml=True, named=names)
    vision = {**VISION, "image_size": 56, "patch_size": 14, "layer_scale_init_value": 1.0}
    config = InternVLConfig(
        text_config={**text(words), "model_type": "qwen2"},
        vision_config=vision,
        image_token_id=words.context_image_token_id,
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    pictures = GotOcr2ImageProcessorPil(size=TILE, crop_to_patches=True, max_patches=6)
    processor = InternVLProcessor(pictures, words, no_video(), image_seq_length=4, chat_template=template("<IMG_CONTEXT>"))
    return InternVLForConditionalGeneration(config), processor


def cohere_text(words: Any) -> Any:
    shape = text(words, logit_scale=0.25, layer_types=["sliding_attention", "full_attention", "sliding_attention"], sliding_window=20)
    return Cohere2Config(**shape)


def aya_vision() -> Built:
    marks = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "TILE_GLOBAL", *(f"TILE_{i}" for i in range(1, 13)))
    words = tiny.tokenizer(named={"image_token": "<image>"}, more=marks)
    config = AyaVisionConfig(
        text_config=cohere_text(words),
        vision_config=SiglipVisionConfig(**VISION, image_size=56, patch_size=14, vision_use_head=False),
        image_token_index=words.convert_tokens_to_ids("<|IMG_PATCH|>"),
        alignment_intermediate_size=64,
        tie_word_embeddings=False,
    )
    model = AyaVisionForConditionalGeneration(config)
    tiny.calm(model.model.vision_tower.encoder.layers)
    pictures = GotOcr2ImageProcessorPil(size=TILE, crop_to_patches=True, max_patches=6)
    processor = AyaVisionProcessor(pictures, words, patch_size=14, img_size=56, downsample_factor=2, chat_template=tiny.LLAVA_TEMPLATE)
    return model, processor


class WithoutTorchvision:
    """What torchvision does for an image processor, done by torch."""

    def process_image(self, image: Image.Image, **_kwargs: Any) -> torch.Tensor:
        values = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
        return values.view(image.height, image.width, 3).permute(2, 0, 1).contiguous()

    def resize(self, image: torch.Tensor, size: Any, **_kwargs: Any) -> torch.Tensor:
        batch = image.float() if image.ndim == 4 else image.float()[None]
        resized = F.interpolate(batch, (size.height, size.width), mode="bilinear", antialias=False)
        return resized if image.ndim == 4 else resized[0]

    def rescale_and_normalize(self, images: torch.Tensor, *_args: Any) -> torch.Tensor:
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.image_mean, self.image_std))  # type: ignore[attr-defined]
        return (images.float() / 255 - mean) / std


class Cohere2VisionWithoutTorchvision(WithoutTorchvision, Cohere2VisionImageProcessor):
    """The real tiling."""


def cohere2_vision() -> Built:
    names = {"image_token": "<|IMG_PATCH|>", "boi_token": "<|START_OF_IMG|>", "eoi_token": "<|END_OF_IMG|>"}
    words = tiny.tokenizer(named=names | {"img_line_break_token": "<|IMG_LINE_BREAK|>"})
    config = Cohere2VisionConfig(
        text_config=cohere_text(words),
        vision_config=SiglipVisionConfig(**VISION, image_size=56, patch_size=14, vision_use_head=False),
        image_token_id=words.image_token_id,
        alignment_intermediate_size=64,
        tie_word_embeddings=False,
    )
    model = Cohere2VisionForConditionalGeneration(config)
    tiny.calm(model.model.vision_tower.encoder.layers)
    # For the processor, the patch size is the number of tokens along a tile's side.
    pictures = Cohere2VisionWithoutTorchvision(size=TILE, max_patches=6, patch_size=2)
    return model, Cohere2VisionProcessor(pictures, words, chat_template=template("<|IMG_PATCH|>"))


def pixtral(*, merge: int) -> Built:
    """Mistral 3, which merges patches, and a LLaVA with the same tower, which does not."""
    marks = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    words = tiny.tokenizer(named={}, more=marks)
    vision = PixtralVisionConfig(**VISION, image_size=112, patch_size=14)
    image_token = words.convert_tokens_to_ids("[IMG]")
    if merge > 1:
        shape = MistralConfig(**text(words))
        config: Any = Mistral3Config(
            text_config=shape, vision_config=vision, image_token_index=image_token, spatial_merge_size=merge, tie_word_embeddings=False
        )
        model: Any = Mistral3ForConditionalGeneration(config)
    else:
        config = LlavaConfig(
            text_config=MistralConfig(**text(words)),
            vision_config=vision,
            image_token_index=image_token,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            tie_word_embeddings=False,
        )
        model = LlavaForConditionalGeneration(config)
    pictures = PixtralImageProcessorPil(size={"longest_edge": 112}, patch_size=14)
    processor = PixtralProcessor(pictures, words, patch_size=14, spatial_merge_size=merge, chat_template=template("[IMG]"))
    return model, processor


def paligemma() -> Built:
    words = tiny.tokenizer()
    words.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="$A")  # as with Gemma's add_bos_token=False
    pictures = SiglipImageProcessorPil(size=TILE)
    pictures.image_seq_length = 16
    processor = PaliGemmaProcessor(pictures, words)
    config = PaliGemmaConfig(
        text_config=GemmaConfig(**text(words), head_dim=16),
        vision_config=SiglipVisionConfig(**VISION, image_size=56, patch_size=14, vision_use_head=False),
        image_token_index=words.image_token_id,
        projection_dim=64,
        tie_word_embeddings=False,
    )
    model = PaliGemmaForConditionalGeneration(config)
    tiny.calm(model.model.vision_tower.encoder.layers)
    return model, processor


def idefics2(*, splitting: bool) -> Built:
    words = tiny.tokenizer(named={})
    latents = 4
    pictures = Idefics2ImageProcessorPil(size={"shortest_edge": 42, "longest_edge": 56}, do_image_splitting=splitting)
    processor = Idefics2Processor(pictures, words, image_seq_len=latents, chat_template=tiny.LLAVA_TEMPLATE)
    perceiver = {"hidden_size": 64, "resampler_n_latents": latents, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 16}
    model = Idefics2ForConditionalGeneration(
        Idefics2Config(
            text_config={**text(words), "model_type": "mistral"},
            vision_config={**VISION, "image_size": 56, "patch_size": 14},
            perceiver_config=perceiver | {"num_key_value_heads": 2},
            image_token_id=processor.image_token_id,
        )
    )
    with torch.no_grad():  # all alike as they are made
        model.model.connector.perceiver_resampler.latents.normal_()
    return model, processor


def idefics3(*, smol: bool = False, splitting: bool = True) -> Built:
    marks = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *TILE_MARKS)
    words = tiny.tokenizer(named={}, more=marks)
    side, patch, factor = 56, 7, 2
    vision = {**VISION, "image_size": side, "patch_size": patch}
    image_token = words.convert_tokens_to_ids("<image>")
    shape = {**text(words), "model_type": "llama"}
    config, model_class, processor_class, pictures = (
        (SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMProcessor, SmolVLMImageProcessorPil)
        if smol
        else (Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor, Idefics3ImageProcessorPil)
    )
    model: Any = model_class(config(text_config=shape, vision_config=vision, scale_factor=factor, image_token_id=image_token))
    parts = [pictures(size={"longest_edge": 4 * side}, max_image_size={"longest_edge": side}, do_image_splitting=splitting), words]
    if smol:
        processing_smolvlm.num2words = str  # a package for numbers of video frames
        parts.append(no_video())
    processor = processor_class(*parts, image_seq_len=(side // patch // factor) ** 2, chat_template=tiny.LLAVA_TEMPLATE)
    return model, processor


def gemma3(*, crops: bool = False) -> Built:
    names = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    words = tiny.tokenizer(named=names)
    vision = SiglipVisionConfig(**VISION, image_size=56, patch_size=7, vision_use_head=False)
    # Most blocks of the real one see a window only; here it is shorter than the prompt.
    shape = text(words, head_dim=16, layer_types=["sliding_attention", "full_attention", "sliding_attention"], sliding_window=20)
    config = Gemma3Config(
        text_config=Gemma3TextConfig(**shape),
        vision_config=vision,
        mm_tokens_per_image=16,
        image_token_index=words.image_token_id,
        boi_token_index=words.boi_token_id,
        eoi_token_index=words.eoi_token_id,
        tie_word_embeddings=False,
    )
    model = Gemma3ForConditionalGeneration(config)
    tiny.calm(model.model.vision_tower.encoder.layers)
    with torch.no_grad():  # zeros as it is made: no picture would be seen
        model.model.multi_modal_projector.mm_input_projection_weight.normal_(std=0.05)
    scan = {
        "do_pan_and_scan": True,
        "pan_and_scan_min_crop_size": 20,
        "pan_and_scan_max_num_crops": 4,
        "pan_and_scan_min_ratio_to_activate": 1.2,
    }
    pictures = Gemma3ImageProcessorPil(size={"height": 56, "width": 56}, **(scan if crops else {}))
    processor = Gemma3Processor(pictures, words, image_seq_length=16, chat_template=template("<start_of_image>"))
    if crops:
        processor.images_kwargs = {**processor.images_kwargs, **scan}
    return model, processor


class Molmo2WithoutTorchvision(WithoutTorchvision, Molmo2ImageProcessor):
    """The real tiling and pooling."""


def molmo2(*, patch: int, side: int) -> Built:
    inside = (
        "<im_start>",
        "<im_end>",
        "<im_patch>",
        "<im_col>",
        "<low_res_im_start>",
        "<|image|>",
        "<im_low>",
        "<frame_start>",
        "<frame_end>",
    )
    plain = tiny.tokenizer(named={})
    size = len(plain)
    # Real checkpoints keep these ids behind the vocabulary of the head.
    plain.add_special_tokens({"additional_special_tokens": [*inside, "<|video|>"]})
    ids = dict(zip(inside, plain.convert_tokens_to_ids(list(inside)), strict=True))
    config = Molmo2Config(
        text_config={**text(plain), "vocab_size": size, "additional_vocab_size": len(plain) - size, "head_dim": 16},
        vision_config={
            **VISION,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "image_size": [side, side],
            "patch_size": patch,
            "initializer_range": 0.1,
        },
        adapter_config={
            "vision_feature_layer": [-1, 0],
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "intermediate_size": 64,
            "text_hidden_size": 64,
            "initializer_range": 0.3,  # features are added to the mark's own embedding, and would be lost beside it
        },
        image_start_token_id=ids["<im_start>"],
        low_res_image_start_token_id=ids["<low_res_im_start>"],
        image_end_token_id=ids["<im_end>"],
        image_patch_id=ids["<im_patch>"],
        frame_start_token_id=ids["<frame_start>"],
        frame_end_token_id=ids["<frame_end>"],
    )
    model = Molmo2ForConditionalGeneration(config)
    pictures = Molmo2WithoutTorchvision(size={"height": side, "width": side}, patch_size=patch, max_crops=4, overlap_margins=[1, 1])
    processor = Molmo2Processor(image_processor=pictures, video_processor=no_video(), tokenizer=plain, chat_template=template("<|image|>"))
    return model, processor


FAMILIES: dict[str, Callable[[], Built]] = {
    "llava_next": llava_next,
    "vipllava": vipllava,
    "onevision": functools.partial(onevision, 9),
    "onevision shrunk": functools.partial(onevision, 2),
    "qwen2_vl": functools.partial(qwen, "2"),
    "qwen2_5_vl": functools.partial(qwen, "2.5"),
    "idefics2": functools.partial(idefics2, splitting=False),
    "idefics2 split": functools.partial(idefics2, splitting=True),
    "idefics3": idefics3,
    "idefics3 whole": functools.partial(idefics3, splitting=False),
    "smolvlm": functools.partial(idefics3, smol=True),
    "gemma3": gemma3,
    "gemma3 crops": functools.partial(gemma3, crops=True),
    "molmo2": functools.partial(molmo2, patch=7, side=56),
    "molmo2 odd": functools.partial(molmo2, patch=7, side=35),
    "qwen3_5": functools.partial(qwen3, Qwen3_5ForConditionalGeneration, Qwen3_5Config),
    "qwen3_5 moe": functools.partial(qwen3, Qwen3_5MoeForConditionalGeneration, Qwen3_5MoeConfig, moe=True),
    "qwen3_vl": functools.partial(qwen3, Qwen3VLForConditionalGeneration, Qwen3VLConfig, deepstack=True),
    "qwen3_vl moe": functools.partial(qwen3, Qwen3VLMoeForConditionalGeneration, Qwen3VLMoeConfig, deepstack=True, moe=True),
    "internvl": internvl,
    "mistral3": functools.partial(pixtral, merge=2),
    "pixtral": functools.partial(pixtral, merge=1),
    "paligemma": paligemma,
    "aya_vision": aya_vision,
    "cohere2_vision": cohere2_vision,
    "glm4v": functools.partial(glm4v, Glm4vForConditionalGeneration, Glm4vConfig),
    "glm4v moe": functools.partial(glm4v, Glm4vMoeForConditionalGeneration, Glm4vMoeConfig, moe=True),
}


def build(name: str) -> Built:
    """(model, processor) with weights that a test can see something in."""
    torch.manual_seed(0)
    model, processor = FAMILIES[name]()
    tiny.make_readable(model, processor.tokenizer)
    return model.eval(), processor


@functools.cache
def vlm(name: str) -> interp.Vlm:
    """The same one each time: tests must leave it as they found it."""
    return interp.Vlm(*build(name), name=name)
