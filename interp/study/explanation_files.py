"""Files of explanations and labels, in the formats of multimodal-sae.

model_layers_24.json   [{"model.layers.24_feature7": "red flowers"}, …]      explanations
model_layers_24.json   {"model.layers.24_feature7": "flower", …}             refined labels
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..attribution.filters import layer_of
from ..errors import InterpError
from ..files import write_whole
from ..validation import shown

_KEY = re.compile(r"(.+)_feature(0|[1-9]\d{0,8})", re.ASCII)
_PROMPT = "prompt"  # the reference may store its prompt among the explanations
_MOST_BYTES = 1 << 30  # of a file; 131 072 explanations have 20 MB


def key_of(module: str, feature: int) -> str:
    """A feature's name in these files."""
    return f"{module}_feature{feature}"


def feature_of(key: str) -> int:
    """The feature of a name that `key_of` made."""
    return int(key.rpartition("_feature")[2])


def file_of(folder: Path, module: str) -> Path:
    """The file of a module's features."""
    return folder / f"{module.replace('.', '_')}.json"


def write_explanations(folder: Path, module: str, texts: Mapping[int, str]) -> Path:
    """Write one explanation a feature, ascending; equal explanations give equal bytes. Raises InterpError where nothing can be written."""
    return _write(folder, module, [{key_of(module, feature): texts[feature]} for feature in sorted(texts)])


def write_labels(folder: Path, module: str, texts: Mapping[int, str]) -> Path:
    """Write one label a feature. Otherwise as `write_explanations`."""
    return _write(folder, module, {key_of(module, feature): texts[feature] for feature in sorted(texts)})


def _write(folder: Path, module: str, data: Any) -> Path:
    file = file_of(folder, module)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(data, ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise InterpError(f"{file} cannot be written ({error.strerror}).") from error
    return file


def read_texts(folder: Path) -> dict[int, dict[int, str]]:
    """Explanations or labels of each layer by feature: all files of a folder together, of either format.

    Folders beside the files, such as the reference's images/ and masks/, are left alone. A feature with null, as the reference writes where the
    explaining model did not answer, has no text.

    Raises InterpError for a folder without such files, a file of another format, and two files that give a feature different texts.
    """
    files = sorted(path for path in folder.glob("*.json") if path.is_file()) if folder.is_dir() else []
    if not files:
        raise InterpError(f"There are no explanations or labels (.json) in the folder {folder}.")
    out: dict[int, dict[int, str]] = {}
    for file in files:
        for key, text in _pairs(file):
            if key == _PROMPT or text is None:
                continue
            found = _KEY.fullmatch(key)
            if not found or not isinstance(text, str):
                raise InterpError(
                    f"{file} has {shown(key)}: {shown(text)}; it must have entries such as 'model.layers.24_feature7': 'text'."
                )
            layer, feature = layer_of(found[1], str(file)), int(found[2])
            if out.setdefault(layer, {}).setdefault(feature, text) != text:
                raise InterpError(f"{file} gives {key} another text than before it in {folder}. Keep one of them.")
    return out


def _pairs(file: Path) -> Iterable[tuple[str, Any]]:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise InterpError(f"{file} has more than {_MOST_BYTES >> 20} MiB, so it holds no explanations or labels.")
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InterpError):
            raise
        raise InterpError(f"{file} cannot be read ({error.strerror if isinstance(error, OSError) else 'not JSON'}).") from error
    parts = data if isinstance(data, list) else [data]
    if not all(isinstance(part, dict) for part in parts):
        raise InterpError(f"{file} holds neither a list of explanations nor an object of labels.")
    return [pair for part in parts for pair in part.items()]
