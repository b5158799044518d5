"""The closed vocabulary of emoji world, its tokenizer, and the questions and answers about a scene.

A scene is described here by its nouns from left to right and the name of its background colour.
"""

import csv
import random
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

NOUNS: tuple[tuple[str, str], ...] = tuple(
    (row["noun"], row["icon_names"]) for row in csv.DictReader((Path(__file__).parent / "nouns.tsv").open(encoding="utf-8"), delimiter="\t")
)
"""(word, comma-separated icon names, the first that a set holds is drawn) for each of the 120 nouns."""

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (206, 36, 40),
    "orange": (245, 140, 30),
    "yellow": (250, 220, 60),
    "green": (50, 150, 60),
    "blue": (40, 90, 205),
    "purple": (120, 50, 160),
    "pink": (250, 160, 195),
    "brown": (115, 70, 40),
    "black": (22, 22, 24),
    "white": (246, 246, 244),
    "gray": (135, 138, 142),
}
"""Background colours: word and central RGB value (scenes vary around it)."""

NOUN_WORDS = tuple(noun for noun, _ in NOUNS)
WORDS: tuple[str, ...] = NOUN_WORDS + tuple(COLORS)
"""What a patch can be: the nouns, then the colours. The index into this tuple is the patch's class."""

NUMBERS = ("zero", "one", "two", "three")
_UNCOUNTABLE = {"bread", "cheese", "glasses", "grapes", "jeans", "popcorn", "scissors"}

# The first wording of each question is the one the model is measured on; the others are what people may type instead.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "describe": (
        "Describe the image.",
        "Describe the picture.",
        "Describe this image.",
        "What is in the image?",
        "What is in this picture?",
        "What do you see?",
        "What is this?",
        "Describe the image",
        "describe the image",
        "What do you see in the image?",
    ),
    "left": ("What is on the left?", "What is on the left side?", "what is on the left", "Which object is on the left?"),
    "right": ("What is on the right?", "What is on the right side?", "what is on the right", "Which object is on the right?"),
    "count": (
        "How many objects are there?",
        "How many objects are in the image?",
        "How many things are there?",
        "how many objects are there",
        "How many objects do you see?",
    ),
    "color": (
        "What color is the background?",
        "What colour is the background?",
        "What is the color of the background?",
        "what color is the background",
        "Which color is the background?",
    ),
    "exists": (
        "Is there {a_noun}?",
        "Is there {a_noun} in the image?",
        "is there {a_noun}",
        "Do you see {a_noun}?",
        "Is there {a_noun} in the picture?",
    ),
}

PROMPT = "USER: {image}\n{question} ASSISTANT:"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% elif part['type'] == 'text' %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def with_article(noun: str) -> str:
    """`dog` → `a dog`, `apple` → `an apple`, `jeans` → `some jeans`."""
    if noun in _UNCOUNTABLE:
        return f"some {noun}"
    vowel_sound = noun[0] in "aeiou" and noun != "unicorn"
    return f"{'an' if vowel_sound else 'a'} {noun}"


def describe(nouns: Sequence[str], color: str) -> str:
    """The answer to "Describe the image.": nouns from left to right, then the background."""
    things = [with_article(noun) for noun in nouns]
    listing = things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"
    return f"{listing} on {with_article(color)} background."


def ask(kind: str, nouns: Sequence[str], color: str, rng: random.Random, wording: int = 0) -> tuple[str, str]:
    """A question of this kind about the scene and its true answer. `exists` asks for a present noun half of the time."""
    question = QUESTIONS[kind][wording]
    if kind == "describe":
        return question, describe(nouns, color)
    if kind in {"left", "right"}:
        return question, f"{with_article(nouns[0] if kind == 'left' else nouns[-1])}."
    if kind == "count":
        return question, f"{NUMBERS[len(nouns)]}."
    if kind == "color":
        return question, f"{color}."
    noun = rng.choice(nouns) if rng.random() < 0.5 else rng.choice(NOUNS)[0]
    return question.format(a_noun=with_article(noun)), "yes." if noun in nouns else "no."


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level tokenizer: every word of emoji world is one token (with its leading space), all other text falls back to bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    text = " ".join([" ".join(q) for q in QUESTIONS.values()] + [describe([n for n, _ in NOUNS], c) for c in COLORS])
    text = text.replace("{a_noun}", "a an some") + " " + " ".join(NUMBERS) + " yes no USER ASSISTANT"
    words = sorted({word.strip(".,?{}") for word in text.split()})
    starts = {q.split()[0] for wordings in QUESTIONS.values() for q in wordings} | {"USER"}
    pieces = special + alphabet + [f"Ġ{word}" for word in words] + sorted(starts)
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
