"""The server that answers from the true contents of scenes recognises what it is shown, and says only that."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from interp.emoji_world import scene_files
from interp.emoji_world.true_answers import TrueAnswers
from interp.emoji_world.words import WORDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("scenes")
    scene_files.write(target, 30, "a test")
    return target


@pytest.fixture(scope="module")
def answers(folder):
    return TrueAnswers(folder)


def lit(folder, name, word):
    """A picture that is bright where a word lies, as an explainer is shown it."""
    picture = Image.open(folder / "pictures" / name)
    mask = np.asarray(Image.open(folder / "masks" / word / f"{name}.png")) > 0
    return Image.fromarray((np.asarray(picture) * np.where(mask, 1, 0.25)[..., None]).astype(np.uint8))


def test_files_agree_with_each_other(folder):
    truth = json.loads((folder / "truth.json").read_text())
    assert sorted(truth) == [file.name for file in sorted((folder / "pictures").iterdir())]
    for name, words in list(truth.items())[:5]:
        shares = scene_files.read(folder, [name])[0]
        assert shares.sum(-1) == pytest.approx(torch.ones(64), abs=0.01)
        for word, share in words.items():
            mask = torch.from_numpy(np.asarray(Image.open(folder / "masks" / word / f"{name}.png")) > 0).float()
            coarse = mask.view(8, 12, 8, 12).mean((1, 3)).flatten()
            assert (coarse - torch.tensor(share)).abs().mean() < 0.03


def test_names_what_is_bright(folder, answers):
    truth = json.loads((folder / "truth.json").read_text())
    right = [
        answers.answer([lit(folder, name, word)], "What have these in common?") == f"[EXPLANATION]: {word}"
        for name, words in truth.items()
        for word in words
        if max(words[word]) > 0.9
    ]
    assert len(right) > 40
    assert np.mean(right) > 0.9


def test_several_pictures_have_what_they_share(folder, answers):
    truth = json.loads((folder / "truth.json").read_text())
    word = max(WORDS[120:], key=lambda color: sum(color in words for words in truth.values()))
    names = [name for name, words in truth.items() if word in words][:3]
    assert answers.common([lit(folder, name, word) for name in names]) == word
    others = [next(each for each in truth[name] if each != word) for name in names]
    if len(set(others)) == 3:
        assert answers.common([lit(folder, name, other) for name, other in zip(names, others, strict=True)]) in {"", *others}


def test_judges_by_what_a_picture_shows(folder, answers):
    truth = json.loads((folder / "truth.json").read_text())
    name, words = next(iter(truth.items()))
    picture = Image.open(folder / "pictures" / name)
    assert answers.answer([picture], f'Does this picture show what "{max(words, key=lambda w: max(words[w]))}" names?') == "yes"
    assert answers.answer([picture], f'Does this picture show what "{next(w for w in WORDS if w not in words)}" names?') == "no"
    assert answers.answer([picture], 'Does this picture show what "an elephant in the room" names?') == "no"
    assert answers.answer([], "what a unit responds to in pictures:\n\ndog") == "[ANSWER] dog\n[CLASS] object"
