import random

import pytest

from interp.emoji_world.words import (
    CHAT_TEMPLATE,
    COLORS,
    NOUNS,
    NUMBERS,
    PROMPT,
    QUESTIONS,
    WORDS,
    ask,
    build_tokenizer,
    describe,
    with_article,
)

NAMES = [noun for noun, _ in NOUNS]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_the_nouns():
    assert len(NOUNS) == len(set(NAMES)) == 120
    assert not set(NAMES) & set(COLORS)  # "orange" the fruit would be a background's colour
    assert WORDS[:120] == tuple(NAMES)
    assert all(names for _, names in NOUNS)


@pytest.mark.parametrize(
    ("word", "phrase"),
    [
        ("dog", "a dog"),
        ("apple", "an apple"),
        ("jeans", "some jeans"),
        ("unicorn", "a unicorn"),
        ("octopus", "an octopus"),
        ("red", "a red"),
    ],
)
def test_articles(word, phrase):
    assert with_article(word) == phrase


def test_descriptions():
    assert describe(["dog"], "blue") == "a dog on a blue background."
    assert describe(["dog", "apple"], "orange") == "a dog and an apple on an orange background."
    assert describe(["dog", "jeans", "cat"], "red") == "a dog, some jeans and a cat on a red background."


@pytest.mark.parametrize("wording", range(4))
@pytest.mark.parametrize(
    ("kind", "answer"),
    [("describe", "a dog and a cat on a blue background."), ("left", "a dog."), ("right", "a cat."), ("count", "two."), ("color", "blue.")],
)
def test_answers_are_true(kind, answer, wording):
    assert ask(kind, ["dog", "cat"], "blue", random.Random(0), wording) == (QUESTIONS[kind][wording], answer)


def test_exists_is_true_and_balanced():
    rng = random.Random(0)
    answers = []
    for _ in range(2000):
        question, answer = ask("exists", ["dog", "jeans"], "blue", rng)
        present = question in {"Is there a dog?", "Is there some jeans?"}
        assert answer == ("yes." if present else "no.")
        answers.append(answer)
    assert 0.45 < answers.count("yes.") / len(answers) < 0.58


def test_the_main_wordings_are_the_ones_the_app_shows():
    assert {kind: wordings[0] for kind, wordings in QUESTIONS.items()} == {
        "describe": "Describe the image.",
        "left": "What is on the left?",
        "right": "What is on the right?",
        "count": "How many objects are there?",
        "color": "What color is the background?",
        "exists": "Is there {a_noun}?",
    }


@pytest.mark.parametrize("word", [*WORDS, *NUMBERS, "yes", "no", "background", "and", "a", "an", "some"])
def test_every_word_of_an_answer_is_one_token_after_a_space(tokenizer, word):
    (token,) = tokenizer(f" {word}", add_special_tokens=False).input_ids
    assert tokenizer.decode([token]) == f" {word}"
    assert tokenizer.convert_ids_to_tokens(token) == f"Ġ{word}"


def test_questions_fall_to_words_and_not_to_letters(tokenizer):
    for kind, wordings in QUESTIONS.items():
        for wording in wordings:
            question = ask(kind, ["dog"], "red", random.Random(1), wordings.index(wording))[0]
            pieces = tokenizer.convert_ids_to_tokens(tokenizer(question, add_special_tokens=False).input_ids)
            assert all(len(piece.lstrip("Ġ")) > 1 or piece.lstrip("Ġ") in {"?", ".", "a"} for piece in pieces), pieces


@pytest.mark.parametrize("text", ["Zebra crossing, 7 · 8!", "é 🐶\n\ttab", "  two  spaces ", "dogs", "ASSISTANT", "<b>&amp;</b>"])
def test_any_text_survives(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.unk_token_id not in ids


def test_special_tokens(tokenizer, tmp_path):
    ids = tokenizer("a dog</s>").input_ids
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer("<image>", add_special_tokens=False).input_ids == [tokenizer.image_token_id]
    assert (
        len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.image_token_id}) == 5
    )
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again("Is there a dog? é").input_ids == tokenizer("Is there a dog? é").input_ids


def test_the_chat_template_writes_the_prompt_that_was_trained(tokenizer):
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is there a dog?"}]}]
    text = tokenizer.apply_chat_template(turn, chat_template=CHAT_TEMPLATE, add_generation_prompt=True, tokenize=False)
    assert text == PROMPT.format(image="<image>", question="Is there a dog?")
