"""Training SAEs: what is planted is found, tiny data is learned by heart, and a run that was cut off ends as if it had not been."""

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file

import interp
from interp import InterpError
from interp.saes import train as training
from interp.saes.train import Plan, train
from interp.saes.write import write_figures, write_sparsify
from tests.sae_checkpoints import dense

WIDTH, ATOMS, ACTIVE = 20, 20, 2
BATCH = 64
ABOUT = {"model_name": "some-model", "hook_name": "blocks.3.hook_resid_post"}


def planted(rows, seed=0):
    """(atoms of unit norm [ATOMS, WIDTH], states of a few of them each, plus a constant)."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(ATOMS, WIDTH, generator=generator), dim=1)
    codes = torch.zeros(rows, ATOMS)
    chosen = torch.rand(rows, ATOMS, generator=generator).topk(ACTIVE).indices
    codes.scatter_(1, chosen, torch.rand(rows, ACTIVE, generator=generator) + 0.5)
    return atoms, 5 * codes @ atoms + 0.3


def stream(states, batch=BATCH, seed=0):
    """The batches of a plan, as a function of where to begin."""

    def batches(start):
        generator = torch.Generator().manual_seed(seed)
        every = (part for _ in itertools.count() for part in torch.randperm(len(states), generator=generator).split(batch)[:-1])
        return (states[part] for part in itertools.islice(every, start, None))

    return batches


def fvu(sae, states):
    acts = sae.encode(states)
    return float((states - sae.decode(acts)).pow(2).sum() / (states - states.mean(0)).pow(2).sum()), len(acts.features) / len(states)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu"])
def test_a_planted_dictionary_is_recovered(tmp_path, architecture):
    atoms, states = planted(4000)
    plan = Plan(2 * ATOMS, ACTIVE, 40_000, architecture, BATCH, rate=8e-3, dead_after=30, metadata=ABOUT)
    sae = interp.load_sae(train(plan, WIDTH, stream(states), tmp_path / "run"))
    assert (sae.layer, sae.model_name) == (3, "some-model")
    assert sae.activation == ("topk" if architecture == "topk" else "jumprelu")
    similar = torch.nn.functional.normalize(sae.W_dec, dim=1) @ atoms.T
    assert similar.max(0).values.mean() > 0.97
    left, l0 = fvu(sae, planted(1000)[1])
    assert left < 0.1
    assert l0 == pytest.approx(ACTIVE, rel=0.15)


def test_tiny_data_is_learned_by_heart(tmp_path):
    states = torch.randn(16, WIDTH, generator=torch.Generator().manual_seed(1)) + 2
    plan = Plan(64, 8, 16 * 400, batch=16, rate=1e-2, metadata=ABOUT, norm_batches=1)
    sae = interp.load_sae(train(plan, WIDTH, lambda _start: itertools.repeat(states), tmp_path / "run"))
    assert fvu(sae, states)[0] < 3e-3


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu"])
@pytest.mark.parametrize("at", [30, 45], ids=["between checkpoints", "while a checkpoint is written"])
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(tmp_path, monkeypatch, architecture, at):
    states = planted(1000)[1]
    plan = Plan(48, ACTIVE, BATCH * 60, architecture, BATCH, checkpoints=5, dead_after=5, norm_batches=3, metadata=ABOUT)
    whole = train(plan, WIDTH, stream(states), tmp_path / "whole")

    def broken(start):
        yield from itertools.islice(stream(states)(start), at)
        raise KeyboardInterrupt

    if at == 45:

        def half(checkpoint_path):
            if int(checkpoint_path.name) > 30 * BATCH:
                (checkpoint_path / "activation_scaler.json").unlink()
                raise KeyboardInterrupt
            settled(checkpoint_path)

        settled = training._settled
        monkeypatch.setattr(training, "_settled", half)
    with pytest.raises(KeyboardInterrupt):
        train(plan, WIDTH, stream(states) if at == 45 else broken, tmp_path / "cut")
    monkeypatch.undo()
    begun = []
    cut = train(plan, WIDTH, lambda start: begun.append(start) or stream(states)(start), tmp_path / "cut")
    assert 3 + 10 <= begun[0] < at
    for name, value in load_file(whole / "sae_weights.safetensors").items():
        assert torch.equal(value, load_file(cut / "sae_weights.safetensors")[name]), name
    assert [path.name for path in (tmp_path / "cut").iterdir() if path.name != "finished"] == []


def test_only_the_newest_checkpoint_is_kept_and_a_finished_run_is_left_alone(tmp_path, monkeypatch):
    states, kept = planted(500)[1], []
    settled = training._settled
    monkeypatch.setattr(
        training, "_settled", lambda checkpoint_path: settled(checkpoint_path) or kept.append(len(list(checkpoint_path.parent.iterdir())))
    )
    plan = Plan(32, ACTIVE, BATCH * 20, batch=BATCH, checkpoints=4, norm_batches=1, metadata=ABOUT)
    finished = train(plan, WIDTH, stream(states), tmp_path)
    assert kept == [1, 1, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["finished"]
    assert train(plan, WIDTH, lambda start: pytest.fail(f"begun at {start}"), tmp_path) == finished


def test_the_usual_rate_is_that_of_the_reference():
    assert Plan(131_072, 256, 1).used_rate == pytest.approx(7.07e-5, rel=1e-3)
    assert Plan(2**14, 32, 1).used_rate == pytest.approx(2e-4)
    assert Plan(64, 3, 1000, batch=300).steps == 4


def test_the_global_generator_is_left_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(Plan(32, ACTIVE, BATCH * 2, batch=BATCH, norm_batches=1, metadata=ABOUT), WIDTH, stream(planted(500)[1]), tmp_path)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"active": 2.5}, "active"),
        ({"active": 65}, "active"),
        ({"features": 0}, "features"),
        ({"tokens": 0}, "tokens"),
        ({"rate": float("nan")}, "rate"),
        ({"architecture": "relu"}, "architecture"),
        ({"architecture": "batchtopk", "active": 1e-9}, "active"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_plan_out_of_range_is_refused(changes, named):
    with pytest.raises(InterpError, match=named):
        Plan(**{"features": 64, "active": 2, "tokens": 10} | changes)


def test_both_formats_load_to_the_same_sae(tmp_path):
    states = planted(500)[1]
    finished = train(Plan(40, 3, BATCH * 30, batch=BATCH, metadata=ABOUT), WIDTH, stream(states), tmp_path / "run")
    write_sparsify(interp.load_sae(finished), tmp_path / "model.layers.3")
    figures = {"image": {"explained_variance": 0.9, "l0": 3.0}, "text": {"explained_variance": 0.8, "l0": 3.0}}
    density = torch.linspace(0, 1, 40)
    for folder in (finished, tmp_path / "model.layers.3"):
        write_figures(folder, figures, density)
    ours, theirs = interp.load_sae(finished), interp.load_sae(tmp_path / "model.layers.3")
    assert (theirs.layer, theirs.k, theirs.model_name) == (ours.layer, ours.k, ours.model_name) == (3, 3, "some-model")
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert torch.equal(dense(ours.encode(states), 40), dense(theirs.encode(states), 40))
    torch.testing.assert_close(theirs.density, density, atol=1e-6, rtol=0)
    assert theirs.trained == ours.trained
    assert theirs.trained["text"].explained_variance == 0.8
    config = json.loads((tmp_path / "model.layers.3" / "cfg.json").read_text())
    assert config["normalize_decoder"] is True  # what sae-lens folds into the encoder
    assert (config["num_latents"], config["expansion_factor"]) == (40, 2)


def test_sparsify_has_no_thresholds(tmp_path):
    finished = train(Plan(40, 3, BATCH, "batchtopk", BATCH, metadata=ABOUT), WIDTH, stream(planted(500)[1]), tmp_path / "run")
    with pytest.raises(InterpError, match="jumprelu SAE"):
        write_sparsify(interp.load_sae(finished), tmp_path / "model.layers.3")
    assert not (tmp_path / "model.layers.3").exists()
