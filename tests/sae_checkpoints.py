"""Tiny SAEs in the formats that are found in the wild, and a server that speaks as much of the Hugging Face Hub as it takes to fetch them."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import torch
from safetensors.torch import load_file, save_file

from interp.saes.loading import import_sae_lens
from tests.server import serve_http

D_IN, D_SAE = 12, 700
HOOK = "blocks.3.hook_resid_post"


def build(
    kind: str, d_in: int = D_IN, d_sae: int = D_SAE, *, hook: str | None = HOOK, seed: int = 0, metadata: dict | None = None, **options: Any
):
    """An SAE of sae-lens for inference, with random weights and biases that all matter."""
    import_sae_lens()
    from sae_lens.registry import get_sae_class

    sae_class, config_class = get_sae_class(kind)
    config = config_class(d_in=d_in, d_sae=d_sae, **({"k": 9} if kind == "topk" else {}), **options)
    config.metadata.hook_name = hook
    config.metadata.model_name = "some-model"
    for key, value in (metadata or {}).items():
        config.metadata[key] = value
    sae = sae_class(config)
    randomise(sae, seed)
    return sae


def randomise(sae: torch.nn.Module, seed: int = 0) -> None:
    """Random weights, with decoder rows of different norms, and thresholds around 1."""
    random = torch.Generator().manual_seed(seed)
    for name, value in sae.named_parameters():
        noise = torch.randn(value.shape, generator=random, dtype=torch.float32)
        value.data = (noise.abs() + 0.5 if name == "threshold" else 0.5 * noise).to(value)


def states(tokens: int = 20, d_in: int = D_IN, seed: int = 1) -> torch.Tensor:
    """Rows of a residual stream whose mean is not 0."""
    return 2 * torch.randn(tokens, d_in, generator=torch.Generator().manual_seed(seed)) + 0.7


def edit_config(folder: Path, *drop: str, **changes: Any) -> Path:
    """Change keys of a saved cfg.json."""
    config = json.loads((folder / "cfg.json").read_text())
    config = {key: value for key, value in (config | changes).items() if key not in drop}
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def edit_weights(folder: Path, *drop: str, file: str = "sae_weights.safetensors", **changes: torch.Tensor) -> Path:
    """Change tensors of saved weights."""
    tensors = {key: value for key, value in (load_file(folder / file) | changes).items() if key not in drop}
    save_file(tensors, folder / file)
    return folder


def sparsify(folder: Path, d_in: int = D_IN, latents: int = 96, k: int = 7, *, seed: int = 5, drop: tuple[str, ...] = (), **config: Any):
    """Write a sparsify checkpoint, as its own trainer does; returns its tensors."""
    random = torch.Generator().manual_seed(seed)
    shapes = {"encoder.weight": (latents, d_in), "encoder.bias": (latents,), "W_dec": (latents, d_in), "b_dec": (d_in,)}
    tensors = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    said = {
        "expansion_factor": latents // d_in,
        "normalize_decoder": True,
        "num_latents": latents,
        "k": k,
        "multi_topk": False,
        "d_in": d_in,
    }
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps({key: value for key, value in (said | config).items() if key not in drop}))
    (folder.parent / "config.json").write_text(json.dumps({"model": "some/vlm", "ctx_len": 2048}))
    save_file(tensors, folder / "sae.safetensors")
    return tensors


def sparsify_answer(tensors: dict[str, torch.Tensor], x: torch.Tensor, k: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """(z, x_hat) from the tensors of a sparsify checkpoint, by the definition of its SAE."""
    pre = torch.relu((x - tensors["b_dec"]) @ tensors["encoder.weight"].T + tensors["encoder.bias"])
    z = torch.zeros_like(pre)
    for row, values in enumerate(pre):
        best = values.argsort(descending=True)[:k]
        z[row, best] = values[best]
    return z, z @ tensors["W_dec"] + tensors["b_dec"]


def dense(acts: Any, features: int) -> torch.Tensor:
    """SparseActs as a matrix [T, features]."""
    out = torch.zeros(len(acts.offsets) - 1, features)
    out[acts.tokens, acts.features.long()] = acts.values
    return out


class Hub:
    """Repositories of models, each a folder below `root`; every file is served as it stands."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []

    def repo(self, name: str) -> Path:
        """The folder that is served as one repository."""
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) for a path of the Hub's API."""
        self.asked.append(path)
        parts = unquote(urlsplit(path).path).strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if api else parts
        repo = self.root / owner / name
        commit = {"X-Repo-Commit": hashlib.sha1(name.encode()).hexdigest()}  # noqa: S324 - 40 digits are all it is for
        if not repo.is_dir():
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if len(rest) > 1 and rest[1] not in {"main", commit["X-Repo-Commit"]}:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        files = sorted(file for file in repo.rglob("*") if file.is_file())
        if api and rest[:1] == ["tree"]:
            tree = [
                {"type": "file", "path": file.relative_to(repo).as_posix(), "size": file.stat().st_size, "oid": _etag(file)}
                for file in files
            ]
            return 200, {}, json.dumps(tree).encode()
        if api:
            names = [{"rfilename": file.relative_to(repo).as_posix()} for file in files]
            info = {
                "id": f"{owner}/{name}",
                "sha": commit["X-Repo-Commit"],
                "siblings": names,
                "private": False,
                "downloads": 0,
                "tags": [],
            }
            return 200, {}, json.dumps(info).encode()
        file = repo / "/".join(rest[2:])
        if not file.is_file():
            return 404, commit | {"X-Error-Code": "EntryNotFound"}, b""
        return 200, commit | {"ETag": f'"{_etag(file)}"'}, file.read_bytes()


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()  # noqa: S324


@contextlib.contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """The address of a running hub."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: Any) -> None:
            pass

    with serve_http(Handler) as url:
        yield url


def point_at(monkeypatch: Any, url: str, cache: Path, *, offline: bool = False) -> None:
    """Make huggingface_hub talk to `url` and keep what it fetches in `cache`."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    huggingface_hub.utils.close_session()


def copy(folder: Path, target: Path) -> Path:
    """A copy of a saved SAE that a test may spoil."""
    return Path(shutil.copytree(folder, target))
