"""A study: a folder for one model, one SAE and one set of pictures, and what its verbs have found there.

study.json says what the study is of, with fingerprints, so that a folder is never continued with another model or other pictures. Each verb keeps its
results in a folder of its own beside it.
"""

import functools
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..attribution.filters import read_filters
from ..errors import InterpError
from ..files import write_whole
from ..models.identity import fingerprint, fits, mismatch
from ..models.loading import load
from ..models.vlm import Vlm
from ..saes.loading import load_sae
from ..saes.sae import Sae
from ..validation import shown
from . import work
from .data import Data, Source, open_data

SCHEMA = "llava-microscope/study/1"
MANIFEST = "study.json"
_SETTINGS = "settings.json"
_VERSIONS = ("torch", "transformers", "sae-lens", "accelerate")


@dataclass(frozen=True)
class Plan:
    """What a study is of, as asked for."""

    model: str
    """A preset, a hub id or a folder; "BASE + ADAPTER" for a fine-tune."""
    data: str
    """A folder of pictures, or a data set on the hub."""
    sae: str = ""
    """As `interp.load_sae` takes it; "" for none yet."""
    layer: int | None = None
    """Picks one of several SAEs."""
    quantize: str = "auto"
    split: str = ""
    prompt: str = "Describe the image."
    limit: int | None = None

    @property
    def source(self) -> Source:
        """Where its samples come from."""
        return Source(self.data, self.split, self.prompt, self.limit)


