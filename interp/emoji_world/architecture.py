"""The shape of `emoji-llava`: config, processor and freshly initialised model."""

import math
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from .words import CHAT_TEMPLATE, build_tokenizer

IMAGE_SIDE, PATCH, CELLS = 96, 12, 8
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def build_processor(tokenizer: PreTrainedTokenizerFast | None = None, chat_template: str = CHAT_TEMPLATE) -> LlavaProcessor:
    """CLIP preprocessing (resize the short side to 96, centre crop) and a tokenizer, by default the emoji one, behind LLaVA's own processor."""
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIDE}, crop_size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}),
        tokenizer=tokenizer or build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )


def vision_config() -> CLIPVisionConfig:
    """The tower of both embedded models: 6 layers, 192 wide."""
    return CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=512,
        hidden_act="relu",
        num_hidden_layers=6,
        num_attention_heads=6,
        image_size=IMAGE_SIDE,
        patch_size=PATCH,
        projection_dim=192,
    )


def build_model(processor: LlavaProcessor, *, seed: int = 0) -> LlavaForConditionalGeneration:
    """A LLaVA with a 6-layer CLIP tower and an 8-layer Llama decoder, both 192 wide, randomly initialised."""
    tokenizer = processor.tokenizer
    config = LlavaConfig(
        vision_config=vision_config(),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=384,
            num_hidden_layers=8,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=tokenizer.model_max_length,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=tokenizer.image_token_id,
        # The last tower layer, not LLaVA-1.5's second to last: so small a tower has no layer to spare.
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    tower = model.model.vision_tower
    with torch.no_grad():
        _attend_locally(tower)
        for parameter in model.model.multi_modal_projector.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=1 / math.sqrt(parameter.shape[1]))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def whiten_patches(model: LlavaForConditionalGeneration, pictures: torch.Tensor) -> None:
    """Start the patch embedding as the whitened principal components of real patches.

    `pictures` [N, 3, side, side] are normalised. Whitening the first layer saves a small network many thousand steps.
    """
    patches = pictures.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * PATCH * PATCH)
    values, vectors = torch.linalg.eigh((patches.T @ patches / len(patches)).double())
    weight = model.model.vision_tower.embeddings.patch_embedding.weight
    kept = weight.shape[0] - _POSITION_WIDTH  # the first channels belong to the positions
    top = vectors[:, -kept:] / (values[-kept:] + 0.02).sqrt()
    with torch.no_grad():
        weight.zero_()
        weight[_POSITION_WIDTH:] = top.T.reshape(kept, *weight.shape[1:]).float() * 0.7


_POSITION_WIDTH = 32  # residual channels that initially hold the position of a patch; also the width of one head
_NEAR = [(0, 1), (0, -1), (1, 0), (-1, 0), (0, 0)]
_DIAGONAL = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
_FAR = [(0, 2), (0, -2), (2, 0), (-2, 0)]


def _attend_locally(tower: Any) -> None:
    """Initialise heads to attend to a fixed neighbour, like a convolution (other weights stay random).

    Positions are sines and cosines of row and column, so a query that rotates them by an offset matches the key of the patch at that
    offset. A transformer learns this from some hundred thousand pictures; here it is given.
    """
    frequencies = torch.linspace(0.25, 2.4, _POSITION_WIDTH // 4)
    angles = torch.arange(CELLS)[:, None] * frequencies
    axis = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)  # [cells, width / 2]
    rows, columns = axis[:, None].expand(CELLS, CELLS, -1), axis[None].expand(CELLS, CELLS, -1)
    positions = tower.embeddings.position_embedding.weight
    positions.mul_(0.1)
    positions[1:, :_POSITION_WIDTH] = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    for layer, offsets in zip(tower.encoder.layers, [_NEAR, _NEAR, _DIAGONAL, _NEAR, _FAR, _DIAGONAL], strict=True):
        attention = layer.self_attn
        for head, offset in enumerate(offsets):
            channels = slice(head * _POSITION_WIDTH, (head + 1) * _POSITION_WIDTH)
            turns = []
            for steps in offset:
                for f in frequencies.tolist():
                    c, s = math.cos(f * steps), math.sin(f * steps)
                    turns.append(torch.tensor([[c, s], [-s, c]]))
            for projection, matrix in ((attention.q_proj, torch.block_diag(*turns)), (attention.k_proj, torch.eye(_POSITION_WIDTH))):
                projection.weight[channels] *= 0.1
                projection.weight[channels, :_POSITION_WIDTH] += 1.3 * matrix
