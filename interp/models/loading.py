"""Load a checkpoint into a `Vlm`: a preset, a hub id or a folder, in 4 bit or not, with an adapter or without.

Two steps, `fetch` and `Ready.load`: whatever cannot work is refused before it costs a download or memory.
"""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..devices import dtype_on, free_bytes, out_of_memory, pick_devices
from ..errors import InterpError
from ..presets import PRESETS, Preset
from ..validation import LONGEST_PATH, function, one_of, shown, text
from ..vision.layouts import LAYOUTS, REFUSED
from .adapters import Adapter, find_adapter
from .gguf import Decoder, decoder_file, open_decoder
from .hub import ask, download, elsewhere, is_folder, is_repo, weight_files
from .names import parted, with_adapter
from .vlm import Vlm

Quantize = Literal["auto", "4bit", "none"]
OnProgress = Callable[[str], None]
# Families whose AutoProcessor imports torchvision, whether it needs it or not.
_WANT_TORCHVISION = {
    *("cohere2_vision", "glm4v", "glm4v_moe", "internvl", "llava_onevision", "mistral3", "molmo2", "qwen2_5_vl", "qwen2_vl", "qwen3_5"),
    *("qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe", "smolvlm"),
}
_WANT_TORCHVISION_TOWERS = {"pixtral"}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "*.tiktoken")
_SMALLER = "choose a smaller model or another device, or free memory."
_WAYS_OUT = {True: f"Load it with quantize='4bit', {_SMALLER}", False: _SMALLER.capitalize()}  # by whether it can be loaded in 4 bit
_FAILURES = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError)


@dataclass(frozen=True)
class Ready:
    """A checkpoint that is downloaded, complete and fits in memory, but is not loaded yet."""

    name: str
    source: str
    folder: Path
    devices: tuple[torch.device, ...]
    dtype: torch.dtype
    quantization: Any
    processor: Any
    decoder: Decoder | None
    """One that is stored in a GGUF file."""
    adapter: Adapter | None

    def load(self, on_progress: OnProgress | None = None) -> Vlm:
        """Load the weights. Raises InterpError for weights that do not fit the config, and if memory runs out."""
        from transformers import AutoModelForImageTextToText  # noqa: PLC0415 - seconds of import

        if on_progress:
            on_progress(f"Loading {self.name} …")
        from_pretrained = self.decoder.from_pretrained if self.decoder else AutoModelForImageTextToText.from_pretrained
        try:
            loaded: Any = from_pretrained(
                self.folder,
                dtype=self.dtype,
                device_map={"": self.devices[0]} if len(self.devices) == 1 else "balanced",
                quantization_config=self.quantization,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                adapter_kwargs={"subfolder": "none"},  # transformers would put on one that lies beside the weights, pickled ones too
            )
        except _FAILURES as error:
            if out_of_memory(error):
                places = ", ".join(map(str, self.devices))
                raise InterpError(
                    f"{self.name!r} does not fit the memory of {places}: {_line(error)} {_WAYS_OUT[self.decoder is None]}"
                ) from error
            raise InterpError(f"{self.name!r} cannot be loaded: {_why(self.folder, error)}") from error
        model, found = loaded
        # transformers fills these with random numbers and only warns, so the lens would show noise.
        if absent := sorted(found["missing_keys"]) + [key for key, *_ in found["mismatched_keys"]]:
            raise InterpError(
                f"The weights of {self.name!r} do not fit its config: {len(absent)} are missing or misshapen, such as {absent[0]}. "
                f"Use a complete checkpoint, or build the model yourself and pass it to interp.Vlm(model, processor)."
            )
        model.config.name_or_path = self.source  # not the folder of the cache that it was read from
        if self.adapter:
            self.adapter.put_on(model)
            model.config.name_or_path = with_adapter(self.source, self.adapter.name)
        return Vlm(model, self.processor, name=self.name)


def load(
    checkpoint: str | PathLike[str],
    *,
    adapter: str | PathLike[str] | None = None,
    quantize: Quantize = "auto",
    device: str = "auto",
    revision: str | None = None,
    on_progress: OnProgress | None = None,
) -> Vlm:
    """Load a preset (see `interp.presets`), a hub id, or a folder.

    `adapter`: a fine-tune of it, as a LoRA that PEFT saved: a folder or a hub id. The model is then
    called "CHECKPOINT + ADAPTER", which may also be given as `checkpoint`. Weights in 16 or 32 bit take the adapter's change in; beside those in
    4 bit, which would be rounded a second time, it is computed in every pass.

    Weights come from safetensors; the decoder's may come from a GGUF file, which config.json then names in `decoder_gguf`. No code from the
    checkpoint is run.

    `quantize`: "4bit" is nf4 with double quantisation of the decoder's linear layers; vision tower, projector and head stay in 16 or 32 bit.
    "auto" is 4bit on CUDA and none on a CPU. `device`: "auto", "cpu", "cuda", "cuda:1", … or "balanced" (the layers spread over all GPUs).
    `on_progress` gets lines about progress; without it, downloads show progress bars on the console.

    Raises InterpError for an unknown name, an unreachable hub, a gated or private repository, a checkpoint without safetensors or with custom
    code, an unsupported family, a missing package, damaged files, too little disk space or memory, and an adapter that is not a LoRA in safetensors
    or was trained on another base.
    """
    asked: dict[str, Any] = {"adapter": adapter, "quantize": quantize, "device": device, "revision": revision}
    return fetch(checkpoint, **asked, on_progress=on_progress).load(on_progress)


