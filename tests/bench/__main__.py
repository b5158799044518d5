"""Benchmarks: `python -m tests.bench lens|sae|steer|attention|concepts|study|load|gpu|peers [part ...]`. Every figure stands against a named baseline of the same run."""

import argparse
import importlib
from pathlib import Path

SUITES = ("lens", "sae", "steer", "attention", "concepts", "study", "load", "gpu", "peers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("part", nargs="*", help="only these parts (default: all)")
    gpu = parser.add_argument_group("gpu")
    gpu.add_argument("--model", action="append", default=[], help="only this model; may be given again (default: all)")
    gpu.add_argument(
        "--checkpoints", type=Path, help="write the random checkpoints here, and keep them (31 GB; default: a temporary folder)"
    )
    gpu.add_argument("--toy", action="store_true", help="tiny models on the CPU: shows that the suite works, measures nothing")
    args = parser.parse_args()
    suite = importlib.import_module(f".{args.suite}_bench", __package__)  # each by itself: one needs gradio and a browser, another a GPU
    if unknown := [
        name
        for given, known in ((args.part, suite.PARTS), (args.model, getattr(suite, "SHAPES", ())))
        for name in given
        if name not in known
    ]:
        parser.error(f"{args.suite} does not know {', '.join(unknown)}; its parts are {', '.join(suite.PARTS)}")
    if args.suite == "gpu":
        suite.run(args.part, models=args.model, folder=args.checkpoints, toy=args.toy)
        return
    for name in args.part or suite.PARTS:
        print(f"\n## {name}", flush=True)
        suite.PARTS[name]()


if __name__ == "__main__":
    main()
