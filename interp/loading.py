"""Load a checkpoint into a `Vlm`: a preset, a hub id or a folder, in 4 bit or not. Knows nothing of what is done with the model."""

from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from .devices import dtype_on, pick_device
from .errors import InterpError
from .model import Vlm
from .presets import PRESETS

Quantize = Literal["auto", "4bit", "none"]


def load(checkpoint: str | PathLike[str], *, quantize: Quantize = "auto", device: str = "auto", revision: str | None = None) -> Vlm:
    """Load a preset (see `interp.presets`), a hub id, or a folder. Weights come from safetensors, and no code of the checkpoint is run.

    `quantize`: "4bit" is nf4 with double quantisation of the decoder's linear layers; vision tower, projector and head stay in 16 or 32 bit.
    "auto" is 4bit on CUDA and none on a CPU. `device`: "auto", "cpu", "cuda", "cuda:1", …

    Raises InterpError for an unknown name, an unreachable hub, a checkpoint without safetensors, and a layout that is not understood.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor  # noqa: PLC0415 - seconds of import

    if not isinstance(checkpoint, str | PathLike):
        raise InterpError(f"checkpoint is {checkpoint!r}; it must be the name of a preset, a hub id, or a folder.")
    checkpoint = fspath(checkpoint)
    if quantize not in {"auto", "4bit", "none"}:
        raise InterpError(f"quantize is {quantize!r}; it must be 'auto', '4bit' or 'none'.")
    preset = PRESETS.get(checkpoint)
    source, revision = (preset.checkpoint, revision or preset.revision) if preset else (checkpoint, revision)
    if not preset and "/" not in source and not Path(source).is_dir():
        raise InterpError(
            f"{checkpoint!r} is no known model. Give a preset ({', '.join(PRESETS)}), a hub id such as 'llava-hf/llava-1.5-7b-hf', or a folder."
        )
    place = pick_device(device)
    if quantize == "auto":
        by_device: Quantize = "4bit" if place.type == "cuda" else "none"
        quantize = preset.quantize if preset and preset.quantize != "auto" else by_device
    dtype = dtype_on(place)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        processor = AutoProcessor.from_pretrained(source, revision=revision, trust_remote_code=False, backend="pil")
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            source,
            revision=revision,
            dtype=dtype,
            device_map={"": place},
            quantization_config=_four_bit(config, dtype) if quantize == "4bit" else None,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InterpError(_why_not(checkpoint, source, error)) from error
    model, found = loaded
    # transformers fills these with random numbers and only warns: a lens of noise with the model's name on it.
    if absent := sorted(found["missing_keys"]) + [key for key, *_ in found["mismatched_keys"]]:
        raise InterpError(
            f"The weights of {checkpoint!r} do not fit its config: {len(absent)} are missing or misshapen, such as {absent[0]}. "
            f"Use a complete checkpoint, or build the model yourself and pass it to interp.Vlm(model, processor)."
        )
    return Vlm(model, processor, name=checkpoint)


def _why_not(checkpoint: str, source: str, error: Exception) -> str:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(source).is_dir():
        return f"The folder {checkpoint!r} holds no checkpoint that can be loaded: {first_line}"
    return (
        f"{checkpoint!r} cannot be loaded: {first_line} Give a preset ({', '.join(PRESETS)}), the id of a public or accessible model on the "
        f"Hugging Face hub (this needs the internet), or a folder with config.json and safetensors."
    )


def _four_bit(config: Any, dtype: torch.dtype) -> Any:
    """nf4 for the decoder alone. The skip list replaces bitsandbytes' default one and is matched from the start of a module's full name."""
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig  # noqa: PLC0415

    with torch.device("meta"):
        skeleton = AutoModelForImageTextToText.from_config(config)
    decoder = next(name for name, module in skeleton.named_modules() if module is skeleton.get_decoder())
    ancestors = {decoder.rsplit(".", n)[0] for n in range(1, decoder.count(".") + 1)} | {""}
    skipped = [
        name
        for name, _ in skeleton.named_modules()
        if name and name.rpartition(".")[0] in ancestors and name != decoder and name not in ancestors
    ]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skipped,
    )
