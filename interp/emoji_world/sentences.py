"""Write the text that the indices of contexts of the embedded models are built from: `python -m interp.emoji_world.sentences WORLD FOLDER`.

`emoji`: questions and answers as `emoji-llava` was taught them, of scenes drawn at random. `english`: plain sentences about every noun and colour
of `smol-llava`, and with `--more FILE` those lines of another English text that hold none of them; words.txt then lists the nouns and colours,
and the most frequent words of these lines. The indices are built by

    python -m interp.lens.index --model emoji-llava --text FOLDER/text --layers -1 0 3 6 --per-token 3 --target ...
    python -m interp.lens.index --model smol-llava --text FOLDER/text --words FOLDER/words.txt --layers -1 0 7 14 --per-token 1 --size 3000 --target ...
"""

import argparse
import collections
import random
import re
from pathlib import Path

from . import english as english_world
from .scenes import sample_scene
from .sprites import SEEN_VENDORS
from .words import PROMPT, QUESTIONS, ask
from .world import ENGLISH

SCENES = 3000
FREQUENT = 1000  # words of the other text
NOUN_FRAMES = (
    "The children drew {} on the wall with chalk.",
    "There is {} next to the window, and nobody knows why.",
    "We found {} at the market last week.",
    "In the old photograph you can see {} in front of the house.",
    "She told us a long story about {} and a king.",
    "Nobody in the village had ever seen {} before.",
    "He keeps a small picture of {} on his desk.",
    "For her birthday she wished for {} and nothing else.",
    "On the first page of the book there is {} in bright colours.",
    "The sign above the door shows {} under a pointed roof.",
)
COLOR_FRAMES = (
    "The wall behind the table was painted {} last summer.",
    "She wore a {} dress to the party.",
    "The sky turned {} just before the storm.",
    "They stood in front of a plain {} background.",
    "The paper is {} on one side only.",
)
_GRAMMAR = re.compile(
    r"(about|after|all|also|and|another|any|are|been|being|but|can|could|did|does|done|for|from|had|has|have|her|his|how|into|its|may|might|must|"
    r"not|often|one|other|our|out|over|shall|she|should|some|such|than|that|the|their|them|then|there|these|they|this|those|through|upon|used|via|"
    r"was|were|what|when|where|which|who|why|will|with|without|would|you|your)"
)


def emoji() -> list[str]:
    """One question of any kind about each scene, and its answer, in the chat template."""
    rng = random.Random("sentences")
    lines = []
    for _ in range(SCENES):
        scene = sample_scene(rng, range(len(SEEN_VENDORS)))
        question, answer = ask(rng.choice(list(QUESTIONS)), scene.nouns, scene.color, rng)
        lines.append(PROMPT.format(image="", question=question).replace("\n", "") + f" {answer}")
    return lines


def english() -> list[str]:
    """A sentence of every frame about every noun and colour, in a random order."""
    colors = ENGLISH.words[len(ENGLISH.nouns) :]
    lines = [frame.format(english_world.a(noun)) for noun in ENGLISH.nouns for frame in NOUN_FRAMES]
    lines += [frame.format(color) for color in colors for frame in COLOR_FRAMES]
    random.Random("sentences").shuffle(lines)
    return lines


def without_the_world(text: str) -> tuple[list[str], list[str]]:
    """The lines of another text that hold no noun and no colour of the world, and the most frequent words of these lines."""
    own = {piece for word in ENGLISH.words for piece in word.split()}
    words_of = {line: set(re.findall(r"\b[a-z]{3,}\b", line.lower())) for line in text.splitlines()}
    lines = [line for line, words in words_of.items() if words and not words & own]
    counts = collections.Counter(word for line in lines for word in words_of[line] if not _GRAMMAR.fullmatch(word))
    return lines, [word for word, _ in counts.most_common(FREQUENT)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", choices=("emoji", "english"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--more", type=Path, help="a file of English sentences, one a line")
    args = parser.parse_args()
    lines, more, frequent = emoji() if args.world == "emoji" else english(), list[str](), list[str]()
    if args.more:
        more, frequent = without_the_world(args.more.read_text(encoding="utf-8"))
    (args.folder / "text").mkdir(parents=True, exist_ok=True)
    (args.folder / "text" / "sentences.txt").write_text("\n".join([*lines, *more]) + "\n", encoding="utf-8")
    if args.world == "english":
        (args.folder / "words.txt").write_text("\n".join([*ENGLISH.words, *frequent]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
