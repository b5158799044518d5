"""The client of the Hugging Face hub: lists what repositories contain and downloads what is needed into the hub's cache.

Whatever cannot work is refused before anything large is downloaded.
"""

import contextlib
import functools
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not marked so
from tqdm import tqdm

from ..errors import InterpError
from .gguf import decoder_file
from .hub_errors import FAILURES, MOVE_CACHE, NETWORK, may_pass, translated, unreachable

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_SETTINGS = (".json", ".jinja", ".txt", ".model", ".tiktoken")  # of model, processor, tokenizer and chat template
_PATIENCE = 10.0  # seconds to wait for a listing of a repository
_EVERY = 0.3  # seconds between two progress messages
_ONE_SWITCH = threading.Lock()


@dataclass(frozen=True)
class Offer:
    """One commit of a checkpoint: the files needed, and how much of them is still to be downloaded."""

    repo: str
    commit: str
    folder: Path
    """Where its files are, or will be; config.json is there already."""
    files: tuple[str, ...]
    total: int
    """Bytes of `files`."""
    missing: int
    """Bytes of `files` that are not in the cache."""


@dataclass(frozen=True)
class RepoFiles:
    """The files of a repository."""

    repo: str
    revision: str | None
    names: tuple[str, ...]
    """Paths within the repository."""
    cached: bool
    """Whether these are only the files in the cache, because the hub cannot be reached."""


def ask(repo: str, revision: str | None = None) -> Offer:
    """What must be downloaded for this checkpoint; fetches config.json and the weight index on the way.

    Offline, a checkpoint that is complete in the cache is used. Raises InterpError for a repository or revision that does not exist,
    is private or gated, or holds no safetensors; for too little disk space; and for a hub that cannot be reached.
    """
    with translated(repo, revision):
        validate_repo_id(repo)
        try:
            info = HfApi().model_info(repo, revision=revision, timeout=_PATIENCE)
            commit = HfApi().resolve_revision(repo, revision=revision)  # records it in the cache, for use offline
        except (OSError, httpx.HTTPError) as error:
            if not may_pass(error):
                raise
            return _cached_offer(repo, revision, error)
        names = {file.rfilename for file in info.siblings or []}
        if "config.json" not in names:
            raise InterpError(f"{repo!r} holds no model: it has no config.json. {elsewhere(repo, names)}")
        folder = Path(hf_hub_download(repo, "config.json", revision=commit)).parent
        if WEIGHTS not in names and INDEX in names:
            hf_hub_download(repo, INDEX, revision=commit)
        files = (*sorted(filter(_is_setting, names)), *weight_files(f"{repo!r} cannot be loaded", folder, names))
        plan = snapshot_download(repo, revision=commit, allow_patterns=list(files), dry_run=True, tqdm_class=_bar(None))
    sizes = {file.filename: file.file_size or 0 for file in plan}
    missing = sum(sizes[file.filename] for file in plan if file.will_download)
    offer = Offer(repo, commit.resolved, folder, files, sum(sizes.values()), missing)
    _check_disk(offer)
    return offer


def download(offer: Offer, on_progress: Callable[[str], None] | None = None) -> None:
    """Download what is missing into the hub's cache. `on_progress` gets a line about it, a few times a second at most.

    Complete files are not fetched again. A broken connection is resumed where it broke; after a restart of the process, the file in
    progress starts again. Raises InterpError if the download fails.
    """
    if not offer.missing:
        return
    done = offer.total - offer.missing

    def show(fetched: int) -> None:
        assert on_progress is not None
        on_progress(f"Downloading {offer.repo}: {_of(min(done + fetched, offer.total), offer.total)}")

    with translated(offer.repo, offer.commit, "Complete files are kept: load it again to resume."):
        bars = {"tqdm_class": _bar(show)} if on_progress else {}  # else the library's own, on the console
        snapshot_download(offer.repo, revision=offer.commit, allow_patterns=list(offer.files), **bars)


