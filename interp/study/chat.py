"""A server that speaks OpenAI's chat completions (vLLM, SGLang, TGI, `transformers serve`), through huggingface_hub's client."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import AsyncInferenceClient, set_async_client_factory
from huggingface_hub.errors import HfHubHTTPError

from ..errors import InterpError
from ..validation import finite_number, text, whole_number
from .client import Messages, RefusedError, Reply, Send, TransientError

_HOPELESS = {401, 402, 403, 404, 405}  # key, credit, rights, address or model: the same for every request
_PASSING = {408, 409, 425, 429}  # beside 500 and above
_LONGEST = 300  # characters of a server's message
_NO_KEY = "none"  # something must be sent, or huggingface_hub would send the user's own token to this server


@dataclass(frozen=True)
class Server:
    """Where to ask, and how.

    Raises InterpError for an address that is none or holds a password, and for a key variable that is not set.
    """

    url: str
    """Such as http://localhost:8000/v1."""
    model: str
    key_variable: str = ""
    """The environment variable that holds the key, if the server wants one. The key itself is never stored, logged or part of a message."""
    max_tokens: int = 256
    temperature: float = 0.0
    timeout: float = 120.0
    """Seconds until an answer is complete."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the request's body, such as {"modalities": "multi-images"} for SGLang."""

    def __post_init__(self) -> None:
        parts = urlsplit(text("server", self.url, 2000))
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InterpError(f"server is {self.url!r}; it must be an address such as http://localhost:8000/v1.")
        if parts.username or parts.password:
            raise InterpError(
                "The address of the server holds a name or password: put the key into an environment variable (--key-variable)."
            )
        if not text("model", self.model).strip():
            raise InterpError("The server's model has no name: give the one that it lists at /v1/models.")
        if self.key_variable and not os.environ.get(self.key_variable):
            raise InterpError(f"The environment variable {self.key_variable} is not set; it must hold the server's key.")
        whole_number("max_tokens", self.max_tokens, 1)
        finite_number("temperature", self.temperature, 0)
        finite_number("timeout", self.timeout, 0.001)


@contextlib.asynccontextmanager
async def connect(server: Server) -> AsyncIterator[Send]:
    """A function that sends messages to the server, for `ask_all`."""
    # The client's own connections refuse every address while HF_HUB_OFFLINE is set, and are at most 100.
    limits = httpx2.Limits(max_connections=None)
    set_async_client_factory(lambda: httpx2.AsyncClient(follow_redirects=True, timeout=None, limits=limits))
    key = os.environ.get(server.key_variable, "") if server.key_variable else ""
    async with AsyncInferenceClient(base_url=server.url, api_key=key or _NO_KEY) as client:

        async def send(messages: Messages) -> Reply:
            try:
                async with asyncio.timeout(server.timeout):
                    completion = await client.chat_completion(
                        messages,
                        model=server.model,
                        max_tokens=server.max_tokens,
                        temperature=server.temperature,
                        extra_body=dict(server.extra) or None,
                    )
            except TimeoutError as error:
                raise TransientError(f"no answer within {server.timeout:g} seconds") from error
            except HfHubHTTPError as error:
                raise _refusal(error, server, key) from error
            except httpx2.TransportError as error:
                raise TransientError(f"no connection ({type(error).__name__}: {error})") from error
            except (ValueError, TypeError, KeyError) as error:  # the body is not JSON, or something else
                raise TransientError(f"the server sent something other than a chat completion ({type(error).__name__})") from error
            return _reply(completion)

        yield send


def _reply(completion: Any) -> Reply:
    try:
        choice = completion.choices[0]
        words = choice.message.content or ""
        if not isinstance(words, str):
            raise TypeError  # noqa: TRY301 - handled with its like
        usage = getattr(completion, "usage", None)
        tokens_in, tokens_out = (int(getattr(usage, name, None) or 0) for name in ("prompt_tokens", "completion_tokens"))
        return Reply(words, tokens_in, tokens_out, choice.finish_reason == "length")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise TransientError("the server sent something other than a chat completion") from error


def _refusal(error: HfHubHTTPError, server: Server, key: str) -> Exception:
    """What a status other than 200 means for the run."""
    response = error.response
    said = " ".join((error.server_message or response.text).split())
    if key:
        said = said.replace(key, "…")  # some servers repeat it
    reason = f"status {response.status_code}{said and ': '}{said[:_LONGEST]}"
    if response.status_code in _PASSING or response.status_code >= 500:
        return TransientError(reason, _retry_after(response.headers.get("Retry-After", "")))
    if response.status_code in _HOPELESS:
        wants = f"the key in {server.key_variable}" if server.key_variable else "--key-variable, if the server wants a key"
        return InterpError(
            f"The server refuses every request ({reason}). Check its address, the model's name {server.model!r} and {wants}."
        )
    return RefusedError(reason)


def _retry_after(value: str) -> float:
    """Seconds to wait, from a header that holds a number of them or a date; 0 for anything else."""
    if value.isdecimal():
        return float(value)
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0
