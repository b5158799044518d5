"""Readable errors for downloads: the hub's refusals, the network, the disk."""

import contextlib
import errno
import gzip
import zlib
from collections.abc import Iterator

import httpx2 as httpx  # what huggingface_hub is built on
from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..errors import InterpError

FAILURES = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, httpx.HTTPError)
"""What fetching and reading third-party files can raise."""
NETWORK = (httpx.HTTPError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, TimeoutError)
"""What only fetching them can raise."""
MOVE_CACHE = "set the environment variable HF_HUB_CACHE to another folder"
_LOG_IN = "log in with `hf auth login` or set the environment variable HF_TOKEN"
_SHORT: tuple[tuple[tuple[type[Exception], ...], str], ...] = (  # in this order: several are an OSError too
    ((TimeoutError, httpx.TimeoutException), "the server is too slow"),
    ((EOFError, zlib.error, gzip.BadGzipFile, UnicodeError), "a file arrived damaged"),
    ((FileNotFoundError,), "there is no such data set"),
    ((OSError, httpx.HTTPError), "the server cannot be reached"),
    ((ValueError, TypeError, AttributeError), "a file arrived damaged"),
)


class AnswerError(OSError):
    """A server's answer that is not a file; the message says what it is."""


@contextlib.contextmanager
def translated(repo: str, revision: str | None, retry: str = "", failures: tuple[type[Exception], ...] = FAILURES) -> Iterator[None]:
    """Turn errors of the hub, the network and the disk into an InterpError; `retry` is appended if trying again may help."""
    try:
        yield
    except InterpError:
        raise
    except failures as error:
        raise InterpError(f"{_sentence(repo, revision, error)} {retry if may_pass(error) else ''}".rstrip()) from error


def may_pass(error: Exception) -> bool:
    """Whether this may be temporary: the network, or a hub that is down or has received too many requests."""
    if isinstance(error, HFValidationError):
        return False
    return not isinstance(error, HfHubHTTPError) or error.response.status_code >= 500 or error.response.status_code in {408, 429}


def unreachable(error: Exception) -> str:
    """Why the hub could not be asked, as part of a sentence."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    return f"the Hugging Face hub cannot be reached ({first_line(error)})"


def in_short(error: Exception) -> str:
    """A few words for a failure that is not fatal."""
    if isinstance(error, AnswerError):
        return str(error)
    if code := getattr(getattr(error, "response", None), "status_code", None):  # huggingface_hub's errors
        return f"the server answered {code}"
    return next((words for kinds, words in _SHORT if isinstance(error, kinds)), f"the download failed with {type(error).__name__}")


def first_line(error: Exception) -> str:
    """The first line of an error's message, which a server may have written."""
    return next(iter(str(error).strip().splitlines()), "")[:200] or type(error).__name__


def _sentence(repo: str, revision: str | None, error: Exception) -> str:
    if isinstance(error, HFValidationError):
        return f"{repo!r} is neither a folder nor the id of a repository ('owner/name')."
    if isinstance(error, HfHubHTTPError):
        return _refusal(repo, revision, error)
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return f"{repo!r} is not complete in {constants.HF_HUB_CACHE}, and the hub cannot be reached. Connect to the internet to go on."
    if isinstance(error, OSError | httpx.HTTPError | RuntimeError):
        return _breakdown(repo, error)
    return f"The Hugging Face hub's answer about {repo!r} cannot be read ({first_line(error)})."


def _refusal(repo: str, revision: str | None, error: HfHubHTTPError) -> str:
    """What the hub's answer means."""
    if isinstance(error, GatedRepoError):  # before RepositoryNotFoundError, of which it is one
        accept = f"accept its licence at {constants.ENDPOINT}/{repo}"
        anonymous = get_token() is None
        why, and_then = ("", f", then {_LOG_IN}") if anonymous else (", and the account whose token is used has no access", "")
        return f"{repo!r} is gated{why}: {accept}{and_then}."
    if isinstance(error, RepositoryNotFoundError):
        return f"There is no repository {repo!r} on the Hugging Face hub, or it is private: check its id, or {_LOG_IN}."
    if isinstance(error, RevisionNotFoundError):
        return f"The repository {repo!r} has no revision {revision!r}. Leave it out for the newest."
    if isinstance(error, RemoteEntryNotFoundError):
        return f"The repository {repo!r} has no file {error.response.url.path.partition('/resolve/')[2].partition('/')[2]!r}."
    code = error.response.status_code
    if code in {401, 403}:
        return f"The Hugging Face hub refuses the token that is used for {repo!r} (it answered {code}): {_LOG_IN} again."
    return f"The Hugging Face hub answered {code} when asked for {repo!r}. Try again later."


def _breakdown(repo: str, error: Exception) -> str:
    """What a failure of this machine, or of its connection, means."""
    code = error.errno if isinstance(error, OSError) else None
    if code in {errno.ENOSPC, errno.EDQUOT} or "No space left" in str(error):
        return f"The disk is full: {repo!r} does not fit in {constants.HF_HUB_CACHE}. Free some space, or {MOVE_CACHE}."
    if code in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"{constants.HF_HUB_CACHE} cannot be written to ({first_line(error)}): {MOVE_CACHE}."
    return f"The download of {repo!r} was interrupted ({first_line(error)})."