def repo_files(repo: str, revision: str | None = None) -> RepoFiles:
    """The files of a repository; offline, those in the cache. Raises InterpError as `ask` does."""
    with translated(repo, revision):
        validate_repo_id(repo)
        try:
            info = HfApi().model_info(repo, revision=revision, timeout=_PATIENCE)
        except (OSError, httpx.HTTPError) as error:
            if not may_pass(error):
                raise
            folder = _cached_folder(repo, revision, error)
            return RepoFiles(
                repo, revision, tuple(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()), cached=True
            )
    return RepoFiles(repo, revision, tuple(file.rfilename for file in info.siblings or []), cached=False)


def fetch_files(listed: RepoFiles, names: Collection[str]) -> Path:
    """Download those of `names` that a repository has. Returns its folder in the cache. Raises InterpError as `download` does."""
    with translated(listed.repo, listed.revision, "Complete files are kept: load it again to resume."):
        return Path(snapshot_download(listed.repo, revision=listed.revision, allow_patterns=list(names), local_files_only=listed.cached))


def make_repo(repo: str, *, private: bool) -> None:
    """Make a repository to publish a model in, unless there is one. Raises InterpError for a name, a token or a network that will not do."""
    with translated(repo, None, "Try again later."):
        validate_repo_id(repo)
        HfApi(endpoint=constants.ENDPOINT).create_repo(repo, private=private or None, exist_ok=True)  # None: as its owner has set


def publish(repo: str, folder: Path, message: str) -> str:
    """Upload all files of a folder into a repository. Returns the address of the commit. Raises InterpError as `make_repo` does."""
    with translated(repo, None, "Try again later."):
        return str(HfApi(endpoint=constants.ENDPOINT).upload_folder(repo_id=repo, folder_path=folder, commit_message=message).commit_url)


@contextlib.contextmanager
def reachable(repo: str) -> Iterator[None]:
    """For a library that downloads from `repo` itself: raises InterpError if it cannot, and skips its retries when offline.

    Unless HF_HUB_OFFLINE is set, huggingface_hub retries each file for 25 seconds before it looks in its cache.
    """
    with translated(repo, None, failures=NETWORK):
        if not repo_files(repo).cached or constants.HF_HUB_OFFLINE:
            yield
            return
        with _ONE_SWITCH:
            constants.HF_HUB_OFFLINE = True
            try:
                yield
            finally:
                constants.HF_HUB_OFFLINE = False


def is_folder(source: str) -> bool:
    """Whether it is the path of a folder."""
    try:
        return Path(source).is_dir()
    except OSError:  # a name too long for a file
        return False


def is_repo(source: str) -> bool:
    """Whether it looks like the id of a repository."""
    return source.count("/") == 1 and not source.startswith((".", "/", "~"))


class Dataset:
    """The files of a data set. Its methods raise the errors of the hub's file system; see `hub_errors.in_short`."""

    def __init__(self, repo: str, revision: str) -> None:
        self._root = f"datasets/{repo}@{revision}"

    def files(self) -> dict[str, int]:
        """Path for `open` → size in bytes."""
        return {path: info["size"] for path, info in self._system.find(self._root, detail=True).items()}

    def open(self, path: str) -> Any:
        """A binary file. Only the bytes that are read are downloaded, without read-ahead."""
        return self._system.open(path, "rb", cache_type="none")

    @functools.cached_property
    def _system(self) -> Any:
        from huggingface_hub import HfFileSystem  # noqa: PLC0415 - costs most of a second, and only data sets need it

        return HfFileSystem(endpoint=constants.ENDPOINT, skip_instance_cache=True)  # a cached one would keep an old listing


def weight_files(cannot: str, folder: Path, names: Collection[str]) -> list[str]:
    """The weight files of a checkpoint among `names`; its config.json, and the index if there are several, are in `folder`.

    Safetensors, and a GGUF file if the config names one for the decoder. Raises InterpError, with a message that begins with `cannot`, if
    any is missing.
    """
    decoder = decoder_file(cannot, folder)
    if decoder and decoder not in names:
        raise InterpError(f"{cannot}: its weights are incomplete, {decoder!r} is missing.")
    return [*_safetensors(cannot, folder, names), *([decoder] if decoder else [])]


