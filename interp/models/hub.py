"""Checkpoints on the Hugging Face hub: asked about first, then downloaded into the hub's cache, where finished files stay.

Knows files and their sizes; knows nothing of models. Errors name what cannot work before anything large is downloaded.
"""

import contextlib
import errno
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_token, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx, validate_repo_id  # httpx: whichever one this version of it is built on
from tqdm import tqdm

from ..errors import InterpError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_SETTINGS = (".json", ".jinja", ".txt", ".model", ".tiktoken")  # of model, processor, tokenizer and chat template
_PATIENCE = 10.0  # seconds for the hub to say what a repository holds
_EVERY = 0.3  # seconds between two words about a download
_FAILURES = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, httpx.HTTPError)
_MOVE = "set the environment variable HF_HUB_CACHE to a folder elsewhere"


@dataclass(frozen=True)
class Offer:
    """One commit of a repository: what of it is needed, and how much of that still has to be downloaded."""

    repo: str
    commit: str
    folder: Path
    """Where its files lie, or will; config.json does already."""
    files: tuple[str, ...]
    total: int
    """Bytes of `files`."""
    missing: int
    """Bytes of those that are not in the cache."""


def ask(repo: str, revision: str | None = None) -> Offer:
    """What has to be downloaded for this checkpoint; config.json and the index of the weights are fetched on the way.

    Where the hub cannot be reached and everything was downloaded before, that is taken. Raises InterpError for a repository or revision that
    does not exist, is private or gated, or holds no safetensors; for a disk too small; and where the hub cannot be reached.
    """
    with _told(repo, revision):
        validate_repo_id(repo)
        try:
            info = HfApi().model_info(repo, revision=revision, timeout=_PATIENCE)
            commit = HfApi().resolve_revision(repo, revision=revision)  # has the cache remember it, for a day without the hub
        except (OSError, httpx.HTTPError) as error:
            if isinstance(error, HfHubHTTPError) and not _may_pass(error):
                raise
            return _kept(repo, revision, error)
        names = {file.rfilename for file in info.siblings or []}
        if "config.json" not in names:
            raise InterpError(f"{repo!r} holds no checkpoint of a model: there is no config.json. Choose another repository.")
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

    Files that are complete are not fetched again. A connection that breaks is taken up again where it broke; after an end of the process
    the file that was under way begins anew. Raises InterpError for what ends it.
    """
    if not offer.missing:
        return
    done = offer.total - offer.missing

    def show(fetched: int) -> None:
        assert on_progress is not None
        on_progress(f"Downloading {offer.repo}: {_of(min(done + fetched, offer.total), offer.total)}")

    with _told(offer.repo, offer.commit, "What has arrived whole is kept: load it again to go on."):
        bars = {"tqdm_class": _bar(show)} if on_progress else {}  # else those of the library, on the console
        snapshot_download(offer.repo, revision=offer.commit, allow_patterns=list(offer.files), **bars)


def weight_files(cannot: str, folder: Path, names: Collection[str]) -> list[str]:
    """The files that hold a checkpoint's weights, of all its `names`. The index of several files lies in `folder`.

    Raises InterpError where there are no safetensors, or not all of them; `cannot` begins its message.
    """
    if WEIGHTS in names:
        return [WEIGHTS]
    if INDEX in names:
        shards = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        if absent := [shard for shard in shards if shard not in names]:
            raise InterpError(f"{cannot}: its weights are not complete, {absent[0]!r} is missing.")
        return shards
    if pickles := sorted(name for name in names if name.endswith(_PICKLES)):
        raise InterpError(
            f"{cannot}: its weights are pickles only ({pickles[0]}), which can run code when they are read. "
            f"Use a revision or a copy with safetensors."
        )
    raise InterpError(f"{cannot}: there are no weights, neither {WEIGHTS} nor {INDEX}.")


def _is_setting(name: str) -> bool:
    return name.endswith(_SETTINGS) and ("/" not in name or name.startswith("additional_chat_templates/"))


def _kept(repo: str, revision: str | None, error: Exception) -> Offer:
    """What was downloaded before, if it is complete."""
    config = try_to_load_from_cache(repo, "config.json", revision=revision)
    why = "HF_HUB_OFFLINE is set" if isinstance(error, OfflineModeIsEnabled) else f"the Hugging Face hub cannot be reached ({_line(error)})"
    if not isinstance(config, str):
        raise InterpError(
            f"{repo!r} was not downloaded before, and {why}. Connect to the internet, or give the folder of a copy."
        ) from error
    folder = Path(config).parent
    names = {file.name for file in folder.iterdir() if file.exists()}  # a link whose file was deleted does not exist
    try:
        files = weight_files(f"{repo!r} cannot be loaded", folder, names)
    except InterpError as unfinished:
        raise InterpError(f"{repo!r} was downloaded in part only, and {why}. Connect to the internet to go on.") from unfinished
    size = sum((folder / file).stat().st_size for file in files)
    return Offer(repo, folder.name, folder, tuple(files), size, 0)


def _check_disk(offer: Offer) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if offer.missing > free:
        raise InterpError(
            f"{offer.repo!r} needs {_size(offer.missing)} more on the disk, and {_size(free)} are free at {cache}. Free some, or {_MOVE}."
        )


@contextlib.contextmanager
def _told(repo: str, revision: str | None, more: str = "") -> Iterator[None]:
    """Turns what the hub, the network and the disk do into an InterpError; `more` is said where trying again helps."""
    try:
        yield
    except InterpError:
        raise
    except _FAILURES as error:
        raise InterpError(f"{_why(repo, revision, error)} {more if _may_pass(error) else ''}".rstrip()) from error


def _may_pass(error: Exception) -> bool:
    """Whether the hub is only out of order, or tired of this address."""
    return not isinstance(error, HfHubHTTPError) or error.response.status_code >= 500 or error.response.status_code in {408, 429}


def _why(repo: str, revision: str | None, error: Exception) -> str:
    if isinstance(error, HFValidationError):
        return f"{repo!r} is neither a folder nor the id of a repository ('owner/name')."
    if isinstance(error, HfHubHTTPError):
        return _refusal(repo, revision, error)
    if isinstance(error, OSError | httpx.HTTPError | RuntimeError):
        return _breakdown(repo, error)
    return f"The Hugging Face hub gave no sense about {repo!r} ({_line(error)})."


def _refusal(repo: str, revision: str | None, error: HfHubHTTPError) -> str:
    """What an answer of the hub means."""
    page, login = f"{constants.ENDPOINT}/{repo}", "log in with `hf auth login` or set the environment variable HF_TOKEN"
    if isinstance(error, GatedRepoError):  # before RepositoryNotFoundError, of which it is one
        if get_token() is None:
            return f"{repo!r} is gated: accept its licence at {page}, then {login}."
        return f"{repo!r} is gated, and the account whose token is used has no access: accept its licence at {page}."
    if isinstance(error, RepositoryNotFoundError):
        return f"There is no repository {repo!r} on the Hugging Face hub, or it is private: check its id, or {login}."
    if isinstance(error, RevisionNotFoundError):
        return f"The repository {repo!r} has no revision {revision!r}. Leave it out for the newest."
    code = error.response.status_code
    if code in {401, 403}:
        return f"The Hugging Face hub refuses the token that is used for {repo!r} (it answered {code}): {login} anew."
    return f"The Hugging Face hub answered {code} when asked for {repo!r}. Try again later."


def _breakdown(repo: str, error: Exception) -> str:
    """What a failure of this machine, or of the way to the hub, means."""
    code = error.errno if isinstance(error, OSError) else None
    if code in {errno.ENOSPC, errno.EDQUOT} or "No space left" in str(error):
        return f"The disk is full: {repo!r} does not fit at {constants.HF_HUB_CACHE}. Free some of it, or {_MOVE}."
    if code in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"{constants.HF_HUB_CACHE} cannot be written to ({_line(error)}): {_MOVE}."
    return f"The download of {repo!r} broke off ({_line(error)})."


def _line(error: Exception) -> str:
    """The first line of what an error says; a server may have written it."""
    return next(iter(str(error).strip().splitlines()), "")[:200] or type(error).__name__


def _bar(show: Callable[[int], None] | None) -> Any:
    """A class of progress bars that are not drawn: `show` gets the bytes fetched so far.

    The library makes one bar for the bytes that it receives, one for those that it writes, and one that counts files.
    """
    lock, fetched, last = threading.Lock(), [0], [0.0]

    class Bar(tqdm):
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
    """Such as "3.2 of 14.1 GB"."""
    unit, name = (1e9, "GB") if whole >= 1e9 else (1e6, "MB")
    return f"{part / unit:.1f} of {whole / unit:.1f} {name}"


def _size(size: int) -> str:
    return re.sub(r"^.* of ", "", _of(0, size))
