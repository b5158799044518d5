"""Random LoRA adapters, made and saved by PEFT itself."""

from pathlib import Path
from typing import Any

import peft
import torch
import transformers

ATTENTION = ("q_proj", "v_proj")


def put_on(model: Any, *, seed: int = 0, targets: Any = ATTENTION, **options: Any) -> Any:
    """PEFT's model around this one, with an adapter whose every weight is random and large enough to change answers."""
    wanted = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets if isinstance(targets, str) else list(targets), **options)
    wrapped = peft.get_peft_model(model, wanted)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if weight.requires_grad:
                weight.normal_(0, 0.2) if "lora_" in name else weight.add_(0.05 * torch.randn_like(weight))
    return wrapped.eval()


def save(folder: Path, base: str, **options: Any) -> Any:
    """Write an adapter of the checkpoint in the folder `base`. Returns PEFT's model with it."""
    wrapped = put_on(transformers.AutoModelForImageTextToText.from_pretrained(base), **options)
    wrapped.save_pretrained(folder)
    return wrapped