def _safetensors(cannot: str, folder: Path, names: Collection[str]) -> list[str]:
    if WEIGHTS in names:
        return [WEIGHTS]
    if INDEX in names:
        shards = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        if absent := [shard for shard in shards if shard not in names]:
            raise InterpError(f"{cannot}: its weights are incomplete, {absent[0]!r} is missing.")
        return shards
    if pickles := sorted(name for name in names if name.endswith(_PICKLES)):
        raise InterpError(
            f"{cannot}: its weights are only pickles ({pickles[0]}), which can run code when they are read. "
            f"Use a revision or a copy with safetensors."
        )
    raise InterpError(f"{cannot}: it has no weights, neither {WEIGHTS} nor {INDEX}.")


def elsewhere(source: str, names: Collection[str]) -> str:
    """What to do about a folder or repository without a model, in which there are these files."""
    if "adapter_config.json" in names:
        return f"It holds an adapter: load its base with adapter={source!r}."
    return "Choose another one."


def _is_setting(name: str) -> bool:
    return name.endswith(_SETTINGS) and ("/" not in name or name.startswith("additional_chat_templates/"))


def _cached_folder(repo: str, revision: str | None, error: Exception) -> Path:
    """The folder of the files in the cache."""
    with contextlib.suppress(*FAILURES):
        return Path(snapshot_download(repo, revision=revision, allow_patterns=[], local_files_only=True))
    raise InterpError(
        f"{repo!r} is not in the cache, and {unreachable(error)}. Connect to the internet, or give the folder of a copy."
    ) from error


def _cached_offer(repo: str, revision: str | None, error: Exception) -> Offer:
    """The checkpoint in the cache, if it is complete."""
    folder = _cached_folder(repo, revision, error)
    names = {file.name for file in folder.iterdir() if file.exists()}  # a link whose file was deleted does not exist
    try:
        files = weight_files(f"{repo!r} cannot be loaded", folder, names)
    except InterpError as unfinished:
        raise InterpError(
            f"{repo!r} was only partly downloaded, and {unreachable(error)}. Connect to the internet to go on."
        ) from unfinished
    size = sum((folder / file).stat().st_size for file in files)
    return Offer(repo, folder.name, folder, tuple(files), size, 0)


def _check_disk(offer: Offer) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
    if offer.missing > free:
        raise InterpError(
            f"{offer.repo!r} needs {_size(offer.missing)} more disk space, and {_size(free)} are free in {cache}. Free some space, or {MOVE_CACHE}."
        )


def _bar(show: Callable[[int], None] | None) -> Any:
    """A progress bar class that draws nothing and passes the bytes fetched so far to `show`.

    The library makes one bar for bytes received, one for bytes written, and one that counts files.
    """
    lock, fetched, last = threading.Lock(), [0], [0.0]

    class Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
        def __init__(self, *args: Any, unit: str = "it", **kwargs: Any) -> None:
            super().__init__(*args, **{key: value for key, value in kwargs.items() if key != "disable"}, disable=True)
            self._bytes = unit == "B"

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if show and self._bytes:
                with lock:
                    fetched[0] = max(fetched[0], int(self.n))
                    due = time.monotonic() - last[0] >= _EVERY
                    last[0] = time.monotonic() if due else last[0]
                if due:
                    show(fetched[0])

    return Bar


def _of(part: int, whole: int) -> str:
    """For example "3.2 of 14.1 GB"."""
    unit, name = (1e9, "GB") if whole >= 1e9 else (1e6, "MB")
    return f"{part / unit:.1f} of {whole / unit:.1f} {name}"


def _size(size: int) -> str:
    return re.sub(r"^.* of ", "", _of(0, size))