def fetch(
    checkpoint: str | PathLike[str],
    *,
    adapter: str | PathLike[str] | None = None,
    quantize: Quantize = "auto",
    device: str = "auto",
    revision: str | None = None,
    on_progress: OnProgress | None = None,
    spare: int = 0,
) -> Ready:
    """Everything but loading the weights: download a checkpoint, check its files, and check that it fits in memory. Arguments as for `load`.

    `spare`: bytes on the device that will be freed before it is loaded.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor  # noqa: PLC0415 - seconds of import

    name, change = _names(checkpoint, adapter)
    quantize = one_of("quantize", quantize, get_args(Quantize))
    if revision is not None:
        text("revision", revision)
    function("on_progress", on_progress)
    preset = PRESETS.get(name)
    source, revision = (preset.checkpoint, revision or preset.revision) if preset else (name, revision)
    local = is_folder(source)
    _check_source(name, source, preset, local=local)
    devices = pick_devices(device)
    dtype = dtype_on(*devices)
    if on_progress and not local:
        on_progress(f"Asking the hub for {source} …")
    offer = None if local else ask(source, revision)
    folder = offer.folder if offer else Path(source)
    changed = None if change is None else _find_adapter(change, preset, source, on_progress)
    cannot = f"The folder {name!r} holds no checkpoint that can be loaded" if local else f"{name!r} cannot be loaded"
    try:
        _check_family(cannot, folder, preset)
        decoder = decoder_file(cannot, folder)
        four_bit = _wants_four_bit(cannot, quantize, preset, devices[0], decoder)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            skeleton = AutoModelForImageTextToText.from_config(config)
        _check_memory(
            name,
            _weight_bytes(skeleton, dtype, four_bit=four_bit) + (changed.nbytes if changed else 0),
            sum(map(free_bytes, devices)) + spare,
            devices,
            _WAYS_OUT[decoder is None],
        )
        if changed:
            changed.check(skeleton, four_bit=four_bit)
        if offer:
            download(offer, on_progress)
        files = _check_weights(cannot, folder)
        opened = open_decoder(cannot, folder / decoder, files, skeleton) if decoder else None
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, backend="pil")
        _complete(processor, skeleton)
    except InterpError:
        raise
    except _FAILURES as error:
        raise InterpError(f"{cannot}: {_why(folder, error)}") from error
    called = with_adapter(name, changed.name) if changed else name
    quantization = _four_bit(skeleton, dtype) if four_bit else None
    return Ready(called, source, folder, tuple(devices), dtype, quantization, processor, opened, changed)


def _names(checkpoint: str | PathLike[str], adapter: str | PathLike[str] | None) -> tuple[str, str | None]:
    """The names of the base and of the adapter, which may both stand in `checkpoint`."""
    if not isinstance(checkpoint, str | PathLike):
        raise InterpError(f"checkpoint is {shown(checkpoint)}; it must be the name of a preset, a hub id, or a folder.")
    if not isinstance(adapter, str | PathLike | None):
        raise InterpError(f"adapter is {shown(adapter)}; it must be a folder, a hub id, or None.")
    name = text("checkpoint", fspath(checkpoint), LONGEST_PATH)
    if adapter is not None:
        return name, text("adapter", fspath(adapter), LONGEST_PATH)
    return (name, None) if is_folder(name) else parted(name)


def _check_source(name: str, source: str, preset: Preset | None, *, local: bool) -> None:
    if preset and not local and Path(source).is_absolute():
        raise InterpError(
            f"The files of {name!r} are missing: there is no folder {source}. Install the package again, or choose another model."
        )
    if not local and not is_repo(source):
        raise InterpError(
            f"{name!r} is neither a known model nor a folder. Give a preset ({', '.join(PRESETS)}), a hub id such as 'llava-hf/llava-1.5-7b-hf', "
            f"or a folder."
        )


def _find_adapter(name: str, preset: Preset | None, source: str, on_progress: OnProgress | None) -> Adapter:
    """`source`: that of its base."""
    place = next((known.source for known in preset.adapters if known.name == name), name) if preset else name
    if on_progress and not is_folder(place):
        on_progress(f"Asking the hub for {place} …")
    found = find_adapter(place, [preset.name, source] if preset else [] if is_folder(source) else [source])
    return replace(found, name=name)


def _wants_four_bit(cannot: str, quantize: Quantize, preset: Preset | None, device: torch.device, decoder: str | None) -> bool:
    if decoder and quantize == "4bit":
        raise InterpError(
            f"{cannot}: its decoder is stored in blocks of {decoder}, which a second rounding to 4 bit would spoil. "
            f"Load it with quantize='none' or 'auto'."
        )
    if quantize == "auto" and preset:
        quantize = preset.quantize
    return device.type == "cuda" and not decoder if quantize == "auto" else quantize == "4bit"


def _check_family(cannot: str, folder: Path, preset: Preset | None) -> None:
    """Refuse what a download cannot fix: unsupported families, custom code and missing packages."""
    if not (folder / "config.json").is_file():
        raise InterpError(f"{cannot}: there is no config.json. {elsewhere(str(folder), [path.name for path in folder.iterdir()])}")
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    family = raw.get("model_type")
    if family not in LAYOUTS:
        unknown = "it needs custom code (trust_remote_code), which is not run here" if "auto_map" in raw else "its layout is not known"
        raise InterpError(
            f"{cannot}: model_type {family!r} is not supported: {REFUSED.get(family, unknown)}. "
            f"Supported families: {', '.join(sorted(LAYOUTS))}."
        )
    tower = (raw.get("vision_config") or {}).get("model_type")
    wanted = {
        *(preset.requires if preset else ()),
        *({"torchvision"} if family in _WANT_TORCHVISION or tower in _WANT_TORCHVISION_TOWERS else ()),
    }
    if missing := sorted(package for package in wanted if importlib.util.find_spec(package) is None):
        raise InterpError(f"{cannot}: {_install(missing)}")


def _install(packages: list[str]) -> str:
    minor = int(torch.__version__.split(".")[1])
    pins = {"torchvision": f"torchvision==0.{minor + 15}.0"}  # the version that matches this torch 2
    named = " ".join(pins.get(package, package) for package in packages)
    return f"its processor needs {' and '.join(packages)}, which is not installed. Run: pip install {named}"


def _weight_bytes(skeleton: Any, dtype: torch.dtype, *, four_bit: bool) -> int:
    """A lower bound on the memory of the weights in bytes, at half a byte for each quantised one."""
    quantised = {id(module.weight) for module in skeleton.get_decoder().modules() if isinstance(module, nn.Linear)} if four_bit else set()
    sizes = (weight.numel() // 2 if id(weight) in quantised else weight.numel() * dtype.itemsize for weight in skeleton.parameters())
    return sum(sizes)


def _check_memory(name: str, needed: int, free: int, devices: list[torch.device], way_out: str) -> None:
    if needed > free:
        places = ", ".join(map(str, devices))
        raise InterpError(
            f"{name!r} needs {needed / 1e9:.1f} GB on {places} for its weights alone, and {free / 1e9:.1f} GB are free. {way_out}"
        )


def _check_weights(cannot: str, folder: Path) -> list[Path]:
    """The files of safetensors, each opened once: its header shows whether it is complete and safetensors."""
    names = weight_files(cannot, folder, {path.name for path in folder.iterdir() if path.exists()})
    files = [folder / name for name in names if name.endswith(".safetensors")]
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            place = file.resolve()  # in the hub's cache, files are links, and their targets must be deleted
            raise InterpError(f"{cannot}: {file.name} is damaged ({_line(error)}). Delete {place} and download it again.") from error
    return files


def _complete(processor: Any, skeleton: Any) -> None:
    """Fill in processor settings that older checkpoints lack: without them the processor miscounts image tokens."""
    config = skeleton.config
    known = {
        "patch_size": getattr(getattr(config, "vision_config", None), "patch_size", None),
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", "default"),
    }
    for name, value in known.items():
        if getattr(processor, name, value) is None:
            setattr(processor, name, value)
    # A tower with a class token outputs one more state than it has patches; the processor assumes none.
    if getattr(processor, "num_additional_image_tokens", 1) in {None, 0}:
        processor.num_additional_image_tokens = sum(
            name.endswith((".class_embedding", ".cls_token")) for name, _ in skeleton.named_parameters()
        )


def _why(folder: Path, error: Exception) -> str:
    """What an error from transformers means."""
    if isinstance(error, ImportError) and "torchvision" in str(error).lower():
        return _install(["torchvision"])
    if not any(next(folder.glob(pattern), None) for pattern in _TOKENIZER_FILES):
        return f"its tokenizer is missing (none of {', '.join(_TOKENIZER_FILES)}). Use a complete checkpoint."
    return _line(error)


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:400] or type(error).__name__


def _four_bit(skeleton: Any, dtype: torch.dtype) -> Any:
    """nf4 for the decoder alone. The skip list replaces bitsandbytes' default list; its entries are prefixes of module names."""
    from transformers import BitsAndBytesConfig  # noqa: PLC0415

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
