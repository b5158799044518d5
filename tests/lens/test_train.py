import json

import pytest
import torch

import interp
from interp import EMBED, InterpError, Translators
from interp.lens import samples, train
from interp.lens.fit import fit, own_token_loss
from interp.lens.samples import collect, pieces
from interp.lens.train import Recipe
from tests import tiny
from tests.conftest import PROMPT

WORDS = ["dog", "cat", "boat", "red", "image", "on", "and", "the", "a", "in", "zebra", "blue"]


@pytest.fixture(scope="module")
def text():
    make = torch.Generator().manual_seed(0)
    drawn = [[WORDS[i] for i in torch.randint(len(WORDS), (9,), generator=make)] for _ in range(700)]
    return "\n\n".join(" ".join(words) for words in drawn)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(samples, "SHARD", 64)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


def recipe(kind, **changes):
    return Recipe(kind, "words", **({"positions": 1500, "held_out": 300, "rank": 16, "steps": 150} | changes))


def test_a_token_lens_reads_the_tokens_of_text_it_has_not_seen(emoji_vlm, text, tmp_path):
    """A trained model: the head of a random one can say hardly any word with confidence."""
    on, held = collect(emoji_vlm, text, tmp_path, 1500, 300)
    desk = train._Desk(emoji_vlm, recipe("token", rank=None, steps=300), on, held)
    move, told = desk.fit(2)
    assert told["top1"] > 0.8
    assert told["raw_top1"] < 0.4
    trace = emoji_vlm.trace(tiny.noise(96, 96), PROMPT, answer="a dog and a cat on a red dog")
    lens = Translators("token", {2: move}, "", emoji_vlm.d_model, emoji_vlm.n_layers, "")
    rows = [i for i, token in enumerate(trace.tokens[:-1]) if token.kind == "answer"]
    read = interp.token_lens(trace, lens, top_k=1, positions=rows).ids[0, :, 0].tolist()
    assert sum(i == trace.tokens[row].id for i, row in zip(read, rows, strict=True)) >= 0.8 * len(rows)


def test_a_tuned_lens_is_nearer_to_the_model_than_the_raw_lens(vlm, text, work):
    lens = train.train(vlm, text, work, recipe("tuned"))
    figures = lens.figures["layers"]
    assert set(figures) == {"-1", "0", "1"}
    assert lens.maps[0].up.shape == (64, 16)
    for figure in figures.values():
        assert figure["kl"] < 0.7 * figure["raw_kl"]
        assert figure["top1"] > figure["raw_top1"]


@pytest.mark.parametrize("rank", [None, 4])
def test_steps_lower_the_loss_and_none_leave_the_identity(vlm, text, work, rank):
    on, _ = collect(vlm, text, work, 1500, 300)
    states, every = on.layer(1), torch.arange(len(on))
    loss = own_token_loss(vlm.unembed, on.ids, vlm.head.weight.shape[0])
    at = [loss(fit(states, loss, rank, steps, 0)(states), every).item() for steps in (0, 40, 80)]
    assert at == sorted(at, reverse=True)
    torch.testing.assert_close(fit(states, loss, rank, 0, 0)(states), states)


def test_a_stopped_run_goes_on_to_the_same_result(vlm, text, tmp_path, monkeypatch):
    whole = train.train(vlm, text, tmp_path / "whole", recipe("tuned"))
    fit, reads = train._Desk.fit, samples._states
    calls = []

    def stops(desk, layer):
        if layer == 1 and layer not in calls:
            calls.append(layer)
            raise KeyboardInterrupt
        return fit(desk, layer)

    def breaks(vlm, texts, length):
        if len(list((tmp_path / "part").glob("states-*"))) == 7 and "read" not in calls:
            calls.append("read")
            raise KeyboardInterrupt
        return reads(vlm, texts, length)

    monkeypatch.setattr(train._Desk, "fit", stops)
    monkeypatch.setattr(samples, "_states", breaks)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train.train(vlm, text, tmp_path / "part", recipe("tuned"))
    resumed = train.train(vlm, text, tmp_path / "part", recipe("tuned"))
    assert set(calls) == {"read", 1}
    assert resumed.figures == whole.figures
    assert all(torch.equal(resumed.maps[layer].up, move.up) for layer, move in whole.maps.items())
    with pytest.raises(InterpError, match="another text, model or length"):
        train.train(vlm, text + "x", tmp_path / "part", recipe("tuned"))


def test_states_of_text_are_those_of_each_piece_alone(vlm, text, work):
    fit, held = collect(vlm, text, work, 1500, 300)
    found = pieces(text, 128)
    ids = vlm.tokenizer(found[0]).input_ids
    with torch.inference_mode():
        alone = vlm.model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False).hidden_states
    real = [i for i in range(1, len(ids)) if ids[i] not in vlm.special_ids]
    assert fit.ids[: len(real)].tolist() == [ids[i] for i in real]
    for layer in (EMBED, 1):
        torch.testing.assert_close(fit.layer(layer)[: len(real)], alone[layer + 1][0, real], atol=2e-3, rtol=2e-3)
    assert len(fit) >= 1500
    assert 300 <= len(held) < len(fit)


def test_the_command(checkpoint, text, tmp_path, capsys):
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    arguments = ["--model", str(checkpoint("crop")), "--text", str(tmp_path / "text.txt"), "--work", str(tmp_path / "work")]
    sizes = ["--positions", "300", "--held-out", "100", "--rank", "2", "--steps", "1", "--device", "cpu"]
    train.main(["token", *arguments, "--target", str(tmp_path / "lens"), *sizes])
    assert "raw_top1" in capsys.readouterr().out
    about = json.loads((tmp_path / "lens" / "lens.json").read_text(encoding="utf-8"))
    assert about["trained_on"] == "Text: text.txt."
    assert interp.load_translators(tmp_path / "lens").layers == (EMBED, 0, 1, 2)
    with pytest.raises(SystemExit):
        train.main(["token", *arguments, "--target", str(tmp_path / "lens"), "--positions", "100000"])
    assert "The text is too short" in capsys.readouterr().err
