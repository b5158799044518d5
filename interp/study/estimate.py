"""What asking a server will take: requests, tokens, time and money, estimated before the first request is sent."""

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image

from .client import Messages
from .dimmed import pictures_in, text_in
from .journal import Entry

PIXELS = 28  # a side of the square that one token stands for, in Qwen2-VL and its successors
CHARACTERS = 4  # of English text in a token
SECONDS = 3.0  # for an answer, until one was measured
ANSWER = 40  # tokens of an answer, until one was measured


@dataclass(frozen=True)
class Estimate:
    """What it will take."""

    requests: int
    pictures: int
    """In all requests."""
    tokens_in: int
    tokens_out: int
    seconds: float
    measured: bool
    """Whether seconds and tokens are means of answers that came before, or a rule of thumb."""
    cost: float | None
    """In the unit of the prices; None without prices."""

    def __str__(self) -> str:
        """One line."""
        minutes = self.seconds / 60
        time = f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes:.0f} minutes" if minutes >= 2 else f"{self.seconds:.0f} seconds"
        parts = [
            f"{self.requests} requests with {self.pictures} pictures",
            f"about {_short(self.tokens_in)} tokens in and {_short(self.tokens_out)} out",
            f"about {time}",
            *([] if self.cost is None else [f"about {self.cost:.2f} in money"]),
        ]
        return f"{', '.join(parts)} ({'from the answers so far' if self.measured else 'by rules of thumb'})"


def estimate(
    example: Messages,
    requests: int,
    earlier: Iterable[Entry] = (),
    *,
    concurrency: int,
    picture_tokens: int | None = None,
    prices: tuple[float, float] | None = None,
) -> Estimate:
    """For so many requests like the example.

    `earlier`: what the journal holds; its means count where the server reported time and tokens. Otherwise a picture has one token for every
    28 by 28 pixels, or `picture_tokens`, a text one for every 4 characters, an answer 40, and it takes 3 seconds. All requests are taken to be
    equally fast whatever `concurrency` is. `prices`: of a million tokens in and out.
    """
    pictures = pictures_in(example)
    seen = [entry for entry in earlier if entry.tokens_in]
    per_request = math.ceil(len(text_in(example)) / CHARACTERS) + sum(picture_tokens or _tokens(picture) for picture in pictures)
    tokens_in, tokens_out, seconds = (
        (_mean(entry.tokens_in for entry in seen), _mean(entry.tokens_out for entry in seen), _mean(entry.seconds for entry in seen))
        if seen
        else (per_request, ANSWER, SECONDS)
    )
    total_in, total_out = round(tokens_in * requests), round(tokens_out * requests)
    cost = None if prices is None else (total_in * prices[0] + total_out * prices[1]) / 1e6
    return Estimate(requests, len(pictures) * requests, total_in, total_out, seconds * math.ceil(requests / concurrency), bool(seen), cost)


def _mean(values: Iterable[float]) -> float:
    held = list(values)
    return sum(held) / len(held)


def _tokens(picture: bytes) -> int:
    width, height = Image.open(io.BytesIO(picture)).size
    return math.ceil(width / PIXELS) * math.ceil(height / PIXELS)


def _short(number: int) -> str:
    """Two or three digits of it: 830, 12 k, 4.1 M."""
    for unit, size in (("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.{int(number < 10 * size)}f} {unit}"
    return str(number)
