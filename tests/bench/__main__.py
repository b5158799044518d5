"""Benchmarks: `python -m tests.bench lens|sae|steer|load [part ...]`. Every figure is a ratio against a named baseline of the same run."""

import argparse

from . import lens_bench, load_bench, sae_bench, steer_bench

SUITES = {"lens": lens_bench.PARTS, "sae": sae_bench.PARTS, "steer": steer_bench.PARTS, "load": load_bench.PARTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("part", nargs="*", help="only these parts (default: all)")
    args = parser.parse_args()
    parts = SUITES[args.suite]
    for name in args.part or parts:
        print(f"\n## {name}", flush=True)
        parts[name]()


if __name__ == "__main__":
    main()
