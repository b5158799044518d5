"""CLIP: pictures and texts as unit vectors whose cosine says how well they fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import AutoModel, AutoProcessor

from ..errors import InterpError
from ..validation import shown, text

CLIP = "openai/clip-vit-base-patch32"
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Clip:
    """A loaded CLIP."""

    name: str
    model: Any
    processor: Any
    device: torch.device

    @classmethod
    def load(cls, name: str, device: torch.device) -> "Clip":
        """A CLIP of transformers, a folder or a hub id, from safetensors. Raises InterpError for a model that is none or cannot be loaded."""
        model, processor = loaded(name, AutoModel, device), loaded(name, AutoProcessor, None)
        if not hasattr(model, "get_image_features"):
            raise InterpError(
                f"model {shown(name)} is a {type(model).__name__}, which has no embedding of pictures and texts: name a CLIP."
            )
        return cls(name, model, processor, device)

    def pictures(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """Unit embeddings: float32 [N, d] on the CPU."""
        return self._embedded(self.model.get_image_features, "images", pictures, {})

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit embeddings: float32 [N, d] on the CPU."""
        return self._embedded(self.model.get_text_features, "text", texts, {"padding": True, "truncation": True})

    def _embedded(self, features: Any, kind: str, items: Sequence[Any], options: dict[str, Any]) -> torch.Tensor:
        """A few at a time."""
        out = []
        with torch.inference_mode():
            for start in range(0, len(items), _BATCH):
                inputs = self.processor(**{kind: list(items[start : start + _BATCH])}, return_tensors="pt", **options).to(self.device)
                found = features(**inputs)
                rows = found if isinstance(found, torch.Tensor) else found.pooler_output
                out.append(normalize(rows.float().cpu(), dim=1))
        return torch.cat(out)


def loaded(name: Any, kind: Any, device: torch.device | None) -> Any:
    """What an auto class of transformers makes of a folder or a hub id: a model on `device`, or, without one, a processor or tokenizer.

    Raises InterpError for a name that is none, and for what cannot be loaded.
    """
    if not isinstance(name, str) or not text("model", name).strip():
        raise InterpError(f"model is {shown(name)}; it must be a folder or a hub id.")
    try:
        options: dict[str, Any] = {} if device is None else {"use_safetensors": True}
        made = kind.from_pretrained(name, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        raise InterpError(
            f"model {shown(name)} cannot be loaded ({' '.join(str(error).split())[:300]}). Name a folder or a hub id with safetensors."
        ) from error
    return made if device is None else made.to(device).eval()
