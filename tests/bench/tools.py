"""Timing in turns, peak memory, tables, and random models of full vocabulary. Knows nothing of what is measured."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import interp

ROOT = Path(__file__).parents[2]
CHAT = (
    "{% for m in messages %}USER: {% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}"
    "{% endif %}{% endfor %}{% endfor %}"
)


def in_turns(functions: dict[str, Callable[[], object]], runs: int = 5) -> dict[str, float]:
    """Median seconds of each function: one warm-up, then A B A B …, so that a drifting machine hurts all alike."""
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(runs):
        for name, function in functions.items():
            _settle()
            start = time.perf_counter()
            function()
            _settle()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _settle() -> None:
    """Wait until the GPU has done what it was told to, where one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def report(what: str, seconds: dict[str, float], target: float | None = None) -> None:
    """Print medians, and the ratio of the first to the last, which is the baseline."""
    (name, value), *_, (base_name, base) = seconds.items()
    for key, median in seconds.items():
        print(f"{what}: {key}: {median:.3f} s")
    verdict = "" if target is None else f" (target {target}: {'met' if value / base <= target else 'MISSED'})"
    print(f"{what}: {name} / {base_name} = {value / base:.2f}{verdict}", flush=True)


def verdict(value: float, target: float) -> str:
    """How a figure that must not be above its target did."""
    return f"{target:g}: {'met' if value <= target else 'MISSED'}"


def print_table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table in Markdown, as docs/benchmarks.md holds them."""
    for cells in (columns, ("---",) * len(columns), *rows):
        print(f"| {' | '.join(cells)} |")
    print(flush=True)


def peak_extra_mib(function: Callable[[], object]) -> float:
    """How much the resident memory of this process rose above where it stood, at its highest, while `function` ran (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to the present
    before = _status("VmRSS")
    function()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))


def in_fresh_process(code: str) -> str:
    """What `code` prints in a Python process of its own."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def random_tokenizer(words: int) -> PreTrainedTokenizerFast:
    """Byte-level, of so many entries, without merges: every byte of a text is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<unk>", "<s>", "</s>", "<image>", *alphabet]
    pieces += [f"Ġword{i}" for i in range(words - len(pieces))]
    backend = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[], ignore_merges=True))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", extra_special_tokens={"image_token": "<image>"}
    )


def random_llava(
    width: int, layers: int, *, grid: int = 24, vocabulary: int = 32_064, words: int = 32_002, intermediate: int = 64, heads: int = 8
) -> interp.Vlm:
    """A LLaVA-1.5 in shape (24 x 24 patches, 32 064 output rows of which 32 002 are words), random, with thin blocks unless told otherwise."""
    tokenizer = random_tokenizer(words)
    side = grid * 14
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=1, image_size=side, patch_size=14
            ),
            text_config=LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=width,
                intermediate_size=intermediate,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                max_position_embeddings=4096,
            ),
            image_token_index=tokenizer.image_token_id,
        )
    )
    return interp.Vlm(model, processor, name=f"random LLaVA, d={width}")
