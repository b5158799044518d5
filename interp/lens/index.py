"""Build an index of contexts for the contextual lens: `python -m interp.lens.index --model M --text FILE --target FOLDER`.

It can be stopped at any time and resumes where it was.
"""

import argparse
import shutil
from pathlib import Path

from tqdm import tqdm

from ..models.loading import load
from .build_index import PER_TOKEN, SIZE, built


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a preset, a folder or a hub repository")
    parser.add_argument("--quantize", default="auto", help="as in interp.load")
    parser.add_argument("--text", required=True, help="a file that is read line by line, or a folder of .txt files")
    parser.add_argument("--target", required=True, type=Path, help="the folder of the index")
    parser.add_argument(
        "--layers", type=int, nargs="+", help="layers of the text's states (default: four, up to three quarters of the depth)"
    )
    parser.add_argument("--size", type=int, default=SIZE, help="entries at most (default: %(default)s)")
    parser.add_argument("--per-token", type=int, default=PER_TOKEN, help="occurrences of a word at most (default: %(default)s)")
    parser.add_argument("--words", type=Path, help="a file of the only words to keep, one a line, the most wanted first")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    words = args.words.read_text(encoding="utf-8").split("\n") if args.words else None
    work = args.target / "part"
    with tqdm(desc="contexts") as bar:

        def show(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        vlm = load(args.model, quantize=args.quantize)
        index = built(vlm, args.text, args.layers, args.size, args.per_token, args.seed, words, work, show)
    index.save(args.target)
    shutil.rmtree(work)
    print(f"{len(index.vectors)} entries of {len(index.words)} words in {args.target}")  # noqa: T201 - the outcome


if __name__ == "__main__":
    main()
