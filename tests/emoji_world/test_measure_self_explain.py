"""The table of how often the self explainer is right, on answers that are made up."""

import json

import torch

from interp.emoji_world.measure_self_explain import table
from interp.emoji_world.study_truth import Truth


def write(folder, answers):
    (folder / "answers").mkdir(parents=True)
    (folder / "settings.json").write_text('{"strengths": [0.5, 1.0]}')
    (folder / "control.json").write_text('["a picture"]')
    for feature, (plain, half, whole) in enumerate(answers):
        (folder / "answers" / f"{feature}.json").write_text(json.dumps({"0": [plain], "0.5": [half], "1": [whole]}))


def test_counts_what_is_named_right_alone_and_by_chance(tmp_path):
    write(
        tmp_path,
        [
            ("a picture", "a dog", "a dog"),  # right
            ("a cat", "a dog and a cat", "a dog"),  # right at 0.5, with a word too many
            ("a picture", "a picture", "a dog"),  # not named at 0.5, wrong at 1
            ("a picture", "an owl", "a fox"),  # right at 0.5
            ("a picture", "a picture", "a tree"),  # stands for nothing
            ("a picture", "a picture", "red"),  # stands for a colour, and is not counted
        ],
    )
    truth = Truth(("dog", "cat", "fox", "owl", "", "red"), torch.ones(6))
    head, _, *rows = table(tmp_path, truth, 0.5).splitlines()
    assert head.startswith("| strength | nouns: named | right | right and nothing else | right, names exchanged | others: named |")
    assert rows == [
        "| plain | 1 of 4 | 25.0% | 25.0% | 0.0% | 0.0% of 1 |",
        "| 0.5 | 3 of 4 | 75.0% | 50.0% | 0.0% | 0.0% of 1 |",
        "| 1 | 4 of 4 | 25.0% | 25.0% | 25.0% | 100.0% of 1 |",
        "| 0.5 and 1 | 4 of 4 | 75.0% | 50.0% | 25.0% | 100.0% of 1 |",
    ]
