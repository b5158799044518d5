"""Tiny random models of the real classes, saved as real checkpoints, and a naive lens to compare with."""

import copy
import functools
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPVisionConfig,
    Gemma2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

SIDE, PATCH = 56, 14  # a view of 4 x 4 patches
SIGLIP_SIDE = 58  # no multiple of the patch, as 384 is none of 14: two pixels at the right and the bottom have no token
SOFT_CAP = 3.0  # small: with the usual 30 a forgotten cap would hide in the rounding
PADDING_ROWS = 13  # rows of the padded head that no token belongs to
WORDS = (" dog", "dog", " Dog", " cat", " pizza", " tree", " house", " red", " blue", " on", " and", " with", " two", " sun", " boat", " a")
PROMPT_PIECES = ("Describe", " the", " image", "USER", " ASSISTANT", "user", "assistant", "The", " sat", " mat")

LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# The shape of llava-hf/llava-interleave-qwen-0.5b-hf: no newline between the turns, and an open line for the answer.
INTERLEAVE_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(*, chatml: bool = False, named: dict[str, str] | None = None, more: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Byte-level, like GPT-2's and Qwen's: every piece of WORDS is one token, all other text falls to bytes.

    `named`: special tokens that the tokenizer also has as attributes; `more`: special tokens without a name.
    """
    named = {"image_token": "<image>"} if named is None else named
    special = list(
        dict.fromkeys(["<unk>", "<pad>", *named.values(), *(("<|im_start|>", "<|im_end|>") if chatml else ("<s>", "</s>")), *more])
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = special + alphabet + [piece.replace(" ", "Ġ") for piece in WORDS + PROMPT_PIECES]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "<|im_end|>" if chatml else "</s>"}
    extra = dict(named)
    if chatml:
        extra |= {"start_token": "<|im_start|>"}
    else:
        names["bos_token"] = "<s>"
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])])
    out = PreTrainedTokenizerFast(
        tokenizer_object=backend, extra_special_tokens=extra, model_max_length=256, clean_up_tokenization_spaces=False, **names
    )
    if more:
        out.add_special_tokens({"additional_special_tokens": list(more)})
    return out


def image_processor(kind: str) -> Any:
    """One of the four ways in which LLaVA's kin bring a picture to the tower's size."""
    square = {"height": SIDE, "width": SIDE}
    return {
        "crop": lambda: CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square),
        "pad": lambda: LlavaImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square, do_pad=True),
        "stretch": lambda: CLIPImageProcessorPil(size=square, do_center_crop=False),
        "siglip": lambda: SiglipImageProcessorPil(size={"height": SIGLIP_SIDE, "width": SIGLIP_SIDE}),
    }[kind]()


def build(kind: str, *, text: str = "llama", padding: int = 0, seed: int = 0) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A LLaVA with random weights: `kind` names its picture processing, `text` its decoder. `padding` rows of its head have no token."""
    siglip, words = kind == "siglip", tokenizer(chatml=text == "qwen2")
    vision_shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": SIGLIP_SIDE if siglip else SIDE,
        "patch_size": PATCH,
    }
    shape = {
        "vocab_size": len(words) + padding,
        "hidden_size": 64,
        "intermediate_size": 64,  # whole blocks of 64: bitsandbytes packs them anew on processors with bfloat16
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 192,
        "initializer_range": 0.15,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    text_config = {
        "llama": lambda: LlamaConfig(**shape, tie_word_embeddings=False),
        "qwen2": lambda: Qwen2Config(**shape, tie_word_embeddings=True),
        "gemma2": lambda: Gemma2Config(**shape, head_dim=16, final_logit_softcapping=SOFT_CAP, tie_word_embeddings=False),
    }[text]()
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(**vision_shape, vision_use_head=False) if siglip else CLIPVisionConfig(**vision_shape),
        text_config=text_config,
        image_token_index=words.image_token_id,
        vision_feature_layer=-1 if siglip else -2,
        vision_feature_select_strategy="full" if siglip else "default",
        tie_word_embeddings=text_config.tie_word_embeddings,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    if siglip:
        calm(model.model.vision_tower.encoder.layers)
    make_readable(model, words)
    processor = LlavaProcessor(
        image_processor=image_processor(kind),
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=0 if siglip else 1,
        chat_template=INTERLEAVE_TEMPLATE if text == "qwen2" else LLAVA_TEMPLATE,
    )
    return model.eval(), processor


def calm(layers: Any) -> None:
    """SigLIP's own initialisation mixes patches so strongly that a patch may change its neighbour more than itself."""
    with torch.no_grad():
        for layer in layers:
            layer.self_attn.out_proj.weight *= 0.3


def make_readable(model: Any, words: PreTrainedTokenizerFast) -> None:
    """Random weights with which a test can see what it looks for."""
    with torch.no_grad():
        # Weights of one would let a norm that is applied twice go unseen.
        model.get_decoder().norm.weight.uniform_(0.3, 2.0)
        # Only the words are ever said: a random answer that decodes and encodes to itself. A padded head would like to say its padding.
        head = model.get_output_embeddings().weight
        quiet = torch.ones(len(head), dtype=torch.bool)
        quiet[words.convert_tokens_to_ids([word.replace(" ", "Ġ") for word in WORDS])] = False
        quiet[len(words) :] = False
        head[quiet] *= 0.05
        head[len(words) :] *= 1.5
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = words.eos_token_id, words.pad_token_id


def save(folder: Path, model: Any, processor: Any) -> str:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


class CappedLlava(LlavaForConditionalGeneration):
    """A class that applies its soft cap. LLaVA's own ignores the field (asserted in test_lens), as Gemma 3's does."""

    @functools.wraps(LlavaForConditionalGeneration.forward)  # generate checks its arguments by the signature
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        cap = self.config.get_text_config().final_logit_softcapping
        output.logits = torch.tanh(output.logits / cap) * cap
        return output


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Grey noise: every patch looks alike and none is flat."""
    values = np.random.default_rng(seed).integers(96, 160, (height, width, 1), dtype=np.uint8)
    return Image.fromarray(values.repeat(3, axis=2))


def without_attention(model: Any) -> Any:
    """A copy whose vision tower mixes no patches: what attention writes is zeroed, weights and biases."""
    model = copy.deepcopy(model)
    outputs = [module for name, module in model.model.vision_tower.named_modules() if name.endswith("self_attn.out_proj")]
    assert outputs
    for module in outputs:
        torch.nn.init.zeros_(module.weight)
        torch.nn.init.zeros_(module.bias)
    return model


def extend(inputs: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Prepared inputs with text `ids` behind them."""
    tensors = dict(inputs)
    tensors["input_ids"] = torch.cat([tensors["input_ids"], ids[None].to(tensors["input_ids"])], dim=1)
    tensors["attention_mask"] = torch.ones_like(tensors["input_ids"])
    for name in {"token_type_ids", "mm_token_type_ids"} & tensors.keys():
        tensors[name] = torch.nn.functional.pad(tensors[name], (0, len(ids)))
    return tensors


def full_forward(vlm: Any, trace: Any) -> Any:
    """One plain forward, without a cache, over all positions of a trace, by the model's own means."""
    inputs = vlm.prepare(trace.image, trace.prompt)
    start = inputs["input_ids"].shape[1]
    ids = torch.tensor([token.id for token in trace.tokens[start:-1]], dtype=torch.long)
    with torch.inference_mode():
        return vlm.model(**extend(inputs, ids), output_hidden_states=True, use_cache=False)


def naive_logits(vlm: Any, trace: Any, finish: Any = lambda logits: logits) -> torch.Tensor:
    """Every layer, one position at a time, from a second forward: float32 [layers + 1, T, vocabulary]. The last layer is the model's own."""
    output = full_forward(vlm, trace)
    *before, _normed = output.hidden_states  # transformers has normed the last entry already
    norm, head = vlm.model.get_decoder().norm, vlm.model.get_output_embeddings()
    with torch.inference_mode():
        rows = [torch.stack([finish(head(norm(state[0, t : t + 1]))).float()[0] for t in range(state.shape[1])]) for state in before]
    return torch.stack([*rows, output.logits[0].float()])


def shuffled_words(count: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices([word.strip() for word in WORDS], k=count))
