"""Write the text that the index of contexts of `emoji-llava` is built from: `python -m interp.emoji_world.sentences FILE`.

Questions and answers as it was taught them, of scenes drawn at random. Then
`python -m interp.lens.index --model emoji-llava --text FILE --layers -1 0 3 6 --per-token 3 --target assets/emoji-llava-lenses/contextual`.
"""

import argparse
import random
from pathlib import Path

from .scenes import sample_scene
from .sprites import SEEN_VENDORS
from .words import PROMPT, QUESTIONS, ask

SCENES = 3000


def sentences() -> list[str]:
    """One question of any kind about each scene, and its answer, in the chat template."""
    rng = random.Random("sentences")
    lines = []
    for _ in range(SCENES):
        scene = sample_scene(rng, range(len(SEEN_VENDORS)))
        question, answer = ask(rng.choice(list(QUESTIONS)), scene.nouns, scene.color, rng)
        lines.append(PROMPT.format(image="", question=question).replace("\n", "") + f" {answer}")
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.parse_args().file.write_text("\n".join(sentences()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
