"""Where SAEs come from: a preset, a release of sae-lens, a repository on the Hugging Face hub, or a folder.

Importing sae-lens takes seconds, so it happens inside the functions; run `import_sae_lens` in a background thread to get it done early.
Pickles are refused.
"""

import dataclasses
import importlib
import re
from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ..devices import pick_device
from ..errors import InterpError
from ..models.hub import fetch_files, reachable, repo_files
from ..presets import PRESETS, KnownSae
from ..tracing.trace import EMBED
from ..validation import LONGEST_PATH, one_of, shown, text, whole_number
from .formats import (
    SAE_LENS,
    SPARSIFY,
    converted,
    densities,
    hook_layer,
    import_sae_lens,
    kept_as,
    layer_read,
    loaders,
    read_folder,
    refuse,
    told,
)
from .labels.published import LMMS_LAB, explanation_labels
from .sae import Sae, SaeMetrics

_PICKLES = (".pt", ".pth", ".pkl", ".bin", ".ckpt")
# Loaders of sae-lens that unpickle what they download.
_PICKLED_RELEASES = {"connor_rob_hook_z", "deepseek_r1", "dictionary_learning_1", "goodfire", "qwen_scope"}
_EXPLAINED = {"lmms-lab/llama3-llava-next-8b-hf-sae-131k": LMMS_LAB}  # SAEs whose feature names are in a separate data set


def load_sae(
    source: str | PathLike[str], *, layer: int | None = None, device: str = "cpu", dtype: str = "auto", revision: str | None = None
) -> Sae:
    """Load a sparse autoencoder.

    `source`: the name of a preset ("emoji-llava": its first SAE, or that of `layer`) or of its SAE ("emoji-llava-sae"), a release and id of
    sae-lens ("gemma-2b-res-jb/blocks.12.hook_resid_post"), a hub repository with or without a folder in it ("owner/name/folder"), or a local
    folder; in the formats of sae-lens and of EleutherAI's sparsify. `layer` picks one of several, and is used for an
    SAE that does not state its own. `dtype`: "float32", "bfloat16", or "auto" (bfloat16 if both matrices together exceed 1 GiB in float32).
    `device` is where the weights are kept.

    Raises InterpError for a source that does not exist, pickles, SAEs that read something other than a residual stream or another layer than
    `layer`, activations other than ReLU, TopK, JumpReLU (which BatchTopK and Matryoshka are saved as) and gated, and damaged weights.
    """
    given = fspath(source) if isinstance(source, str | PathLike) else source
    if not isinstance(given, str) or not given.strip():
        raise InterpError(
            f"source is {shown(source)}; it must be a preset, a release of sae-lens with an id, a hub repository, or a folder."
        )
    text("source", given, LONGEST_PATH)
    dtype = one_of("dtype", dtype, ("auto", "float32", "bfloat16"))
    if layer is not None:
        layer = whole_number("layer", layer, EMBED)
    if revision is not None:
        text("revision", revision)
    given, place = given.strip(), str(pick_device(device))
    known = _known(given, layer)
    sae = _load(known.source if known else given, layer, place, dtype, revision)
    if layer is not None and sae.layer != layer:
        raise InterpError(f"{given!r} reads layer {sae.layer}; layer {layer} was asked for.")
    return dataclasses.replace(sae, name=known.name) if known else sae


def _known(source: str, layer: int | None) -> KnownSae | None:
    """The preset SAE of this name, or that of `layer` (else the first) of the preset of this name."""
    if preset := PRESETS.get(source):
        if not preset.saes:
            raise InterpError(f"No SAE is known for {source!r}. Name one: a release of sae-lens with an id, a hub repository, or a folder.")
        fitting = [sae for sae in preset.saes if layer in {None, sae.layer}]
        if not fitting:
            layers = ", ".join(str(sae.layer) for sae in preset.saes)
            raise InterpError(f"The SAEs of {source!r} read layer {layers}; layer {layer} was asked for.")
        return fitting[0]
    return next((sae for preset in PRESETS.values() for sae in preset.saes if source in {sae.name, sae.source}), None)


def _load(source: str, layer: int | None, device: str, dtype: str, revision: str | None) -> Sae:
    folder = Path(source)
    try:
        is_folder, is_file = folder.is_dir(), folder.is_file()
    except OSError:  # a name too long for a file
        is_folder = is_file = False
    if is_file:
        raise InterpError(f"{source!r} is a file; give the folder that holds cfg.json and the weights.")
    if is_folder:
        inner = _only_sae(folder, layer)
        return read_folder(folder / inner, f"{source.rstrip('/')}/{inner}" if inner else source, layer, device, dtype)
    if source.startswith((".", "/", "~")) or "\\" in source:
        raise InterpError(f"There is no folder {source!r}.")
    release, _, sae_id = source.partition("/")
    if release in (releases := _directory()):
        if revision is not None:
            raise InterpError(f"revision is {revision!r}, but {release!r} is a release of sae-lens; those have no revisions.")
        return _from_release(releases[release], sae_id, layer, device, dtype)
    if not sae_id:
        named = [sae.name for preset in PRESETS.values() for sae in preset.saes]
        raise InterpError(
            f"{source!r} is not a known SAE. Give a preset or its SAE ({', '.join(named)}), a release of sae-lens with an id such as "
            f"'gemma-2b-res-jb/blocks.12.hook_resid_post', a hub repository ('owner/name/folder'), or a folder."
        )
    return _from_hub(source, layer, device, dtype, revision)


