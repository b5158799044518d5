"""Studies: caching against the bare forward pass, a large SAE against its encoder product, memory and bytes over pictures, two processes against one."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import interp
from interp.concepts.samples import Sample
from interp.emoji_world import scene_files
from interp.saes.sae import SparseActs
from interp.steering.generation import joined
from interp.study import cache, work
from interp.study.cache import encoded
from interp.study.cache_files import Cache
from interp.study.data import CHUNK
from interp.study.study import Plan, Study
from tests.server import free_port

from .concepts_bench import pictures
from .sae_bench import random_sae
from .tools import in_fresh_process, in_turns, random_llava, report, verdict

PROMPT = "Describe the image."
TOGETHER = 16
ARGUMENTS = argparse.Namespace(filters=None, pool="mean", keep=64, splits=None)


def samples(given: list) -> list[Sample]:
    return [Sample(str(number), picture, PROMPT) for number, picture in enumerate(given)]


def caching(count: int = 5 * CHUNK, runs: int = 5) -> None:
    """(a) What is computed for chunks of pictures against the bare forward pass of the same pictures, prepared and batched alike."""
    vlm, sae, given = interp.load("emoji-llava", device="cpu"), interp.load_sae("emoji-llava"), samples(pictures(count))

    def ours() -> None:
        for at in range(0, count, CHUNK):
            encoded(vlm, sae, given[at : at + CHUNK], at, None)

    def bare() -> None:
        for at in range(0, count, TOGETHER):
            tensors = joined([vlm.prepare(each.picture, each.prompt) for each in given[at : at + TOGETHER]])
            with torch.inference_mode():
                vlm.model(**tensors, use_cache=False, logits_to_keep=1)

    report(
        f"emoji-llava, {count} pictures, {sae.d_sae} features at layer {sae.layer}",
        in_turns({"cache": ours, "bare forward": bare}, runs),
        1.25,
    )


def large(width: int = 4096, features: int = 131_072, grid: int = 24, runs: int = 3) -> None:
    """(b) A picture through a large random SAE against the encoder's product on its states; one thin block stands for the model."""
    vlm, sae = random_llava(width, 1, grid=grid), random_sae(width, features)
    given = samples([torch.randint(256, (14 * grid, 14 * grid, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()])
    tokens = vlm.prepare(given[0].picture, PROMPT)["input_ids"].shape[1]
    states, buffer = torch.randn(tokens, width), torch.empty(tokens, features)

    def floor() -> None:
        with torch.inference_mode():
            torch.mm(states, sae.W_enc, out=buffer)

    def bare() -> None:
        with torch.inference_mode():
            vlm.model(**vlm.prepare(given[0].picture, PROMPT), use_cache=False, logits_to_keep=1)

    def both() -> None:
        bare()
        floor()

    seconds = in_turns({"cache": lambda: encoded(vlm, sae, given, 0, None), "forward and encoder product": both}, runs)
    report(f"{tokens} tokens, d={width}, {features} features", seconds, 1.3)


def order(tokens: int = 593, active: int = 256, features: int = 131_072, runs: int = 3) -> None:
    """(c) Putting the activations of a chunk in order, without model and SAE: those of every token spread over the features at random."""
    spread = torch.randint(features // active, (tokens, active), generator=torch.Generator().manual_seed(0))
    found = (spread + torch.arange(active) * (features // active)).flatten().int()
    none = torch.zeros(tokens, 1)
    acts = SparseActs(torch.arange(tokens + 1) * active, found, torch.rand(tokens * active), none, none)
    patch = torch.ones(tokens, dtype=torch.bool)

    def chunk() -> None:
        cache._ordered({number: cache._active(acts, slice(0, tokens), patch, None) for number in range(CHUNK)}, 0, features)

    seconds = in_turns({"order": chunk}, runs)["order"]
    print(f"{tokens} tokens, {active} of {features} features each: {1000 * seconds / CHUNK:.1f} ms a picture", flush=True)


def memory(width: int = 4096, grid: int = 24, cases: Sequence[tuple[int, int]] = ((16_384, CHUNK), (131_072, 4), (131_072, CHUNK))) -> None:
    """(d) Peak memory of (features of a random SAE, pictures), up to the files, and of all of caching over the number of pictures, in processes of their own."""
    code = """
import pathlib, tempfile, torch
from tests.bench import study_bench as bench, tools, sae_bench
vlm, sae = tools.random_llava({width}, 1, grid={grid}), sae_bench.random_sae({width}, {features})
given = bench.samples([torch.randint(256, (14 * {grid}, 14 * {grid}, 3), dtype=torch.uint8).numpy() for _ in range({count})])
with tempfile.TemporaryDirectory() as folder:
    bench.written(vlm, sae, given[:1], pathlib.Path(folder))
    print(tools.peak_extra_mib(lambda: bench.written(vlm, sae, given, pathlib.Path(folder))))
"""
    for features, count in cases:
        peak = float(in_fresh_process(code.format(width=width, features=features, grid=grid, count=count)).splitlines()[-1])
        print(
            f"{count} pictures, d={width}, {features} features: {peak:.0f} MiB beyond the weights (target {verdict(peak, 500)})", flush=True
        )
    code = """
import tempfile
from tests.bench import study_bench as bench, tools
study = bench.begun(tempfile.mkdtemp(), {count})
print(tools.peak_extra_mib(lambda: bench.cache.run(study, bench.ARGUMENTS)))
"""
    for count in (256, 1024):
        peak = float(in_fresh_process(code.format(count=count)).splitlines()[-1])
        print(f"emoji-llava, {count} pictures, from the first to the finished cache: {peak:.0f} MiB beyond the weights", flush=True)


def written(vlm: interp.Vlm, sae: interp.Sae, given: list[Sample], folder: Path) -> None:
    """Encode and write a chunk."""
    tokens, part = encoded(vlm, sae, given, 0, None)
    work.write(folder / "tokens.safetensors", *tokens)
    work.write(folder / "part.safetensors", part)


def begun(folder: str, count: int) -> Study:
    """A study of so many scenes, with its model loaded."""
    scene_files.write(Path(folder) / "scenes", count, "bench")
    study = Study.begin(Path(folder) / "study", Plan("emoji-llava", str(Path(folder) / "scenes" / "pictures"), "emoji-llava"))
    _ = study.vlm, study.sae
    return study


def storage(count: int = 256) -> None:
    """(e) Bytes of a finished cache against the dense tensor that multimodal-sae makes of a picture before it keeps what is not 0."""
    with tempfile.TemporaryDirectory() as folder:
        study = begun(folder, count)
        cache.run(study, ARGUMENTS)
        held = Cache.open(study)
        size = sum(file.stat().st_size for file in (study.folder / "cache").rglob("*") if file.is_file())
        tokens = sum(len(held.sample(number).ids) for number in range(count)) / count
        dense = 4 * tokens * study.sae.d_sae
        print(
            f"{size / count / 1000:.1f} kB a picture, with tokens and top pictures; dense activations have {dense / 1000:.1f} kB",
            flush=True,
        )


def processes(count: int = 192 * CHUNK, scenes: int = 512) -> None:
    """(f) One command by two processes and by one, each with one thread, and by one with two. Start-up is what a study of one chunk takes."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        scene_files.write(folder, scenes, "bench")
        rows = "".join(f"{number % scenes:05}.png\n" for number in range(count))  # each scene several times, as samples of their own
        (folder / "pictures" / "metadata.csv").write_text(f"file_name\n{rows}")
        spent = {}
        for name, number, threads, some in (
            ("one process", 1, 1, count),
            ("two processes", 2, 1, count),
            ("one process of two threads", 1, 2, count // 4),
        ):
            start_up, spent[name] = (_command(folder, number, threads, each) for each in (CHUNK, some))
            sample = 1000 * (spent[name] - start_up) / (some - CHUNK)
            print(f"{some} samples, {name}: {spent[name]:.1f} s: {start_up:.1f} s to start, then {sample:.2f} ms a sample", flush=True)
    ratio = spent["one process"] / spent["two processes"]
    print(f"one process / two = {ratio:.2f}, start-up included (target 1.6 or more: {'met' if ratio >= 1.6 else 'MISSED'})", flush=True)


def _command(folder: Path, processes: int, threads: int, count: int) -> float:
    """Seconds that the command takes for so many samples, a study of its own."""
    port = str(free_port())
    launch = ["torch.distributed.run", "--master-addr", "127.0.0.1", "--master-port", port, "--nproc-per-node", str(processes), "-m"]
    about = ["--model", "emoji-llava", "--sae", "emoji-llava", "--data", f"{folder}/pictures", "--limit", str(count)]
    study = folder / f"{processes}-{threads}-{count}"
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", *(launch if processes > 1 else ()), "interp.study", "cache", str(study), *about],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        check=True,
    )
    return time.perf_counter() - start


PARTS = {"caching": caching, "large": large, "order": order, "memory": memory, "storage": storage, "processes": processes}
