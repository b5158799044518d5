"""The view that explains a word of the answer as a gradio component."""

from ...web.payloads.attention import SCHEMA
from .view import View

# Runs once per component, after the scripts in its head. Each of the five is one of the creator's server functions or absent.
_ON_LOAD = """
const wordMap = server && server.word_map ? (run, spec) => server.word_map(run, spec) : null;
const testMap = server && server.test_map ? (run, spec) => server.test_map(run, spec) : null;
const whatIf = server && server.what_if ? (run, request) => server.what_if(run, request) : null;
const fewest = server && server.fewest_patches ? (run, token) => server.fewest_patches(run, token) : null;
const wordFlow = server && server.word_flow ? (run, request) => server.word_flow(run, request) : null;
const chose = (spec) => trigger('select', { index: spec.token, value: spec });
const view = Microscope.mountAttention(element, { wordMap, testMap, whatIf, fewest, wordFlow, chose });
"""


class AttentionView(View):
    """What a word of the answer looked at and needed. Its value is an attention payload (a dict), or None for "nothing yet".

    Server functions, each optional; `run` is the payload's "run". Raising `InterpError` or returning {"error": str} shows the text in the view:

    - `word_map(run, spec)`: the map of a `MapSpec` that the view cannot make from the rows it has, as `MapValues`.
    - `test_map(run, spec)`: its `Score`.
    - `what_if(run, {"positions", "how"})`: the answer without these patches, as `WhatIf`; how: "knockout", "mean" or "zero".
    - `fewest_patches(run, token)`: those without which the token is no longer the likeliest, as `Fewest`.
    - `word_flow(run, {"token", "window", "positions"})`: `FlowCurves`.

    Event `select`: the reader chose a word or a map; `gr.SelectData` has `index` (the token's number in the answer) and `value` (the `MapSpec`).

    A DOM event "llava:word" on the document, with {token: number in the answer} as its detail, chooses that word. With {of: {image, prompt, answer}}
    beside it, a word of another run than the one shown waits for the next payload.
    """

    KIND, SCHEMA, LABEL = "attention", SCHEMA, "Why this word"
    FOLDER = "attention"
    ON_LOAD = _ON_LOAD