def _directory() -> dict[str, Any]:
    """The releases that sae-lens knows, by name."""
    import_sae_lens()
    return importlib.import_module("sae_lens.loading.pretrained_saes_directory").get_pretrained_saes_directory()


def _from_release(release: Any, sae_id: str, layer: int | None, device: str, dtype: str) -> Sae:
    if release.conversion_func in _PICKLED_RELEASES:
        raise InterpError(f"{release.release!r} is published as pickles, which can run code when they are read; they are not opened here.")
    sae_id = sae_id or _choose(f"The release {release.release!r}", list(release.saes_map), layer)
    if sae_id not in release.saes_map:
        raise InterpError(f"The release {release.release!r} has no SAE {sae_id!r}; it has {_few(release.saes_map)}.")
    if release.conversion_func == "sparsify":
        return _from_hub(f"{release.repo_id}/{release.saes_map[sae_id]}", layer, device, dtype, None)
    name = f"{release.release}/{sae_id}"
    with told(f"The SAE {name!r} cannot be read"), reachable(release.repo_id):
        # The config first: an unsupported SAE is refused before gigabytes are downloaded.
        config = loaders().load_sae_config_from_huggingface(release.release, sae_id)
        at = layer_read(refuse(config, name, release.norm_scaling_factor.get(sae_id)), name, sae_id, layer)
        sae, _, logdensities = import_sae_lens().SAE.from_pretrained_with_cfg_and_sparsity(
            release.release, sae_id, device=device, dtype=kept_as(config, dtype)
        )
    # 1.0 and 0.0 are sae-lens' defaults for values missing from its table.
    variance, l0 = release.expected_var_explained.get(sae_id, 1.0), release.expected_l0.get(sae_id, 0.0)
    known = SaeMetrics(None if variance == 1.0 else variance, l0 or None)
    found = converted(sae, name, at, release.neuronpedia_id.get(sae_id))
    return dataclasses.replace(found, trained={"all": known} if known != SaeMetrics() else {}, density=densities(logdensities, found.d_sae))


def _from_hub(source: str, layer: int | None, device: str, dtype: str, revision: str | None) -> Sae:
    owner, name, *inner = source.rstrip("/").split("/")
    repo = f"{owner}/{name}"
    listed = repo_files(repo, revision)
    place = _place(source, listed.names, "/".join(inner), layer)
    prefix = f"{place}/" if place else ""
    wanted = [f"{prefix}{file}" for file in ("cfg.json", SAE_LENS, SPARSIFY, "sparsity.safetensors", "labels.json")]
    # sparsify keeps the model's name in config.json beside its folders.
    local = fetch_files(listed, [*wanted, f"{place.rpartition('/')[0]}/config.json".lstrip("/")])
    found = read_folder(local / place, f"{repo}/{place}".rstrip("/"), layer, device, dtype)
    if repo in _EXPLAINED and not found.labels.names:
        labels = explanation_labels(_EXPLAINED[repo], module=place.rpartition("/")[2], features=found.d_sae)
        found = dataclasses.replace(found, labels=labels)
    return found


def _only_sae(folder: Path, layer: int | None) -> str:
    """The place of the SAE in a folder: "" for the folder itself, or up to two levels below."""
    files = [file.relative_to(folder).as_posix() for depth in ("*", "*/*", "*/*/*") for file in folder.glob(depth) if file.is_file()]
    return _place(str(folder), files, "", layer)


def _place(source: str, files: Sequence[str], under: str, layer: int | None) -> str:
    """The folder that holds a config and weights, given the paths of all files."""
    held = set(files)
    places = [file.removesuffix("cfg.json").rstrip("/") for file in files if file.rpartition("/")[2] == "cfg.json" and ".." not in file]
    whole = [place for place in places if any(f"{place}/{weights}".lstrip("/") in held for weights in (SAE_LENS, SPARSIFY))]
    found = sorted(place for place in whole if not under or place == under or place.startswith(f"{under}/"))
    if found:
        return under if under in found else _choose(f"{source!r}", found, layer)
    if pickles := [file for file in files if file.endswith(_PICKLES) and file.startswith(under)]:
        raise InterpError(
            f"{source!r} holds only pickles ({pickles[0]}), which can run code when they are read. Ask its author for safetensors."
        )
    raise InterpError(f"{source!r} holds no SAE: neither cfg.json with {SAE_LENS} (sae-lens) nor cfg.json with {SPARSIFY} (sparsify).")


def _choose(what: str, places: list[str], layer: int | None) -> str:
    """The only place, or the only one for `layer`."""
    fitting = places if len(places) == 1 or layer is None else [place for place in places if _layer_in(place) == layer]
    if len(fitting) == 1:
        return fitting[0]
    if layer is None or not fitting:
        raise InterpError(f"{what} holds {len(places)} SAEs ({_few(places)}). Add one of these names after a /, or give the layer.")
    raise InterpError(f"{what} holds {len(fitting)} SAEs of layer {layer} ({_few(fitting)}). Add one of these names after a /.")


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (", …" if len(listed) > 8 else "")


def _layer_in(place: str) -> int | None:
    """The layer in a folder name or id such as "resid_post/layer_17_width_16k", "layer_12/canonical" or "l5r_8x"."""
    for part in reversed(place.split("/")):
        if (layer := hook_layer(part)) is not None:
            return layer
        if match := re.fullmatch(r"layer_?(\d+)(?:_.*)?|l(\d+)r_.*", part):
            return int(match[1] or match[2])
    return None
