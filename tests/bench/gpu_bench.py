"""Models of full size on a GPU: what memory they need, and what lens, trace, steering and features cost beside what they cannot do without.

The weights are random (see full_size), and the product's own loader reads them. Every part runs for every model, and one table is printed at the
end. SaeMetrics without a GPU would mean nothing: there, only `toy` runs, to show that all of this works.
"""

import contextlib
import functools
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image

import interp
from interp.concepts.samples import Sample
from interp.saes.features import encode
from interp.study.cache import encoded
from interp.tracing.record import greedy

from .full_size import SHAPES, write_checkpoint
from .naive import hidden_states, lens_table
from .sae_bench import FEATURES, random_sae
from .steer_bench import Endless
from .tools import in_turns, print_table, verdict

PROMPT = "x" * 11  # a token a letter: with "USER: ", 17 beside the picture's, as the reference's prompt has
LIMIT, LIMIT_WITHOUT_SAE = 15, {"llava-1.5-7b": 8}  # GiB
COLUMNS = ("model", "what", "measured", "baseline in the same run", "ratio")


class Subject:
    """One model of random weights, what it is asked, and the table's rows about it."""

    def __init__(self, name: str, folder: Path, *, toy: bool) -> None:
        shape = SHAPES[name].toy() if toy else SHAPES[name]
        self.name, self.rows, self.toy = name, [], toy
        self.device = "cpu" if toy else "cuda"
        self.features, self.runs, self.new = (512, 1, 4) if toy else (FEATURES, 3, 64)
        self.folder = write_checkpoint(folder / (f"{name}-toy" if toy else name), shape)
        side = shape.side * 2 if shape.tiles else shape.side  # square: the most tiles that a picture of no odd shape gets
        pixels = torch.randint(256, (side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        self.picture = Image.fromarray(pixels.numpy())

    def load(self, quantize: str) -> interp.Vlm:
        """By the product's own loader. No answer ends by itself."""
        loaded = interp.load(self.folder, quantize=quantize, device=self.device)
        loaded.model.generation_config.eos_token_id = None
        return Endless(loaded.model, loaded.processor, name=f"{self.name}, random weights")

    @functools.cached_property
    def vlm(self) -> interp.Vlm:
        """In 4 bit."""
        return self.load("4bit")

    @functools.cached_property
    def trace(self) -> interp.Trace:
        """Of the prompt alone: one token is answered, and it never enters the model."""
        return self.vlm.trace(self.picture, PROMPT, max_new_tokens=1)

    @functools.cached_property
    def sae(self) -> interp.Sae:
        """TopK, bfloat16, both of its matrices on the device."""
        vlm, made = self.vlm, random_sae(self.trace.states.shape[-1], self.features)
        matrices = {name: getattr(made, name).to(torch.bfloat16).contiguous().to(self.device) for name in ("W_enc", "W_dec")}
        return replace(made, **matrices, layer=vlm.default_layer)

    def forget(self) -> None:
        """Let go of the model and of what was made with it."""
        for made in ("vlm", "trace", "sae"):
            self.__dict__.pop(made, None)
        release()

    def row(self, what: str, *cells: str) -> None:
        """Add a row to the table, and print it at once: a run that is cut off has told what it measured."""
        self.rows.append((self.name, what, *cells))
        print(" | ".join(self.rows[-1]), flush=True)

    def report(self, what: str, seconds: dict[str, float], target: float | None = None) -> None:
        """A row for the first of these against the last, its baseline."""
        (_, value), *_, (base_name, base) = seconds.items()
        ratio = f"{value / base:.2f}" + (f" (target {verdict(value / base, target)})" if target and not self.toy else "")
        self.row(what, f"{value:.4f} s", f"{base:.4f} s: {base_name}", ratio)

    def fits(self, what: str, limit: float, function: Callable[[], object]) -> None:
        """A row for the peak memory of `function`, run within `limit` GiB as on a card of that size. Where it does not fit, run without."""
        if self.toy:
            function()
            return
        release()
        torch.cuda.reset_peak_memory_stats()
        met = "met"
        try:
            with card_of(limit):
                function()
        except (torch.OutOfMemoryError, interp.InterpError) as error:
            met = "MISSED"
            print(f"{self.name}: {what} within {limit} GiB: {error}", flush=True)
            release()
            function()
        allocated, reserved = (peak / 2**30 for peak in (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()))
        self.row(f"peak memory: {what}", f"{allocated:.2f} GiB, {reserved:.2f} GiB reserved", f"a card of {limit} GiB", met)


@contextlib.contextmanager
def card_of(gib: float) -> Iterator[None]:
    """As if the GPU had no more memory than this: torch gives back what it hoards before it goes beyond, and then refuses."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib * 2**30 / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def release() -> None:
    """Give unused GPU memory back."""
    gc.collect()
    torch.cuda.empty_cache()


def memory(subject: Subject) -> None:
    """(a) The peak of each step, with all that is then held; those before the SAE within the limit of a model alone."""
    subject.forget()
    alone = LIMIT_WITHOUT_SAE.get(subject.name, LIMIT)
    subject.fits("loaded in nf4", alone, lambda: subject.vlm)
    subject.fits("trace of the prompt", alone, lambda: subject.trace)
    length, layers = subject.trace.length, subject.trace.n_layers
    subject.fits(
        f"trace of {length + subject.new - 1} positions",
        alone,
        lambda: subject.vlm.trace(subject.picture, PROMPT, max_new_tokens=subject.new),
    )
    subject.fits(f"full lens, {layers + 1} states x {length} positions", alone, lambda: interp.logit_lens(subject.trace))
    subject.fits("steered pair along a vector", alone, lambda: steered(subject, interp.Edit(vector=ones(subject), layer=0, strength=0.1)))
    subject.fits(f"model and SAE of {subject.features} features", LIMIT, lambda: subject.sae)
    subject.fits("top features of all positions", LIMIT, lambda: encode(subject.trace, subject.sae).top(10))
    subject.fits(
        "steered pair along a feature, SAE held", LIMIT, lambda: steered(subject, interp.Edit(sae=subject.sae, feature=7, strength=0.1))
    )


def lens(subject: Subject) -> None:
    """(b) The full lens against the head's products alone, in its dtype, their states on the GPU already; a loop over single readings beside it."""
    vlm, trace = subject.vlm, subject.trace
    head, norm = vlm.head, vlm.norm
    entries = [state.to(vlm.model.device) for state in trace.states]
    buffer = torch.empty(trace.length, head.weight.shape[0], dtype=head.weight.dtype, device=head.weight.device)

    def floor() -> None:
        with torch.inference_mode():
            for entry in entries:
                torch.mm(entry, head.weight.T, out=buffer)

    def naive() -> None:
        with torch.inference_mode():
            lens_table(hidden_states(torch.stack(entries), norm), norm, head, vlm.tokenizer.decode)

    what = f"full lens, {trace.n_layers + 1} states x {trace.length} positions x {head.weight.shape[0]} words, top 5"
    seconds = in_turns({"lens": lambda: interp.logit_lens(trace), "the bare head products": floor}, runs=subject.runs)
    subject.report(what, seconds, 1.3)
    slow = in_turns({"naive": naive}, runs=1)
    subject.report(f"{what}: naive implementation of the formula of llava-interp", {**slow, "our lens": seconds["lens"]})
    one = [vlm.default_layer]
    seconds = in_turns(
        {"one": lambda: interp.logit_lens(trace, layers=one), "all layers": lambda: interp.logit_lens(trace)}, runs=subject.runs
    )
    subject.report("lens of one layer, as it is looked at", seconds)


def tracing(subject: Subject) -> None:
    """(c) A trace against plain generation of as many tokens."""
    vlm = subject.vlm
    functions = {
        "trace": lambda: vlm.trace(subject.picture, PROMPT, max_new_tokens=subject.new),
        f"plain generate of {subject.new} tokens": lambda: plain(subject),
    }
    subject.report(f"trace, {subject.new} new tokens", in_turns(functions, runs=subject.runs), 1.1)


def steering(subject: Subject) -> None:
    """(d) A plain and a steered answer with their KL against one generation."""
    edit = interp.Edit(sae=subject.sae, feature=7, strength=0.1)
    functions = {"pair": lambda: steered(subject, edit), f"one plain generation of {subject.new} tokens": lambda: plain(subject)}
    subject.report(f"plain and steered answer, {subject.new} tokens each, with KL", in_turns(functions, runs=subject.runs), 1.35)


def features(subject: Subject) -> None:
    """(e) From a trace to its top features against the encoder's product alone, in float32 as both compute; the SAE on the GPU and off it."""
    trace, sae = subject.trace, subject.sae
    weights, states = sae.W_enc.float(), trace.residual(sae.layer).to(subject.device).float()
    buffer = torch.empty(len(states), sae.d_sae, device=states.device)
    off = replace(sae, W_enc=sae.W_enc.cpu(), W_dec=sae.W_dec.cpu())

    def floor() -> None:
        with torch.inference_mode():
            torch.mm(states, weights, out=buffer)

    what = f"top features of {trace.length} positions, {sae.d_sae} features"
    base = "the bare encoder product in float32"
    for place, kept in (("SAE beside the model", sae), ("SAE in main memory, as the app keeps it", off)):
        functions = {"features": lambda kept=kept: encode(trace, kept).top(10), base: floor}
        subject.report(f"{what}, {place}", in_turns(functions, runs=subject.runs), 2)


def many(subject: Subject) -> None:
    """(f) Sixteen features steered beside each other, and a word attributed to all features, against a generation of as many tokens."""
    vlm, sae, trace = subject.vlm, subject.sae, subject.vlm.trace(subject.picture, PROMPT, max_new_tokens=4)
    edits = [interp.Edit(sae=sae, feature=feature, strength=0.1) for feature in range(3 if subject.toy else 16)]
    functions = {
        "answers": lambda: interp.steer_each(vlm, subject.picture, PROMPT, edits, max_new_tokens=subject.new),
        f"one plain generation of {subject.new} tokens": lambda: plain(subject),
    }
    subject.report(f"{len(edits)} features steered, {subject.new} tokens each, with KL", in_turns(functions, runs=1))
    functions = {
        "attribute": lambda: interp.attribute(trace, sae, 1, top=1),
        f"one plain generation of {subject.new} tokens": lambda: plain(subject),
    }
    subject.report("a word attributed to all features at all positions", in_turns(functions, runs=subject.runs))


def caching(subject: Subject) -> None:
    """(g) A picture of a study, up to its sparse activations, against all blocks and the encoder's product, in 4 bit and as it was written."""
    sae, given = subject.sae, [Sample(str(number), subject.picture, PROMPT) for number in range(2 if subject.toy else 8)]
    _cached(subject, subject.vlm, sae, given, "in 4 bit")
    subject.forget()
    _cached(subject, subject.load("none"), sae, given, "unquantised")
    release()


def _cached(subject: Subject, vlm: interp.Vlm, sae: interp.Sae, given: Sequence[Sample], how: str) -> None:
    tokens = vlm.prepare(subject.picture, PROMPT)["input_ids"].shape[1]
    functions = {
        "cache": lambda: encoded(vlm, sae, given, 0, None),
        "forward pass and the encoder product in float32": lambda: _floor(vlm, sae, given),
    }
    seconds = {name: spent / len(given) for name, spent in in_turns(functions, runs=subject.runs).items()}
    subject.report(f"caching a picture of {tokens} tokens, {sae.d_sae} features, {how}", seconds, 1.3)


def _floor(vlm: interp.Vlm, sae: interp.Sae, samples: Sequence[Sample]) -> None:
    """What nobody can do without, sample by sample: prepare, all blocks, the encoder's product on as many states."""
    weights = sae.W_enc.float()
    with torch.inference_mode():
        for each in samples:
            tensors = vlm.prepare(each.picture, each.prompt)
            vlm.model(**tensors, use_cache=False, logits_to_keep=1)
            torch.mm(torch.ones(tensors["input_ids"].shape[1], len(weights), device=weights.device), weights)


def agreement(subject: Subject) -> None:
    """(h) How often the 4-bit model's lens reads the same word first as the 16-bit model's of the same weights. Reported, without a target."""
    four = interp.logit_lens(subject.trace, top_k=1)
    subject.forget()
    full = subject.load("none")
    lens = interp.logit_lens(full.trace(subject.picture, PROMPT, max_new_tokens=1), top_k=1)
    same = (four.ids[..., 0] == lens.ids[..., 0]).float().mean(1)
    listed = ", ".join(f"{layer} {share:.0%}" for layer, share in zip(lens.layers, same.tolist(), strict=True))
    print(f"{subject.name}: same first word in 4 bit as unquantised, by layer ({interp.EMBED} is the input): {listed}", flush=True)
    dtype = str(full.model.dtype).removeprefix("torch.")
    what = f"first word of the nf4 lens is that of the {dtype} lens, random weights"
    shares = f"{same.mean():.1%} over all layers, {same.min():.1%} at the worst, {same[-1]:.1%} at the last"
    subject.row(what, shares, f"the {dtype} lens", "")
    del full, lens
    release()


PARTS = {
    "memory": memory,
    "lens": lens,
    "trace": tracing,
    "steer": steering,
    "features": features,
    "many": many,
    "caching": caching,
    "agreement": agreement,
}


def run(parts: Sequence[str] = (), *, models: Sequence[str] = (), folder: Path | None = None, toy: bool = False) -> list[tuple[str, ...]]:
    """Run these parts (default: all) for these models (default: both) and print one table. Checkpoints are kept in `folder`, where one is given."""
    if not toy and not torch.cuda.is_available():
        sys.exit("No GPU: torch sees no CUDA device here, and these figures are about one. `--toy` runs all parts at toy size on the CPU.")
    rows: list[tuple[str, ...]] = []
    with contextlib.nullcontext(folder) if folder else tempfile.TemporaryDirectory() as place:
        for name in models or SHAPES:
            subject = Subject(name, Path(place), toy=toy)
            for part in parts or PARTS:
                print(f"{name}: {part}", flush=True)
                PARTS[part](subject)
            rows += subject.rows
            subject.forget()
    print(f"\n{_machine(toy=toy)}\n")
    print_table(COLUMNS, rows)
    return rows


def _machine(*, toy: bool) -> str:
    """Hardware, versions and date, for the line above the table."""
    used = f"torch {torch.__version__}, transformers {version('transformers')}, bitsandbytes {version('bitsandbytes')}"
    today = datetime.now(UTC).date().isoformat()
    if toy:
        return f"Toy size on a CPU, which says nothing about full size; {used}; {today}."
    card = torch.cuda.get_device_properties(0)
    return f"{card.name} with {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, {used}; medians of one run; {today}."


def plain(subject: Subject) -> None:
    """What anyone would call: the picture prepared and one answer generated."""
    with greedy(subject.vlm), torch.inference_mode():
        subject.vlm.model.generate(**subject.vlm.prepare(subject.picture, PROMPT), max_new_tokens=subject.new, do_sample=False)


def steered(subject: Subject, edit: interp.Edit) -> None:
    """A pair of answers."""
    interp.steer(subject.vlm, subject.picture, PROMPT, [edit], max_new_tokens=subject.new)


def ones(subject: Subject) -> torch.Tensor:
    """A direction without a meaning."""
    return torch.ones(subject.trace.states.shape[-1])
