"""The payload of the view that explains a word of the answer: attention rows for local maps, maps of other methods."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch

from ...attention.rows import Attention, Share
from .scene import Scene, encode, scene

SCHEMA = "llava-microscope/attention-view/1"
SHARES: tuple[Share, ...] = ("image", "prompt", "answer", "sinks")
MOST_ROWS = 4 << 20  # bytes of attention rows sent to a page
LIMITS = (
    "Attention says where a head reads, not what it takes from there nor whether the answer needs it: heads that read a patch may write nothing, "
    "and much attention goes to sinks, tokens on which heads rest. By the middle layers every patch also carries what other patches told it, so a map "
    "over positions is not a map over things in the picture. Maps of different methods often disagree. What decides is a test: insertion and deletion "
    "compare each map with a random one, and knocking patches out shows what the answer becomes without them."
)


class Method(TypedDict):
    """One way to make a map. `note`: what it does not show; "" if each map brings its own. `heads`: whether layer and head can be chosen."""

    key: str
    name: str
    about: str
    note: str
    heads: bool


class Score(TypedDict):
    """Areas under a map's insertion and deletion curves, and under those of a random map."""

    insertion: float
    deletion: float
    random_insertion: float
    random_deletion: float


class MapSpec(TypedDict):
    """Which map: of the token with this number in the answer. `layer` and `head`: None for all; `over`: "mean" or "max" of them."""

    method: str
    token: int
    layer: int | None
    head: int | None
    over: str
    sinks: bool


class MapValues(TypedDict):
    """A map. `values`: float32 [K]; `note`: what it does not show."""

    values: str
    note: str


class MapItem(TypedDict):
    """A map computed before the payload was made, and its score if there is one."""

    spec: MapSpec
    map: MapValues
    score: Score | None


class SinkMarks(TypedDict):
    """Positions of registers of the vision tower and of attention sinks of the decoder."""

    tower: list[int]
    decoder: list[int]


class AttentionPayload(Scene):
    """The view's data. L layers with attention, H heads, Q tokens of the answer, K image tokens.

    `start`: position of the first token of the answer; `token`: number of the one to open with; `method`: to
    open with, "" for the one that the view shows; `keys`: uint16 [K], positions of the image tokens.
    `rows`: uint8 [row_layers, row_heads, Q, K], attention in steps of 1/255 of `row_scale`, float32 [row_layers, row_heads, Q]. Where all rows would be
    too large, `row_heads` is 1 and the rows are means over heads, and if need be `row_layers` too. `norms`: uint8 [L, H, K], the length of what each key
    adds, in steps of 1/255 of `norm_scale`, float32 [L, H]; "" where rows are means.
    `shares`: uint8 [4, L, H, Q], the square roots of the shares of attention on image, prompt, answer and sinks in steps of 1/255;
    `curves`: float32 [4, L, Q], their means over heads. `quick`: whether testing a map takes seconds at most.
    """

    schema: str
    run: str | None
    start: int
    token: int
    method: str
    layers: list[int]
    heads: int
    keys: str
    row_layers: int
    row_heads: int
    rows: str
    row_scale: str
    norms: str
    norm_scale: str
    shares: str
    curves: str
    sinks: SinkMarks
    methods: list[Method]
    maps: list[MapItem]
    window: int
    quick: bool
    limits: str


def attention_payload(
    attention: Attention,
    token: int,
    methods: Sequence[Method],
    *,
    run: str | None = None,
    method: str = "",
    maps: Sequence[MapItem] = (),
    quick: bool = False,
    most: int = MOST_ROWS,
) -> AttentionPayload:
    """The view's data for the attention of all answer tokens. `token`: number of the one to open with; `most`: bytes of rows to send."""
    trace = attention.trace
    keys = trace.positions("image")
    rows = attention.weights[..., keys]
    complete = rows.numel() <= most
    if not complete:
        rows = rows.mean(1, keepdim=True)
    if rows.numel() > most:
        rows = rows.mean(0, keepdim=True)
    steps, scale = _steps(rows)
    known = attention.value_norms if complete else None
    norms, norm_scale = ("", "") if known is None else _steps(known[..., keys])
    shares = torch.stack([attention.share(kind) for kind in SHARES])
    return {
        "schema": SCHEMA,
        "run": run,
        **scene(trace),
        "start": trace.answer_start,
        "token": token,
        "method": method,
        "layers": list(attention.layers),
        "heads": attention.n_heads,
        "keys": encode(np.array(keys, dtype="<u2")),
        "row_layers": rows.shape[0],
        "row_heads": rows.shape[1],
        "rows": steps,
        "row_scale": scale,
        "norms": norms,
        "norm_scale": norm_scale,
        "shares": encode((shares.clamp(0, 1).sqrt() * 255).round().numpy().astype(np.uint8)),
        "curves": _floats(shares.mean(2)),
        "sinks": {"tower": list(attention.sinks.tower), "decoder": list(attention.sinks.decoder)},
        "methods": list(methods),
        "maps": list(maps),
        "window": max(1, round(trace.n_layers / 5)),  # as `information_flow` has it
        "quick": quick,
        "limits": LIMITS,
    }


def map_values(values: torch.Tensor, note: str) -> MapValues:
    """A map over the image tokens, in the form the view reads."""
    return {"values": _floats(values), "note": note}


def _steps(values: torch.Tensor) -> tuple[str, str]:
    """Values in steps of 1/255 of the largest along the last axis, and these largest."""
    top = values.amax(-1, keepdim=True) if values.shape[-1] else values.new_zeros((*values.shape[:-1], 1))
    steps = (values / top.clamp(min=1e-30) * 255).round().clamp(0, 255)
    return encode(steps.numpy().astype(np.uint8)), _floats(top)


def _floats(values: torch.Tensor) -> str:
    return encode(values.float().numpy().astype("<f4"))
