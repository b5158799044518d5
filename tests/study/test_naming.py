"""The words on which answers agree, by hand."""

import itertools

import pytest

from interp.study.naming import Name, name_of, words


def test_the_words_that_most_answers_share_and_the_control_does_not_are_the_name():
    answers = [
        "a hammer on a white background.",
        "a hammer on a black background.",
        "a bell and a hammer on a white background.",
        "a pine.",
    ]
    control = ["a pine on a white background.", "a pine on a gray background."]
    assert name_of(answers, control) == Name("hammer", "a hammer on a white background.", 0.75)


def test_what_the_model_always_says_names_nothing():
    assert name_of(["a pine on a white background."] * 4, ["a pine on a white background."]) == Name("", "", 0.0)


def test_the_control_counts_by_its_share():
    answers = ["a dog."] * 3 + ["a cat."]
    assert name_of(answers, ["a dog."] + ["a fox."] * 3).score == 0.5
    assert name_of(answers, ["a dog."] * 2 + ["a fox."] * 3).text == ""


def test_several_words_come_in_the_order_of_the_answer_that_holds_them():
    answers = ["a shiny red car.", "a red car and a dog.", "one red car", "the car is red"]
    found = name_of(answers, ["a picture."])
    assert found.text == "red car"
    assert found.answer == "one red car"


def test_the_order_of_the_answers_does_not_matter():
    answers = ["an owl.", "an owl and a fox.", "a fox.", "an owl on a tree."]
    assert len({name_of(order, ["a tree."]) for order in itertools.permutations(answers)}) == 1


@pytest.mark.parametrize(("least", "text"), [(0.5, "owl fox"), (0.6, "owl"), (0.8, "")])
def test_the_least_share_decides(least, text):
    assert name_of(["an owl and a fox.", "an owl.", "an owl and a fox.", "a tree."], [], least).text == text


def test_nothing_said_names_nothing():
    assert name_of(["", ""], []).text == name_of([], []).text == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A T-shirt, a t-shirt and the OWL's nest!", ["t-shirt", "owl's", "nest"]),
        ("some glasses on a 7up_can", ["glasses", "7up", "can"]),
        ("Straße in München", ["strasse", "münchen"]),
        ("… — 🦊", []),
    ],
)
def test_words_are_told_apart(text, found):
    assert words(text) == found
