"""How steering is measured: its scenes, what counts as done, its picture."""

import pytest

from interp.emoji_world.measure_steering import BLOCK, DESCRIPTION, Row, added, cases, drawing, named, removed, swapped, table


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
    assert bool(DESCRIPTION.fullmatch(text)) == readable
    assert named("a dog, an owl and a dog on a blue background.") == ["dog", "owl", "dog"]


def test_the_table_and_the_picture():
    rows = [Row("0.5", 10, 0.25, 1.0, 0.1, 1.0), Row("1", 10, 0.5, 0.0, 3.0, 0.5)]
    assert "| 1 | 10 | 50.0% | 0.0% | 3.00 | 50.0% |" in table(rows)
    svg = drawing([("title", "label", rows)] * 2)
    assert svg.count("<polyline") == 8
    assert svg.count("<text") == svg.count("</text>")
    assert svg.strip().endswith("</svg>")
