"""The text that the lenses of the embedded models are trained on: `python -m interp.emoji_world.lens_text --help`.

No picture is drawn or read. A picture's place is taken by a raster: for each patch, row by row, a word that could stand there. Rasters teach a
lens what the neighbours of a patch do to its state; in ordinary text a word is seldom surrounded by itself.

- `emoji`: rasters of scenes with a question and its answer, in the chat format of emoji-llava.
- `english`: passages of an English text, and rasters of that text's own words, so that no word is favoured because a picture may show it.
"""

import argparse
import random
import re
from collections import Counter
from pathlib import Path

from .architecture import CELLS
from .conversations import sample_questions
from .scenes import draw, sample_scene
from .sprites import SEEN_VENDORS, load_sprites
from .words import PROMPT, WORDS

LINES = 12  # of English text in a passage
RASTERS = 0.4  # of the passages
LEAST = 5  # times that a word occurs in the text


def emoji_text(scenes: int) -> str:
    """Rasters of that many scenes, each with a question and its answer."""
    rng, sprites, passages = random.Random("lens text"), load_sprites(), []
    for _ in range(scenes):
        scene = sample_scene(rng, range(len(SEEN_VENDORS)))
        own = draw([scene], sprites, side=4 * CELLS, cells=CELLS)[1][0].argmax(-1).tolist()
        question, answer = rng.choice(sample_questions(scene, rng, 4))
        passages.append(f"{PROMPT.format(image=''.join(f' {WORDS[i]}' for i in own), question=question)} {answer}")
    return "\n\n".join(passages)


def english_text(text: str) -> str:
    """Passages of a text of one sentence a line, and rasters of its words."""
    rng = random.Random("lens text")
    lines = [line for line in text.split("\n") if line.strip()]
    counts = Counter(re.findall(r"[a-z]{3,}", text))
    words = sorted(word for word, count in counts.items() if count >= LEAST)
    passages = ["\n".join(lines[at : at + LINES]) for at in range(0, len(lines), LINES)]
    passages += [raster(words, rng) for _ in range(round(len(passages) * RASTERS / (1 - RASTERS)))]
    rng.shuffle(passages)
    return "\n\n".join(passages)


def raster(words: list[str], rng: random.Random) -> str:
    """A background word, and one to three rectangles of other words on it, row by row."""
    background, *things = rng.sample(words, rng.randint(2, 4))
    cells = [[background] * CELLS for _ in range(CELLS)]
    for thing in things:
        (top, bottom), (left, right) = (sorted(rng.sample(range(CELLS + 1), 2)) for _ in range(2))
        for row in cells[top:bottom]:
            row[left:right] = [thing] * (right - left)
    return "".join(f" {word}" for row in cells for word in row)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the text that the lenses of the embedded models are trained on.")
    parser.add_argument("kind", choices=["emoji", "english"])
    parser.add_argument("--target", type=Path, required=True, help="text file to write")
    parser.add_argument("--scenes", type=int, default=2000, help="of emoji")
    parser.add_argument("--text", type=Path, help="an English text of one sentence a line, for english")
    args = parser.parse_args()
    if (args.kind == "english") != (args.text is not None):
        parser.error("--text belongs to english, which needs it")
    made = emoji_text(args.scenes) if args.kind == "emoji" else english_text(args.text.read_text(encoding="utf-8"))
    args.target.write_text(made, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
