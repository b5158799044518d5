"""Studies: caching against the bare forward pass, a large SAE against its encoder product, memory and bytes over pictures, two processes against one."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import interp
from interp.concepts.samples import Sample
from interp.emoji_world import scene_files
from interp.steering.generation import joined
from interp.study import cache
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


def memory(width: int = 4096, features: int = 131_072, grid: int = 24) -> None:
    """(c) Peak memory of a chunk of pictures with the large SAE, and of all of caching over the number of pictures, in processes of their own."""
    code = """
import torch
from tests.bench import study_bench as bench, tools, sae_bench
from interp.study.cache import encoded
vlm, sae = tools.random_llava({width}, 1, grid={grid}), sae_bench.random_sae({width}, {features})
given = bench.samples([torch.randint(256, (14 * {grid}, 14 * {grid}, 3), dtype=torch.uint8).numpy() for _ in range({count})])
encoded(vlm, sae, given[:1], 0, None)
print(tools.peak_extra_mib(lambda: encoded(vlm, sae, given, 0, None)))
"""
    for count in (1, 4):
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


def begun(folder: str, count: int) -> Study:
    """A study of so many scenes, with its model loaded."""
    scene_files.write(Path(folder) / "scenes", count, "bench")
    study = Study.begin(Path(folder) / "study", Plan("emoji-llava", str(Path(folder) / "scenes" / "pictures"), "emoji-llava"))
    _ = study.vlm, study.sae
    return study


def storage(count: int = 256) -> None:
    """(d) Bytes of a finished cache against the dense tensor that multimodal-sae makes of a picture before it keeps what is not 0."""
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


def processes(count: int = 64 * CHUNK) -> None:
    """(e) The same command with two processes and with one, each with one thread; with one process that has two threads beside them."""
    with tempfile.TemporaryDirectory() as folder:
        scene_files.write(Path(folder), count, "bench")
        about = ["--model", "emoji-llava", "--sae", "emoji-llava", "--data", f"{folder}/pictures"]
        spent = {}
        for name, number, threads in (("one process", 1, 1), ("one process, two threads", 1, 2), ("two processes", 2, 1)):
            launch = [
                "torch.distributed.run",
                "--master-addr",
                "127.0.0.1",
                "--master-port",
                str(free_port()),
                "--nproc-per-node",
                str(number),
            ]
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", *launch, "-m", "interp.study", "cache", f"{folder}/{number}{threads}", *about],
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                capture_output=True,
                check=True,
            )
            spent[name] = time.perf_counter() - start
            print(f"{name}: {spent[name]:.1f} s, start included", flush=True)
        ratio = spent["one process"] / spent["two processes"]
        print(f"{count} pictures: one process / two = {ratio:.2f} (target 1.6 or more: {'met' if ratio >= 1.6 else 'MISSED'})", flush=True)


PARTS = {"caching": caching, "large": large, "memory": memory, "storage": storage, "processes": processes}