@dataclass(frozen=True)
class Study:
    """A folder and what study.json says of it."""

    folder: Path
    plan: Plan
    found: Mapping[str, Any]
    """Fingerprints and versions: "model", "sae" (None until there is one), "data", "versions"."""

    @classmethod
    def open(cls, folder: Path) -> "Study":
        """A study that was begun. Raises InterpError if there is none, or study.json is damaged."""
        file = folder / MANIFEST
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            if held["schema"] != SCHEMA:
                raise InterpError(f"{file} holds {shown(held['schema'])}, and this version reads {SCHEMA!r}.")
            found = {name: held[name] for name in ("model", "sae", "data", "versions")}
            if not fits(found["model"]["weights"]):
                raise ValueError("the values of its model's weights are damaged")  # noqa: TRY301 - reported like any other damage
            return cls(folder, Plan(**held["plan"]), found)
        except FileNotFoundError as error:
            raise InterpError(
                f"{folder} holds no study yet: there is no {MANIFEST} in it. Say what to study: --model, --data and, but for train-sae, --sae."
            ) from error
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise InterpError(f"{file} is damaged ({error}). Restore it, or begin a new study in another folder.") from error

    @classmethod
    def begin(cls, folder: Path, plan: Plan) -> "Study":
        """Begin a study: loads the model and the SAE, and writes study.json. Raises InterpError for what cannot be loaded."""
        if folder.is_dir() and any(folder.iterdir()):
            raise InterpError(f"{folder} is not empty and holds no study. Name another folder.")
        data, revision = open_data(plan.source)
        vlm = _load(plan)
        about = {
            "model": {
                "name": vlm.name,
                "checkpoint": vlm.model.config.name_or_path or "",
                "revision": getattr(vlm.model.config, "_commit_hash", None) or "",
                "weights": fingerprint(vlm),
            },
            "sae": about_sae(_load_sae(plan)) if plan.sae else None,
            "data": {"count": data.count, "revision": revision, "fingerprint": data.fingerprint},
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}},
        }
        study = cls(folder, plan, about)
        work.once(study._write)
        return study

    def with_sae(self, sae: str, layer: int | None) -> "Study":
        """The same study, which had no SAE, with one."""
        plan = Plan(**{**asdict(self.plan), "sae": sae, "layer": layer})
        study = Study(self.folder, plan, {**self.found, "sae": about_sae(_load_sae(plan))})
        work.once(study._write)
        return study

    def _write(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            held = {"schema": SCHEMA, "plan": asdict(self.plan), **self.found}
            write_whole(self.folder / MANIFEST, json.dumps(held, ensure_ascii=False, indent=1) + "\n")
        except OSError as error:
            raise InterpError(f"Nothing can be written in {self.folder} ({error.strerror}). Name a folder that you may write.") from error

    @functools.cached_property
    def vlm(self) -> Vlm:
        """This process's own copy of the model. Raises InterpError if its weights are others than when the study was begun."""
        vlm = _load(self.plan)
        if other := mismatch(self.found["model"]["weights"], vlm):
            raise InterpError(f"The study in {self.folder} was begun with other weights of {self.plan.model} ({other} differs).")
        return vlm

    @functools.cached_property
    def sae(self) -> Sae:
        """This process's own copy of the SAE. Raises InterpError if there is none, or another than when the study was begun."""
        if not self.plan.sae:
            raise InterpError(f"The study in {self.folder} has no SAE yet. Name one: --sae, or train one: train-sae.")
        sae = _load_sae(self.plan)
        if about_sae(sae) != self.found["sae"]:
            raise InterpError(f"The study in {self.folder} was begun with another SAE than what {self.plan.sae} holds now.")
        return sae

    @functools.cached_property
    def data(self) -> Data:
        """Its samples. Raises InterpError if they are others than when the study was begun."""
        data, _ = open_data(self.plan.source, self.found["data"]["revision"])
        if data.fingerprint != self.found["data"]["fingerprint"]:
            raise InterpError(
                f"The files in {self.plan.data} are others than when the study in {self.folder} was begun. Restore them, or begin a new study."
            )
        return data

    @property
    def module(self) -> str:
        """The layer that the SAE reads, as multimodal-sae names it."""
        return f"model.layers.{self.found['sae']['layer']}" if self.found["sae"] else ""

    def stage(self, name: str, settings: Mapping[str, Any]) -> Path:
        """The folder of a verb's results, made if need be. Raises InterpError if it holds results of other settings."""
        folder, plain = self.folder / name, json.loads(json.dumps(settings))

        def settle() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / _SETTINGS
            if not file.exists():
                write_whole(file, json.dumps(plain, indent=1) + "\n")
            held = json.loads(file.read_text(encoding="utf-8"))
            if other := [key for key in sorted({*held, *plain}) if held.get(key) != plain.get(key)]:
                key = other[0]
                raise InterpError(
                    f"{folder} holds results with {key} = {shown(held.get(key))}, and {shown(plain.get(key))} was asked for. "
                    f"Ask for the same, or move that folder away."
                )

        try:
            work.once(settle)
        except InterpError:
            raise
        except (OSError, ValueError) as error:
            raise InterpError(f"The folder {folder} cannot be used ({error}).") from error
        return folder

    def settings(self, name: str) -> dict[str, Any]:
        """What a verb's results were made with. Raises InterpError if there are none."""
        try:
            held: dict[str, Any] = json.loads((self.folder / name / _SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InterpError(
                f"The study in {self.folder} has no results of {name}. Run: python -m interp.study {name} {self.folder}"
            ) from error
        return held

    def chosen(self, filters: Path | None) -> list[int] | None:
        """The features that a filters.json lists for the SAE's layer, ascending; None without one. Raises InterpError if it lists none that exist."""
        if filters is None:
            return None
        if not self.found["sae"]:
            raise InterpError(
                f"The study in {self.folder} has no SAE yet, whose features {filters} could list. Name one: --sae, or train one: train-sae."
            )
        layer, count = self.found["sae"]["layer"], self.found["sae"]["features"]
        listed = read_filters(filters)
        chosen = sorted(set(listed.get(layer, [])))
        if not chosen:
            raise InterpError(
                f"{filters} lists no feature of layer {layer}, which the SAE reads, but of {', '.join(map(str, listed)) or 'no layer'}."
            )
        if chosen[-1] >= count:
            raise InterpError(f"{filters} lists the feature {chosen[-1]}; the SAE has {count}, counted from 0.")
        return chosen


def _load(plan: Plan) -> Vlm:
    return load(plan.model, quantize=plan.quantize, device=work.device())  # type: ignore[arg-type] # checked by load


def _load_sae(plan: Plan) -> Sae:
    return load_sae(plan.sae, layer=plan.layer, device=work.device())


def about_sae(sae: Sae) -> dict[str, Any]:
    """What an SAE is recognised by: "weights" is a digest of about four thousand of them, the same under whatever name it was loaded."""
    digest = hashlib.sha256()
    for weights in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec):
        flat = weights.reshape(-1)
        digest.update(flat[:: max(1, len(flat) // 1024)].float().cpu().numpy().tobytes())
    return {"name": sae.name, "layer": sae.layer, "features": sae.d_sae, "width": sae.d_in, "weights": digest.hexdigest()}
