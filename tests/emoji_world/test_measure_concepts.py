"""How steering by concepts is measured: its tasks, how a setting is chosen, and that the tables are made."""

import random
from types import SimpleNamespace

import pytest
import torch

import interp
from interp.emoji_world import concept_tasks, concept_truth, measure_concepts
from interp.emoji_world.concept_tasks import (
    TASKS,
    about,
    constant,
    drawn,
    places_before_names,
    recall,
    type_of,
)
from interp.emoji_world.measure_concepts import Choice, choose, controls, percent, style_words
from interp.emoji_world.train_adapter import places_first
from interp.emoji_world.words import describe
from tests.concepts.test_learn import held

BY_NAME = {task.name: task for task in TASKS}


def test_questions_have_true_answers():
    (scene,) = drawn("any", 1, 2)
    left, right = scene.nouns
    rng = random.Random(0)
    assert about("count", scene, rng)[1] == "two."
    assert about("color", scene, rng)[1] == f"{scene.color}."
    assert left in about("left", scene, rng)[1]
    assert right in about("right", scene, rng)[1]
    assert {left, right} & set(about("present", scene, rng)[0].removesuffix("?").split())
    assert not {left, right} & set(about("absent", scene, rng)[0].removesuffix("?").split())
    assert (about("present", scene, rng)[1], about("absent", scene, rng)[1]) == ("yes.", "no.")


def test_answers_have_types():
    assert [type_of(text) for text in ("yes.", "no", "three.", "blue.", "a dog.", "blue blue", "")] == [
        *("yes/no", "yes/no", "number", "color"),
        *("", "", ""),
    ]


def test_styles_and_nouns_are_counted():
    nouns = ["dog", "key", "owl"]
    assert places_before_names(places_first(nouns, "red"))
    assert not places_before_names(describe(nouns, "red"))
    assert not places_before_names("")
    assert style_words(places_first(nouns, "red")) == 3
    assert style_words(describe(nouns, "red")) == 1
    assert style_words("a reddish leftover") == 0, "whole words only"
    (scene,) = drawn("any", 1, 2)
    assert recall([scene], [describe(scene.nouns, "red")]) == 1
    assert recall([scene] * 2, [scene.nouns[0], ""]) == 0.25


@pytest.mark.parametrize("task", TASKS, ids=BY_NAME)
def test_of_each_pair_the_first_asks_for_what_is_there_and_the_second_for_what_is_wanted(task):
    base, target = task.pairs("any", 6)
    for scenes, kinds, holds in ((base, task.asks[0], task.stayed), (target, task.asks[1], task.reached)):
        answers = [about(kinds[i % len(kinds)], scene, random.Random(i))[1] for i, scene in enumerate(scenes)]
        assert all(map(holds, answers))
        assert not any(map(task.reached if holds is task.stayed else task.stayed, answers))
    assert [set(one.nouns) <= set(other.nouns) for one, other in zip(base, target, strict=True)] == [True] * 6


def test_other_questions_are_of_other_kinds():
    assert BY_NAME["yes/no → number"].others == ["count", "color", "left", "right"]
    assert BY_NAME["yes → no"].others == ["count", "color", "left", "right"]
    assert BY_NAME["blue → red"].others == ["present", "absent", "count", "left", "right"]
    kinds, kept = BY_NAME["blue → red"].same_kind
    assert (kinds, kept("green."), kept("blue.")) == (["color"], True, False)


def test_the_fine_vector_leads_from_the_source_to_the_target():
    make = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(3, 32, generator=make)
    rows = centres.repeat_interleave(10, 0) + torch.randn(30, 32, generator=make)
    states = held(rows.float())
    found = interp.learn_concepts(states, 3, "k-means", seeds=1)
    dictionary = concept_tasks.Dictionary({5: found}, ["yes."] * 10 + ["no."] * 10 + ["two."] * 10)
    vector = dictionary.vector(5, BY_NAME["yes → no"])
    torch.testing.assert_close(vector, rows[10:20].mean(0) - rows[:10].mean(0))
    assert concept_tasks.Dictionary({5: found}, ["yes."] * 30).vector(5, BY_NAME["yes → no"]) is None  # no concept stands for "no"


def fake_room(reached, lost):
    """A room in which a push of `amount` along 1 at a layer gives what the two functions say."""
    return SimpleNamespace(
        reached=lambda layer, push: reached(layer, float(push(None))),
        stays=lambda layer, push: 1.0 if push is None else 1 - lost(layer, float(push(None))),
    )


def test_a_setting_is_chosen_for_what_it_reaches_and_leaves():
    pushes = {layer: constant(torch.tensor(1.0)) for layer in (2, 5)}
    strong = fake_room(lambda layer, amount: min(1, amount * layer / 10), lambda _layer, amount: 0.02 * amount)
    choice, by_layer = choose(pushes, strong)
    assert choice == Choice(5, 2.0)  # the only one that reaches the aim
    assert by_layer == {2: 0.2, 5: 0.5}
    costly = fake_room(lambda layer, amount: min(1, amount * layer / 10), lambda layer, _amount: 0.04 if layer == 2 else 0.3)
    assert choose(pushes, costly)[0] == Choice(5, 2.0)  # 1 - 0.3 is more than 0.4 - 0.04
    easy = fake_room(lambda _layer, amount: min(1, amount), lambda _layer, amount: 0.05 if amount > 1 else 0)
    assert choose(pushes, easy)[0].amount == 1  # the least that reaches the aim
    hopeless = fake_room(lambda layer, amount: min(1, amount * layer / 10), lambda _layer, amount: 0.2 * amount)
    assert choose(pushes, hopeless)[0] == Choice(5, 2.0)  # 1 - 0.4 is the most


def test_controls_are_a_random_and_the_opposite_push():
    seen = []

    def measure(push):
        seen.append(push(None))
        return float(len(seen))

    random, wrong = controls(constant(torch.tensor([3.0, 4.0])), measure)
    assert (random, wrong) == (2, 4)
    assert torch.equal(seen[-1], torch.tensor([-3.0, -4.0]))
    for push in seen[:-1]:
        assert float(push.norm()) == pytest.approx(5)


def test_shares_as_cells():
    assert percent(0.5, None, 1) == "50 | - | 100"


def cells(lines, start):
    (row,) = [line for line in lines if line.startswith(start)]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_whole_measurement_in_small(emoji_vlm, monkeypatch):
    monkeypatch.setattr(concept_tasks, "LAYERS", (5, 6))
    monkeypatch.setattr(concept_truth, "LAYERS", (6,))
    monkeypatch.setattr(concept_tasks, "CONCEPTS", 8)
    monkeypatch.setattr(measure_concepts, "AMOUNTS", (1.0,))
    by_layer, *rows = measure_concepts.Answers(emoji_vlm, 12).rows(BY_NAME["blue → red"])
    for kind in ("coarse", "learned"):
        _, _, _, plain, steered, random, wrong, *_ = cells(rows, f"| blue → red | {kind} |")
        assert int(steered) > max(map(int, (plain, random, wrong)))
    assert len(cells([by_layer], "| blue → red |")) == 3
    assert measure_concepts.answer_tables([[by_layer, *rows]])[-1] == by_layer
    monkeypatch.setattr(concept_truth, "NOUNS", 4)
    still = concept_truth.shift_table(emoji_vlm, emoji_vlm, 4)
    assert any("| 0.00 |" in line for line in still)
    pure = concept_truth.purity_table(emoji_vlm, 12)
    _, _, nouns, shuffled, *_ = cells(pure, "| k-means | 6 |")
    assert int(nouns) > int(shuffled)
