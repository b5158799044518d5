"""Side by side with the reference projects: what is known of theirs, a naive implementation of their formula run now, and ours run now.

Here what lens, SAE and steering cost, on the shapes that theirs were measured on; the errors that their formulas make are in peers_errors. No
code of theirs is here: what is called naive is written from the formula (see naive.py). Ratios are of one run.
"""

import shutil
import tempfile
from pathlib import Path

import torch

import interp
from interp.saes.sae import SparseActs
from tests.browser.conftest import FLAGS

from . import naive
from .lens_bench import _noise_trace
from .peers_errors import lens_errors, sae_errors, show, steering_errors
from .sae_bench import FEATURES, PEAK, TOKENS, WIDTH, ours, random_sae, random_states, reference
from .steer_bench import Endless
from .tools import in_fresh_process, in_turns

LENS_PEAK = """
from tests.bench.lens_bench import _noise_trace
from tests.bench.peers_bench import {name}
from tests.bench.tools import peak_extra_mib
trace = _noise_trace({width}, {layers})
trace.vlm.unembed
print(peak_extra_mib(lambda: {name}(trace)))
"""
COUNT_LISTENERS = """
window.__listeners = 0;
const add = EventTarget.prototype.addEventListener;
EventTarget.prototype.addEventListener = function (...all) { window.__listeners++; return add.apply(this, all); };
"""


def naive_lens(trace: interp.Trace) -> None:
    """The table of tlab_MultimodalLLM and llava-interp."""
    vlm = trace.vlm
    with torch.inference_mode():
        naive.lens_table(naive.hidden_states(trace.states, vlm.norm), vlm.norm, vlm.head, vlm.tokenizer.decode)


def our_lens(trace: interp.Trace) -> None:
    """The same five readings of every state, with entropies."""
    interp.logit_lens(trace)


def lens(width: int = 256, layers: int = 32, *, wide: int = 2, runs: int = 3) -> None:
    """(a) The lens of all layers, and of what is looked at. `wide`: layers of the model with d = 4096 (0: without it)."""
    trace = _noise_trace(width, layers)
    image = trace.positions("image")
    functions = {
        "naive": lambda: naive_lens(trace),
        "ours": lambda: our_lens(trace),
        "shown": lambda: interp.logit_lens(trace, layers=[trace.vlm.default_layer], positions=image),
    }
    seconds = in_turns(functions, runs)
    shape = f"{layers + 1} states x {trace.length} positions x 32 064 words, d = {width}"
    rows = [
        timed(f"lens, {shape}", "10.0 s tlab_MultimodalLLM, 9.9 s llava-interp (measured, 33 states, d = 256)", seconds),
        timed(
            f"lens of one layer at the {len(image)} patches, all that a page shows at once",
            "the whole table, always (arithmetic)",
            {"naive": seconds["naive"], "ours": seconds["shown"]},
        ),
    ]
    if wide:
        deep = _noise_trace(4096, wide)
        seconds = in_turns({"naive": lambda: naive_lens(deep), "ours": lambda: our_lens(deep)}, runs)
        rows.append(timed(f"lens, {wide + 1} states, d = 4096", "6.0 s tlab_MultimodalLLM (measured, 3 states)", seconds))
    show(rows)


def page(layers: int = 32) -> None:
    """(b) The standalone page of 24 x 24 patches: bytes, elements and listeners. Random words, as none of its size are trained here."""
    found = interp.logit_lens(_noise_trace(256, layers))
    path = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lens.html"
        found.to_html(file)
        size = file.stat().st_size / 1e6
        elements, listeners = _weight(file, path) if path else ("no Chromium here", "no Chromium here")
    cells = (layers + 1) * (found.trace.length + 4)  # the reference's prompt is 593 tokens long
    rows = [
        (
            f"standalone HTML, {layers + 1} states",
            "2.36 MB tlab_MultimodalLLM (published)",
            "not built",
            f"{size:.2f} MB",
            f"{2.36 / size:.1f}",
        ),
        ("elements of its page", f"{cells} table cells (arithmetic)", "not built", str(elements), ""),
        ("event listeners added by scripts", f"{3 * cells} (arithmetic)", "not built", str(listeners), ""),
    ]
    show(rows)


def sae(width: int = WIDTH, features: int = FEATURES, tokens: int = TOKENS, runs: int = 3) -> None:
    """(c) Encoding, ranking and decoding of a random TopK dictionary."""
    shape = f"{tokens} tokens, d = {width}, {features} features"
    states = random_states(tokens, width)
    made = random_sae(width, features)
    assert set(ours(made, states)) == set(reference(made, states)), "the rankings differ"
    seconds = in_turns({"naive": lambda: reference(made, states), "ours": lambda: ours(made, states)}, runs)
    rows = [timed(f"states to top features, {shape}", "11.88 s multimodal-sae's cache, 9.84 s its encoder alone (measured)", seconds)]
    made = random_sae(width, features, decoder=True)
    make = torch.Generator().manual_seed(2)
    chosen = torch.rand(tokens, features, generator=make).topk(made.k).indices.sort().values
    values = torch.rand(tokens, made.k, generator=make) + 0.1
    one, offsets = torch.ones(tokens, 1), torch.arange(0, tokens * made.k + 1, made.k, dtype=torch.int32)
    acts = SparseActs(offsets, chosen.flatten().int(), values.flatten(), 0 * one, one)
    off = (made.decode(acts) - naive.dense_decode(made, chosen, values)).abs().max()
    assert off < 1e-3, f"the decoded states differ by {off:.1e}"
    seconds = in_turns({"naive": lambda: naive.dense_decode(made, chosen, values), "ours": lambda: made.decode(acts)}, runs)
    rows.append(timed(f"decoding {made.k} features a token, largest difference {off:.0e}", "7.09 s multimodal-sae (measured)", seconds))
    show(rows)


