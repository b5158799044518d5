"""Concepts: collecting states against plain generations, memory over the number of samples, and semi-NMF against scikit-learn's."""

import json
import random
import tempfile
import time

import torch
from sklearn.decomposition import DictionaryLearning

import interp
from interp.concepts import decompose
from interp.concepts.decompose import lasso_codes, semi_nmf
from interp.concepts.match import cosines, matched
from interp.emoji_world.scenes import draw_picture, sample_scene
from interp.emoji_world.sprites import SEEN_VENDORS, load_sprites
from interp.tracing.record import greedy

from .tools import in_fresh_process, report, verdict

PROMPT = "Describe the image."
LAYERS = [1, 3, 5, 7]


def pictures(count: int, seed: int = 0) -> list:
    """Random scenes of the embedded model's world."""
    rng, sprites = random.Random(seed), load_sprites(SEEN_VENDORS)
    return [draw_picture(sample_scene(rng, range(len(SEEN_VENDORS)), augment=0.0), sprites) for _ in range(count)]


def collecting(samples: int = 500, new: int = 32) -> None:
    """(a) The states of four layers in one pass against one plain generation for each sample, which reference code runs once for every layer."""
    vlm, given = interp.load("emoji-llava", device="cpu"), pictures(samples)

    def ours() -> interp.ConceptStates:
        with tempfile.TemporaryDirectory() as folder:
            return interp.collect(
                vlm, given, LAYERS, "answer", prompt=PROMPT, max_new_tokens=new, folder=folder, on_progress=lambda *_: None
            )

    def plain() -> None:
        for picture in given:
            with greedy(vlm), torch.inference_mode():
                vlm.model.generate(**vlm.prepare(picture, PROMPT), max_new_tokens=new, do_sample=False)

    spent = {}
    for name, run in (("collect, 4 layers", ours), ("plain generations, one at a time", plain)):
        start = time.perf_counter()
        run()
        spent[name] = time.perf_counter() - start
    report(f"emoji-llava, {samples} samples", spent, 0.5)
    once, every = spent.values()
    print(f"against generations repeated for every layer: {once / (len(LAYERS) * every):.2f}", flush=True)


def memory(few: int = 400, many: int = 1600) -> None:
    """(b) Peak memory of collecting into a folder, each in a process of its own, over the number of samples."""
    code = """
import tempfile, json, torch
import interp
from tests.bench import concepts_bench as bench, tools
torch.set_num_threads(2)
vlm, given = interp.load("emoji-llava", device="cpu"), bench.pictures({count})
run = lambda: interp.collect(vlm, given, bench.LAYERS, "answer", folder=tempfile.mkdtemp(), on_progress=lambda *_: None)
interp.collect(vlm, given[:64], bench.LAYERS, "answer", folder=tempfile.mkdtemp(), on_progress=lambda *_: None)
print(json.dumps(tools.peak_extra_mib(run)))
"""
    peaks = {count: json.loads(in_fresh_process(code.format(count=count)).splitlines()[-1]) for count in (few, many)}
    for count, peak in peaks.items():
        print(f"{count} samples: {peak:.0f} MiB above the start")
    grown = (peaks[many] - peaks[few]) / (many - few)
    print(f"growth: {grown:.3f} MiB a sample (target {verdict(grown, 0.05)})", flush=True)


def planted(count: int, width: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that are sparse non-negative sums of k unit atoms, with a little noise; and the atoms."""
    make = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(k, width, generator=make), dim=1)
    torch.manual_seed(0)
    codes = torch.distributions.Gamma(0.3, 0.1).sample((count, k))
    return codes @ atoms + 0.1 * torch.randn(count, width, generator=make), atoms


def semi(count: int = 1500, width: int = 1024, k: int = 20) -> None:
    """(c) Non-negative sparse coding: scikit-learn's DictionaryLearning, as xl-vlms calls it, against ours; same penalty, both objectives computed alike."""
    rows, true = planted(count, width, k)
    penalty = 1.0
    start = time.perf_counter()
    ours = semi_nmf(rows, k, 0, penalty)
    own = time.perf_counter() - start
    start = time.perf_counter()
    options = {"positive_code": True, "fit_algorithm": "cd", "transform_algorithm": "lasso_cd", "max_iter": 5000, "random_state": 0}
    other = DictionaryLearning(n_components=k, alpha=penalty, **options).fit(rows.double().numpy())
    theirs = time.perf_counter() - start

    report(f"{count} x {width}, K={k}", {"ours": own, "scikit-learn": theirs})
    for name, atoms in (("ours", ours.atoms), ("scikit-learn", torch.from_numpy(other.components_).float())):
        codes = lasso_codes(rows.double(), atoms.double(), penalty)
        left = (rows - codes @ atoms.double()).square().sum()
        spread = (rows - rows.mean(0)).double().square().sum()
        loss = left / 2 + penalty * codes.sum()
        print(
            f"{name}: objective {float(loss):.1f}, FVU {float(left / spread):.4f}, planted atoms found at cosine {_recovered(atoms, true):.3f}"
        )
    print(f"steps of ours: {len(ours.losses) - 1} of at most {decompose.STEPS}", flush=True)


def _recovered(atoms: torch.Tensor, true: torch.Tensor) -> float:
    return float(cosines(true, atoms).gather(1, matched(true, atoms)[:, None]).mean())


PARTS = {"collecting": collecting, "memory": memory, "semi": semi}
