"""Tiny random SAM 3, GroundingDINO and SAM of the real classes, saved as real checkpoints."""

import json

import torch
from transformers import (
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    SamConfig,
    SamModel,
    SamProcessor,
)
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil
from transformers.models.sam3.configuration_sam3 import Sam3Config
from transformers.models.sam3.modeling_sam3 import Sam3Model

from tests.concepts.test_scores import words_only

_SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}


def _widen(model, factor):
    """Larger weights: what random ones find is nearly the same everywhere."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(factor)


def sam_3(folder):
    """With views of 56 pixels, as `preprocessor_config.json` says in the way of the published checkpoint."""
    torch.manual_seed(0)
    words = words_only()
    tower = _SHAPE | {
        "model_type": "sam3_vit_model",
        "num_hidden_layers": 2,
        "image_size": 56,
        "pretrain_image_size": 56,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [1],
    }
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = _SHAPE | ids | {"model_type": "clip_text_model", "vocab_size": len(words), "projection_dim": 32, "num_hidden_layers": 2}
    config = Sam3Config(
        vision_config={"backbone_config": tower, "fpn_hidden_size": 32, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]},
        text_config=text | {"max_position_embeddings": 32},
        geometry_encoder_config=_SHAPE | {"num_layers": 1},
        detr_encoder_config=_SHAPE | {"num_layers": 1},
        detr_decoder_config=_SHAPE | {"num_layers": 2, "num_queries": 6},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    model = Sam3Model(config)
    _widen(model, 8)
    with torch.no_grad():  # it finds about half of its queries anywhere
        model.detr_decoder.presence_head.layer3.bias.fill_(0.5)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    about = {"image_processor_type": "Sam3ImageProcessorFast", "processor_class": "Sam3Processor", "size": {"height": 56, "width": 56}}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return str(folder)


def grounding_dino(folder):
    torch.manual_seed(0)
    words = words_only()
    backbone = {
        "model_type": "swin",
        "image_size": 64,
        "patch_size": 4,
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 4,
        "out_indices": [2, 3, 4],
    }
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=_SHAPE | {"model_type": "bert", "vocab_size": len(words), "num_hidden_layers": 2},
        num_queries=8,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
    )
    model = GroundingDinoForObjectDetection(config)
    _widen(model, 2)
    model.save_pretrained(folder)
    pictures = GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(pictures, words).save_pretrained(folder)
    return str(folder)


def sam(folder):
    torch.manual_seed(0)
    config = SamConfig(
        vision_config={
            "hidden_size": 32,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
            "window_size": 4,
            "num_pos_feats": 8,
            "global_attn_indexes": [1],
            "mlp_dim": 48,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    )
    SamModel(config).save_pretrained(folder)
    SamProcessor(SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})).save_pretrained(folder)
    return str(folder)
