"""Checkpoints of random weights in the exact shape of real ones, written to disk as transformers writes them, for `interp.load` to read.

What can be learned from them is what does not depend on training: memory, time, and whether arithmetic agrees with arithmetic. Knows nothing of
what is measured.
"""

import gc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextProcessor,
    LlavaProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from interp.devices import free_bytes

from .tools import CHAT, random_tokenizer

PATCH = 14
_TILINGS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))  # LLaVA-NeXT's, in sides of the tower's view


@dataclass(frozen=True)
class Shape:
    """What the config of a checkpoint is made of: a Llama, and a CLIP tower in front of it."""

    width: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    words: int
    """Rows of the vocabulary that the tokenizer knows."""
    context: int
    rope_theta: float
    tiles: bool
    """LLaVA-NeXT's tiles beside the whole picture."""
    tower: tuple[int, int, int, int] = (1024, 4096, 24, 16)
    """Of CLIP-L: width, intermediate, layers, heads."""
    side: int = 336
    """Pixels of the tower's square view."""

    @property
    def patches(self) -> int:
        """Image tokens of one view."""
        return (self.side // PATCH) ** 2

    def toy(self) -> "Shape":
        """The same kind, tiny. Inner sizes are whole blocks of 64, which bitsandbytes wants on a CPU."""
        heads = {"heads": 4, "key_value_heads": 4 if self.key_value_heads == self.heads else 2}
        sizes = {"width": 64, "intermediate": 64, "layers": 3, "vocabulary": 320, "words": 300, "context": 512}
        return replace(self, **sizes, **heads, tower=(32, 64, 3, 2), side=56)


SHAPES = {
    "llava-1.5-7b": Shape(4096, 11_008, 32, 32, 32, 32_064, 32_002, 4096, 10_000.0, tiles=False),
    "llama3-llava-next-8b": Shape(4096, 14_336, 32, 32, 8, 128_320, 128_258, 8192, 500_000.0, tiles=True),
}


def config_of(shape: Shape) -> LlavaConfig | LlavaNextConfig:
    """The config of the real checkpoint, but for the ids of special tokens, which are those of `random_tokenizer`."""
    width, intermediate, layers, heads = shape.tower
    common = {
        "vision_config": CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            image_size=shape.side,
            patch_size=PATCH,
            projection_dim=768,
        ),
        "text_config": LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads,
            max_position_embeddings=shape.context,
            rms_norm_eps=1e-5,
            rope_theta=shape.rope_theta,
            tie_word_embeddings=False,
        ),
        "image_token_index": random_tokenizer(300).image_token_id,
        "tie_word_embeddings": False,
    }
    return LlavaNextConfig(**common, image_grid_pinpoints=_pinpoints(shape)) if shape.tiles else LlavaConfig(**common)


def processor_of(shape: Shape) -> LlavaProcessor | LlavaNextProcessor:
    """The real processor's class and settings around a tokenizer of the full size."""
    size = {"size": {"shortest_edge": shape.side}, "crop_size": {"height": shape.side, "width": shape.side}}
    told: dict[str, Any] = {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    tokenizer = random_tokenizer(shape.words)
    if shape.tiles:
        return LlavaNextProcessor(
            LlavaNextImageProcessorPil(**size, image_grid_pinpoints=_pinpoints(shape)), tokenizer, chat_template=CHAT, **told
        )
    return LlavaProcessor(CLIPImageProcessorPil(**size), tokenizer, chat_template=CHAT, **told)


def write_checkpoint(folder: Path, shape: Shape) -> Path:
    """Write config, processor and random 16-bit weights into `folder`, unless they are there already.

    The weights are made on the GPU where they fit it, else in main memory, once: 14 GB for llava-1.5-7b, 17 GB for llama3-llava-next-8b.
    transformers' own initialisation (norms 1, all else normal with a deviation of 0.02) keeps activations finite in 16 bit.
    """
    if folder.exists():
        return folder
    config = config_of(shape)
    with torch.device("meta"):
        size = 2 * sum(weight.numel() for weight in AutoModelForImageTextToText.from_config(config).parameters())
    gpu = torch.device("cuda")
    place = gpu if torch.cuda.is_available() and free_bytes(gpu) > 1.2 * size else torch.device("cpu")
    torch.manual_seed(0)
    with place:
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float16)
    unfinished = folder.with_name(f"{folder.name}.unfinished")  # what is not whole must not be taken for a checkpoint the next time
    processor_of(shape).save_pretrained(unfinished)
    model.save_pretrained(unfinished, max_shard_size="2GB")
    unfinished.rename(folder)
    del model
    gc.collect()
    torch.cuda.empty_cache()
    return folder


def _pinpoints(shape: Shape) -> list[list[int]]:
    return [[rows * shape.side, columns * shape.side] for rows, columns in _TILINGS]
