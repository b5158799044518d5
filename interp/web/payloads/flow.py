"""What the view of a word is told about information flow."""

from typing import TypedDict

from ...attention.flow import Flow


class FlowBlock(TypedDict):
    """One block of attention: what blocking it in each window changes, in per cent of the word's probability, and in log-odds."""

    name: str
    change: list[float]
    log_odds: list[float]


class FlowCurves(TypedDict):
    """`centres`: the middle layer of each window; `window`: how many layers are blocked at once."""

    window: int
    centres: list[int]
    blocks: list[FlowBlock]
    forwards: int


def flow_curves(flow: Flow) -> FlowCurves:
    """Information flow, in the form the view reads."""
    blocks = zip(flow.blocks, flow.change.tolist(), flow.log_odds.tolist(), strict=True)
    return {
        "window": flow.window,
        "centres": list(flow.centres),
        "blocks": [{"name": name, "change": change, "log_odds": log_odds} for name, change, log_odds in blocks],
        "forwards": flow.forwards,
    }
