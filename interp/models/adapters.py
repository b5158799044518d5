"""LoRA adapters of PEFT: fine-tunes that come as a small change to a base model.

Where the base holds its weights as plain numbers, PEFT adds the change to them (merges it). What is left is a plain model, which every lens, hook and
gradient reads like any other. A weight in 4 bit would have to be rounded a second time; there the change stays beside it, computed by PEFT in every
pass, and everything else is merged.
"""

import copy
import json
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..errors import InterpError
from ..presets import PRESETS
from .hub import fetch_files, is_folder, is_repo, repo_files
from .hub_errors import FAILURES, first_line

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"
_SLOT = "default"  # PEFT's name for it within the model
_PREFIX = "base_model.model."  # of the names of its weights in the file
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")  # the others change the weights of the base too
_REFUSED = {  # of code that is not the model's, or of another arithmetic than W + scale * B A
    *("alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "megatron_config", "monteclora_config", "use_bdlora"),
    *("trainable_token_indices", "use_qalora", "velora_config"),
}
_MERGE = "Merge it into its base with PEFT (merge_and_unload, then save_pretrained), and load the result"
_COPY_SUFFIX = re.compile(r"(-(unsloth|bnb|4bit|8bit))+$")
_MISSHAPEN = re.compile(r"size mismatch for (\S+): .*?torch\.Size\(\[(.*?)\]\).*?torch\.Size\(\[(.*?)\]\)")


@dataclass(frozen=True)
class Adapter:
    """An adapter whose files are here."""

    name: str
    """The folder or repository that it came from."""
    folder: Path
    nbytes: int
    """Bytes of its weights."""

    def check(self, skeleton: Any, *, four_bit: bool) -> None:
        """Raise InterpError unless it fits `skeleton`, a model without memory, which is left as it was. `four_bit`: how the model will be loaded."""
        with safe_open(self.folder / WEIGHTS, framework="pt") as file:
            shapes = {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118
        injected = self._injected(copy.deepcopy(skeleton), shapes, on_meta=True)
        settings = injected.peft_config[_SLOT]
        for option in ("use_dora", "target_parameters"):
            if four_bit and getattr(settings, option):
                raise InterpError(
                    f"The adapter {self.name!r} sets {option}, which 4-bit weights do not allow. Load it with quantize='none'."
                )

    def put_on(self, model: Any) -> None:
        """Change `model` to the fine-tune. Raises InterpError if the result is not finite."""
        # Before PEFT freezes the base, and with both names of a tied head, which may be parted from the embedding.
        trainable = {name for name, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad}
        try:
            injected = self._injected(model, safetensors.torch.load_file(self.folder / WEIGHTS))
            _untie(model)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if any(map(_in_four_bit, model.modules())):
                    _merge_all_but_four_bit(model)
                else:
                    injected.merge_and_unload(safe_merge=True)
        except FAILURES as error:
            raise InterpError(f"The adapter {self.name!r} cannot be merged into its base: {first_line(error)}.") from error
        for name, weight in model.named_parameters():
            weight.requires_grad_(name in trainable)

    def _injected(self, model: Any, weights: Mapping[str, torch.Tensor], *, on_meta: bool = False) -> Any:
        """The PeftModel around `model`, whose layers are now the adapter's, with these weights."""
        from peft import LoraConfig, PeftModel, set_peft_model_state_dict  # noqa: PLC0415 - seconds of import

        weights = _in_new_names(model, weights)
        cannot = f"The adapter {self.name!r} does not fit this base"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they are about is either intended or refused below
                injected = PeftModel(model, LoraConfig.from_pretrained(str(self.folder)), _SLOT, low_cpu_mem_usage=on_meta)
                found: Any = set_peft_model_state_dict(injected, weights, _SLOT, low_cpu_mem_usage=on_meta)
        except KeyError as error:
            raise InterpError(f"{cannot}: it has no weight {error}. Give it the base that it was trained on.") from error
        except FAILURES as error:
            raise InterpError(f"{cannot}: {_why(error)} Give it the base that it was trained on.") from error
        if strange := list(found.unexpected_keys):
            raise InterpError(
                f"{cannot}: {len(strange)} of its weights belong to no layer of it, such as {strange[0]}. Give it the base that it was trained on."
            )
        parts = (".lora_", f".modules_to_save.{_SLOT}.")
        if absent := [name for name in found.missing_keys if any(part in name for part in parts)]:
            raise InterpError(f"{cannot}: it has no weights for {len(absent)} of the layers that it changes, such as {absent[0]}.")
        injected.eval()
        return injected


def find_adapter(name: str, bases: Sequence[str]) -> Adapter:
    """Download an adapter, if `name` is a repository, and check its files and settings. `bases`: the names of the model it will be put on.

    Without `bases` any is accepted: a folder's name says nothing. Raises InterpError, as the hub's client does, and for files that are no
    adapter of type LoRA in safetensors, and for one that was trained on another base.
    """
    cannot = f"The adapter {name!r} cannot be loaded"
    if is_folder(name):
        folder = Path(name)
        _check_names(cannot, {path.name for path in folder.iterdir()})
    elif is_repo(name):
        listed = repo_files(name)
        _check_names(cannot, listed.names)
        folder = fetch_files(listed, [CONFIG, WEIGHTS])
    else:
        raise InterpError(f"{cannot}: it is neither a folder nor a hub id such as 'owner/name'. Check its spelling.")
    _check_settings(cannot, folder, bases)
    file = folder / WEIGHTS
    try:
        with safe_open(file, framework="pt"):
            pass
        return Adapter(name, folder, file.stat().st_size)
    except (SafetensorError, OSError) as error:
        place = file.resolve()  # in the hub's cache, files are links, and their targets must be deleted
        raise InterpError(f"{cannot}: {WEIGHTS} is damaged ({first_line(error)}). Delete {place} and get it again.") from error


def _check_names(cannot: str, names: Collection[str]) -> None:
    if CONFIG not in names:
        whole = "It holds a whole model: load that by itself." if "config.json" in names else "Give what PEFT's save_pretrained wrote."
        raise InterpError(f"{cannot}: there is no {CONFIG}. {whole}")
    if WEIGHTS not in names:
        if _PICKLE in names:
            raise InterpError(
                f"{cannot}: its weights are only a pickle ({_PICKLE}), which can run code when it is read. "
                f"Use a revision or a copy with safetensors, as PEFT's save_pretrained writes it."
            )
        raise InterpError(f"{cannot}: it has no weights: there is no {WEIGHTS}.")


def _check_settings(cannot: str, folder: Path, bases: Sequence[str]) -> None:
    """Refuse what would be ignored, or would change more than a model's weights."""
    from peft import LoraConfig  # noqa: PLC0415 - seconds of import

    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind = settings.get("peft_type")
    except (OSError, ValueError, AttributeError) as error:
        raise InterpError(f"{cannot}: {CONFIG} is damaged ({first_line(error)}).") from error
    if kind != "LORA":
        raise InterpError(f"{cannot}: it is of type {kind!r}, and only 'LORA' is supported. {_MERGE}.")
    known = {field.name for field in fields(LoraConfig)} - _REFUSED
    if refused := sorted(option for option, value in settings.items() if value and option not in known):
        raise InterpError(f"{cannot}: it sets {', '.join(refused)}, which is not supported. {_MERGE}.")
    start = settings.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS:
        raise InterpError(
            f"{cannot}: it started from init_lora_weights={start!r}, which changes the base's own weights as well. "
            f"Save it with PEFT as a plain LoRA (save_pretrained with path_initial_model_for_weight_conversion)."
        )
    trained_on = settings.get("base_model_name_or_path")
    ours = {_plain(base) for base in bases}
    named = isinstance(trained_on, str) and (trained_on in PRESETS or is_repo(trained_on))  # a path on another machine says nothing
    if named and ours and _plain(trained_on) not in ours:
        raise InterpError(
            f"{cannot}: it was trained on {trained_on!r}, not on {bases[0]!r}. Load it with its own base. If the two are "
            f"the same weights, change base_model_name_or_path in a copy of its {CONFIG}."
        )


def _plain(base: str) -> str:
    """A base's name without owner or folder, and without what the names of its quantised copies end in."""
    return _COPY_SUFFIX.sub("", base.rstrip("/").rsplit("/", 1)[-1].lower())


def _in_new_names(model: Any, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under the names that the layers of `model` have now: before version 5, transformers had others.

    PEFT does this too, but misses the towers.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415 - seconds of import
    from transformers.core_model_loading import WeightRenaming, rename_source_key  # noqa: PLC0415

    renamings = [each for each in get_model_conversion_mapping(model) if isinstance(each, WeightRenaming)]
    layers = {name for name, _ in model.named_modules()}
    out = {}
    for name, weight in weights.items():
        layer, dot, rest = name.removeprefix(_PREFIX).partition(".lora_")
        if not dot:
            layer, dot, rest = layer.rpartition(".")
        renamed = rename_source_key(f"{layer}.weight", renamings, [])[0].removesuffix(".weight")
        known = layer not in layers and renamed in layers
        out[f"{_PREFIX}{renamed}{dot}{rest}" if known else name] = weight
    return out


def _why(error: Exception) -> str:
    if found := _MISSHAPEN.search(str(error).replace("\n", " ")):
        weight, its, ours = found.groups()
        return f"{weight} is {its.replace(', ', ' x ')} in the adapter, and for this base it would be {ours.replace(', ', ' x ')}."
    return f"{first_line(error).rstrip('.')}."


def _in_four_bit(module: nn.Module) -> bool:
    """Whether a module owns a weight in 4 bit. An adapter's layer shows its base layer's, but does not own it."""
    return getattr(dict(module.named_parameters(recurse=False)).get("weight"), "quant_state", None) is not None


def _merge_all_but_four_bit(model: Any) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415
    from peft.utils.other import AuxiliaryTrainingWrapper  # noqa: PLC0415

    done: Any
    for name, layer in list(model.named_modules()):
        if isinstance(layer, AuxiliaryTrainingWrapper):  # a module that was trained as a whole
            done = layer.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
        elif isinstance(layer, BaseTunerLayer) and not _in_four_bit(layer.get_base_layer()):
            layer.merge(safe_merge=True)
            done = layer.get_base_layer()
        else:
            continue
        model.set_submodule(name, done)


def _untie(model: Any) -> None:
    """Give the head its own weights before it, or the embedding that it shares them with, is changed alone."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415

    embedding: Any
    head: Any
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    embedding, head = (end.get_base_layer() if isinstance(end, BaseTunerLayer) else end for end in ends)
    if any(isinstance(end, BaseTunerLayer) for end in ends) and head.weight is embedding.weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
    if head.weight is not embedding.weight:  # from now on they are saved apart
        model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
