"""How steering is measured: its scenes, what counts as done, its picture."""

import pytest

from interp.emoji_world.measure_steering import BLOCK, Row, added, cases, drawing, removed, swapped, table
from interp.emoji_world.world import EMOJI, ENGLISH


@pytest.fixture(scope="module")
def drawn():
    return list(cases(["dog", "pizza"], 3))


def test_the_scenes(drawn):
    assert [case.target for case in drawn] == ["dog"] * 3 + ["pizza"] * 3
    for case in drawn:
        assert set(case.nouns) == {case.target, case.other}
        assert case.new not in case.nouns
        assert case.patches
        assert case.free is None or (len(case.free) == BLOCK**2 and not [p for p in case.free if p in case.patches][BLOCK:])
    again = list(cases(["pizza"], 3))
    assert [case.nouns for case in again] == [case.nouns for case in drawn[3:]]  # whatever other nouns are measured


def test_what_counts_as_done(drawn):
    case = drawn[0]
    swap = [case.new if noun == "dog" else noun for noun in case.nouns]
    assert removed(case, [case.other]) == (True, True)
    assert removed(case, ["dog"]) == (False, False)
    assert added(case, [case.new, *case.nouns]) == (True, True)
    assert added(case, [case.new, "dog"]) == (True, False)
    assert swapped(case, swap) == (True, True)
    assert swapped(case, swap[::-1]) == (False, True)


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        ("a dog and a pizza on a blue background.", True),
        ("a tractor, an octopus and an umbrella on an orange background.", True),
        ("a sun and a bed on a dog background.", False),
        ("dog dog dog", False),
        ("", False),
    ],
)
def test_what_is_a_description(text, readable):
    assert EMOJI.describes(text) == readable
    assert ENGLISH.describes(text.capitalize()) == readable


def test_the_nouns_of_an_answer():
    assert EMOJI.named("a dog, an owl and a dog on a blue background.") == ["dog", "owl", "dog"]
    assert ENGLISH.named("A hot dog and a dog on a red background.") == ["hot dog", "dog"]
    assert ENGLISH.named("There are two objects.") == []


def test_scenes_of_the_other_world():
    case = next(cases(["traffic light"], 1, world=ENGLISH))
    assert case.target == "traffic light"
    assert case.other in ENGLISH.nouns
    assert case.patches


def test_the_table_and_the_picture():
    rows = [Row("0.5", 10, 0.25, 1.0, 0.1, 1.0), Row("1", 10, 0.5, 0.0, 3.0, 0.5)]
    assert "| 1 | 10 | 50.0% | 0.0% | 3.00 | 50.0% |" in table(rows)
    svg = drawing([("title", "label", rows)] * 2)
    assert svg.count("<polyline") == 8
    assert svg.count("<text") == svg.count("</text>")
    assert svg.strip().endswith("</svg>")