def memory() -> None:
    """(d) Peak memory beside what is there before: of the full lens, and of encoding and ranking."""
    table = {name: peak(LENS_PEAK, name=f"{name}_lens", width=256, layers=32) for name in ("naive", "our")}
    acts = {name: peak(PEAK, name=name, width=WIDTH, features=FEATURES, tokens=TOKENS) for name in ("reference", "ours")}
    lens_theirs = "232 MiB tlab_MultimodalLLM, 231 MiB llava-interp (measured)"
    rows = [
        mib("peak extra memory of the lens, 33 states x 589 positions, d = 256", lens_theirs, table["naive"], table["our"]),
        mib(
            f"of states to top features, {TOKENS} tokens, {FEATURES} features",
            "975 MiB multimodal-sae's cache (measured)",
            acts["reference"],
            acts["ours"],
        ),
    ]
    show(rows)


def steering(width: int = WIDTH, features: int = FEATURES, tokens: int = TOKENS, *, new: int = 50, layers: int = 32) -> None:
    """(e) Clamping one feature of a dictionary at every token, and an answer with a push at every position."""
    states, made = random_states(tokens, width), random_sae(width, features)
    only = made.only(7, torch.device("cpu"))

    def delta() -> torch.Tensor:
        activation, scale = only.read(states)
        return states + (5.0 - activation) / scale * only.W_dec[0]

    with torch.inference_mode():
        seconds = in_turns({"naive": lambda: naive.replaced(made, states, 7, 5.0), "ours": delta}, runs=1)
    theirs = "16.93 s multimodal-sae: 9.84 s to encode, 7.09 s to decode (measured)"
    rows = [timed(f"clamp of one feature, {tokens} tokens, d = {width}, {features} features", theirs, seconds)]
    trace = _noise_trace(256, layers)
    vlm = Endless(trace.vlm.model, trace.vlm.processor, name="random")
    vlm.model.generation_config.eos_token_id = None
    inputs = vlm.prepare(trace.image, "what")
    push = torch.randn(256, generator=torch.Generator().manual_seed(0))
    edit = interp.Edit(vector=push, layer=layers // 2, amount=1.0)

    def without_cache() -> None:
        with torch.inference_mode():
            naive.generate_without_cache(vlm.model, dict(inputs), vlm.blocks[layers // 2], push, new)

    functions = {"naive": without_cache, "ours": lambda: interp.steer(vlm, trace.image, "what", [edit], max_new_tokens=new)}
    length = inputs["input_ids"].shape[1]
    theirs = f"llava-interpret reads all positions anew for every one of 50 tokens: {sum(range(length, length + 50))} of them, not {length + 49} (arithmetic)"
    rows.append(
        timed(
            f"steered answer of {new} tokens, d = 256, {layers} layers; ours with the plain answer and KL",
            theirs,
            in_turns(functions, runs=1),
        )
    )
    show(rows)


PARTS = {
    "lens": lens,
    "page": page,
    "sae": sae,
    "memory": memory,
    "steer": steering,
    "lens-errors": lens_errors,
    "sae-errors": sae_errors,
    "steer-errors": steering_errors,
}


def peak(code: str, **told: object) -> float:
    """MiB, in a process of its own."""
    return float(in_fresh_process(code.format(**told)))


def timed(what: str, theirs: str, seconds: dict[str, float]) -> tuple[str, ...]:
    """A row of the seconds of "naive" and "ours"."""
    base, own = seconds["naive"], seconds["ours"]
    return what, theirs, f"{base:.3g} s", f"{own:.3g} s", f"{base / own:.3g}"


def mib(what: str, theirs: str, base: float, own: float) -> tuple[str, ...]:
    """A row of two amounts of memory."""
    return what, theirs, f"{base:.0f} MiB", f"{own:.0f} MiB", f"{base / own:.1f}"


def _weight(file: Path, chromium: str) -> tuple[int, int]:
    """Elements and listeners of a page once it is drawn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        view = browser.new_page()
        view.add_init_script(COUNT_LISTENERS)
        view.goto(file.as_uri())
        view.wait_for_selector(".lens[data-ready]")
        found = view.evaluate("[document.querySelectorAll('*').length, window.__listeners]")
        browser.close()
    return tuple(found)
