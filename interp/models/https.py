"""One file from a plain web server, within limits of size and time."""

import functools
import ssl
import time

import httpx2 as httpx

from .hub_errors import AnswerError

_STALL = 10.0  # seconds without a byte


def get(url: str, limit: int, deadline: float) -> bytes:
    """The file at `url`, of at most `limit` bytes, before `deadline` (of `time.monotonic`). Redirects are not followed: they may lead anywhere.

    Raises AnswerError for any other answer, EOFError if it ends too soon, TimeoutError, and httpx's errors if the server cannot be reached.
    """
    body = bytearray()
    # Uncompressed, so that the announced size is that of the file.
    headers = {"Accept-Encoding": "identity"}
    try:
        with (
            httpx.Client(timeout=min(_STALL, left(deadline)), verify=_certificates()) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise AnswerError(f"the server answered {response.status_code}")
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > limit:
                    raise AnswerError("an answer is larger than it should be")
                left(deadline)
    except (httpx.RemoteProtocolError, httpx.ReadError) as error:  # a reset may discard even headers that have arrived
        raise EOFError(f"{url} ends too soon") from error
    return bytes(body)


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Cached: reading them takes longer than fetching a small file."""
    return httpx.create_ssl_context()


def left(deadline: float) -> float:
    """Seconds until the deadline; TimeoutError after it."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
