"""Scores of every feature at every position in a file, in the format of multimodal-sae.

One tensor [features, positions], named by the module ("model.layers.24"): row f is feature f, and the columns are the positions of the sequence
that the word could depend on, without BOS. That project's own files of several prompts mix the prompts in the rows, although its readers take
row f for feature f; such a file is refused.
"""

import json
from dataclasses import dataclass
from os import PathLike

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import InterpError
from ..saes.sae import Sae
from ..validation import file_path, instance
from .attribute import Attribution
from .filters import layer_of, module_name
from .margin import Margin, Norms
from .scores import Scores

SIGN = "effect of presence: m(clean) - m(without), positive if the feature raised the word"


@dataclass(frozen=True, eq=False)
class ScoreFile:
    """What `read_scores` found."""

    layer: int
    scores: torch.Tensor
    """float32 [features, positions]"""
    about: dict[str, str]
    """"sign", "method", "word" and "baseline" in files written here; empty in others."""
    tokens: tuple[str, ...] | None
    """The text at each position, in files written here."""


def write_scores(attribution: Attribution, path: str | PathLike[str]) -> None:
    """Write the scores of all features, active or not, at all positions up to the row of the word, BOS left out: [features, positions] float32.

    The metadata say what the sign means, how the scores were made, and which tokens the columns are. Raises InterpError for an SAE of the
    embed layer, and where nothing can be written.
    """
    instance("attribution", attribution, Attribution, "what interp.attribute(...) returns")
    write_all(attribution.scores, attribution.margin, attribution.norms, path)


def write_all(scores: Scores, margin: Margin, norms: Norms, path: str | PathLike[str]) -> None:
    """As `write_scores`, for scores without exact effects beside them."""
    file, sae = file_path("path", path), scores.encoding.sae
    module, trace = module_name(sae), scores.encoding.trace
    end = margin.row + 1
    begin = int(trace.tokens[0].id == trace.vlm.tokenizer.bos_token_id)
    dense = torch.zeros(sae.d_sae, end - begin)
    here = scores.positions >= begin
    dense[scores.features[here], scores.positions[here] - begin] = scores.values[here]
    about = {
        "sign": SIGN,
        "method": f"activation * <gradient of m, decoder direction>, scale of norms {norms} in the backward pass",
        "word": trace.tokens[margin.token].text,
        "baseline": margin.baseline,
        "tokens": json.dumps([token.text for token in trace.tokens[begin:end]]),
    }
    try:
        save_file({module: dense}, file, metadata=about)
    except (SafetensorError, OSError) as error:
        raise InterpError(f"path is {str(file)!r}, where nothing can be written ({error}). Name a file that you may write.") from error


def read_scores(path: str | PathLike[str], sae: Sae) -> ScoreFile:
    """Read the scores of the features of `sae` from a file of this package or of multimodal-sae.

    Raises InterpError for a missing or damaged file, for scores of another SAE, and for those of several prompts in one tensor.
    """
    file = file_path("path", path)
    instance("sae", sae, Sae, "an SAE, as interp.load_sae(...) returns")
    try:
        with safe_open(file, framework="pt") as saved:
            modules, about = [*saved.keys()], dict(saved.metadata() or {})
            if len(modules) != 1:
                raise InterpError(f"The file at path {file} holds {len(modules)} tensors; scores are one, named by its module.")
            layer = layer_of(modules[0], str(file))
            _check_shape(saved.get_slice(modules[0]).get_shape(), sae, layer, str(file))
            scores = saved.get_tensor(modules[0])
    except (SafetensorError, OSError) as error:
        raise InterpError(f"The scores at path {file} cannot be read ({error}).") from error
    if not scores.is_floating_point() or not scores.isfinite().all():
        raise InterpError(f"The scores at path {file} are {scores.dtype} or not all finite; they must be finite numbers.")
    tokens = _tokens(about.pop("tokens", None), scores.shape[1], str(file))
    return ScoreFile(layer, scores.float(), about, tokens)


def _check_shape(shape: list[int], sae: Sae, layer: int, file: str) -> None:
    if len(shape) != 2:
        raise InterpError(f"The tensor at path {file} has {len(shape)} dimensions; scores are [features, positions].")
    rows, many = shape[0], shape[0] // sae.d_sae
    if many > 1 and rows == many * sae.d_sae:
        raise InterpError(
            f"The file at path {file} has {rows} rows, {many} for each of the {sae.d_sae} features of {sae.name}: multimodal-sae wrote {many} "
            "prompts into it, mixed row by row, and reads them as features. Make one file for each prompt."
        )
    if rows != sae.d_sae or layer != sae.layer:
        raise InterpError(
            f"The file at path {file} scores {rows} features of layer {layer}; {sae.name} has {sae.d_sae}, of layer {sae.layer}. "
            "Name the SAE that the scores were made with."
        )


def _tokens(written: str | None, columns: int, file: str) -> tuple[str, ...] | None:
    if written is None:
        return None
    try:
        tokens = json.loads(written)
    except (ValueError, RecursionError):
        tokens = None
    if not isinstance(tokens, list) or len(tokens) != columns or not all(isinstance(token, str) for token in tokens):
        raise InterpError(f"The file at path {file} is damaged: its tokens are not one text for each of its {columns} positions.")
    return tuple(tokens)
