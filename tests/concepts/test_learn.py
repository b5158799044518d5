"""Learning concepts: what is minimised, what is found again where it was planted, and what each concept says about itself."""

import itertools
import json

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

import interp
from interp import InterpError
from interp.concepts import decompose
from interp.concepts.concepts import word_overlap
from interp.concepts.decompose import lasso_codes, semi_nmf
from interp.concepts.ground import real_words, words_of
from interp.concepts.match import cosines, matched
from interp.concepts.state_files import packed
from interp.concepts.states import ConceptStates, Sampled
from interp.lens.directions import promoted_words
from tests import tiny
from tests.conftest import PROMPT

WIDTH = 64


def held(rows, vlm=None, layer=1, ids=None):
    """States in memory, one of each sample."""
    names = ids or [str(i) for i in range(len(rows))]
    return ConceptStates(
        "tiny" if vlm is None else vlm.name,
        (layer,),
        "made up",
        tuple(Sampled(name, PROMPT, "") for name in names),
        torch.arange(len(rows)),
        torch.full((len(rows),), -1),
        rows.shape[1],
        _parts=({f"layer.{layer}": rows, **packed([b""] * len(rows))},),
        _vlm=vlm,
    )


def planted(count=400, k=8, width=WIDTH, seed=0, noise=0.01):
    """Rows that are sparse non-negative sums of unit atoms."""
    make = np.random.default_rng(seed)
    atoms = make.normal(size=(k, width))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = make.gamma(0.3, 4.0, size=(count, k))
    rows = codes @ atoms + noise * make.normal(size=(count, width))
    return torch.tensor(rows).float(), torch.tensor(atoms).float()


def recovered(found, atoms):
    return float(cosines(atoms, found).gather(1, matched(atoms, found)[:, None]).mean())


@pytest.fixture(scope="module")
def rows():
    return planted()[0]


@pytest.mark.parametrize("penalty", [0.0, 0.1, 1.0])
def test_the_objective_of_semi_nmf_never_rises_and_its_limits_hold(rows, penalty):
    found = semi_nmf(rows, 8, 0, penalty)
    assert len(found.losses) > 3
    assert all(after <= before * (1 + 1e-9) for before, after in itertools.pairwise(found.losses))
    assert (found.atoms.norm(dim=1) <= 1 + 1e-6).all()
    codes = lasso_codes(rows.double(), found.atoms.double(), penalty)
    assert (codes >= 0).all()
    naive = 0.5 * (rows.double() - codes @ found.atoms.double()).square().sum() + penalty * codes.sum()
    assert float(naive) <= found.losses[-1] * (1 + 1e-6)


def test_planted_atoms_are_recovered():
    rows, atoms = planted(800, 12)
    found = interp.learn_concepts(held(rows), 12, seeds=1)
    assert recovered(found.atoms, atoms) > 0.95
    assert found.fit.fvu < 0.05


def test_lasso_codes_are_the_best_for_their_atoms(rows):
    """No code can be moved by a little, within its limit, and lower the objective (Karush-Kuhn-Tucker)."""
    atoms = planted()[1].double()
    codes = lasso_codes(rows.double(), atoms, 0.3)
    gradient = (codes @ atoms - rows.double()) @ atoms.T + 0.3
    assert gradient[codes > 0].abs().max() < 1e-5
    assert gradient[codes == 0].min() > -1e-5


def test_one_concept_is_the_best_of_rank_one():
    """For non-negative rows the best rank-one approximation has non-negative codes: the first singular vectors (Perron-Frobenius)."""
    make = torch.Generator().manual_seed(0)
    rows = torch.rand(50, 6, generator=make)
    found = semi_nmf(rows, 1, 0, 0.0)
    _, _, right = torch.linalg.svd(rows.double())
    assert float((found.atoms[0].double() @ right[0]).abs()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("method", ["semi-nmf", "k-means", "pca"])
def test_the_same_seed_gives_the_same_concepts_in_a_fixed_order(rows, method):
    one, two = (interp.learn_concepts(held(rows), 5, method, seed=3) for _ in range(2))
    assert torch.equal(one.atoms, two.atoms)
    assert torch.equal(one.activations, two.activations)
    assert one.to_dict() == two.to_dict()
    if method == "semi-nmf":
        energy = one.activations.square().sum(0)
        assert (energy.diff() <= 1e-2 * energy[0]).all()
    if method == "k-means":
        assert (np.diff(one.sizes) <= 0).all()


@pytest.mark.parametrize("method", ["semi-nmf", "k-means", "pca"])
def test_transform_of_what_was_learned_on_gives_the_activations(rows, method):
    states = held(rows)
    found = interp.learn_concepts(states, 5, method)
    for given in (states, rows, rows.double()):
        torch.testing.assert_close(found.transform(given), found.activations)
    assert found.fit_of(states).to_dict() == pytest.approx(found.fit.to_dict())


def test_k_means_codes_are_closeness_to_the_centres(rows):
    found = interp.learn_concepts(held(rows), 5, "k-means")
    distances = (rows[:, None].double() - found.atoms.double()).norm(dim=2)
    torch.testing.assert_close(found.activations, (1 / (1 + distances)).float())
    assert torch.equal(found.assigned, distances.argmin(1))
    for k in range(5):
        torch.testing.assert_close(found.atoms[k], rows[found.assigned == k].mean(0), rtol=1e-4, atol=1e-5)
    error = (rows - found.atoms[found.assigned]).square().sum()
    assert found.fit.fvu == pytest.approx(float(error / (rows - rows.mean(0)).square().sum()), rel=1e-4)


def test_pca_is_orthonormal_and_leaves_the_other_variances():
    rows = planted(300)[0] + 3
    found = interp.learn_concepts(held(rows), 5, "pca")
    torch.testing.assert_close(found.atoms @ found.atoms.T, torch.eye(5), rtol=0, atol=1e-5)
    variances = torch.linalg.svdvals((rows - rows.mean(0)).double()).square()
    assert found.fit.fvu == pytest.approx(float(variances[5:].sum() / variances.sum()), rel=1e-4)
    assert found.fit.fvu_zero < found.fit.fvu
    short = interp.learn_concepts(held(rows[:20]), 5, "pca")
    torch.testing.assert_close(short.atoms @ short.atoms.T, torch.eye(5), rtol=0, atol=1e-5)


def test_both_baselines_of_the_fit_are_those_named(rows):
    found = interp.learn_concepts(held(rows + 2), 4)
    left = float((rows + 2 - found.reconstruct(rows + 2)).double().square().sum())
    assert found.fit.fvu == pytest.approx(left / float((rows - rows.mean(0)).double().square().sum()), rel=1e-5)
    assert found.fit.fvu_zero == pytest.approx(left / float((rows + 2).double().square().sum()), rel=1e-5)
    centred = interp.learn_concepts(held(rows + 2), 4, centred=True)
    torch.testing.assert_close(centred.mean, (rows + 2).mean(0))
    assert found.objective.startswith("1/2 |Z - VU|^2")


def test_stability_tells_found_structure_from_noise():
    clusters = torch.eye(WIDTH)[:4].repeat_interleave(30, 0) * 20 + torch.randn(120, WIDTH, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(120, WIDTH, generator=torch.Generator().manual_seed(1))
    steady, loose = (interp.learn_concepts(held(states), 4, "k-means").stability for states in (clusters, noise))
    assert min(steady) > 0.99
    assert np.mean(loose) < 0.9
    assert interp.learn_concepts(held(noise), 4, "pca").stability == (1.0,) * 4


@pytest.fixture(scope="module")
def collected(vlm):
    samples = [(tiny.noise(60, 60, seed=i), PROMPT) for i in range(12)]
    return interp.collect(vlm, samples, 2, "patches", max_new_tokens=2)


def test_concepts_have_words_pictures_and_maps(vlm, collected):
    found = interp.learn_concepts(collected, 3, "k-means")
    names = promoted_words(vlm, found.atoms, k=200)
    for k in range(3):
        assert found.words[k] == real_words(names[k][0], 10)
        values = [each.activation for each in found.examples[k]]
        assert values == sorted(values, reverse=True)
        best = found.examples[k][0]
        assert best.activation == float(found.activations[:, k].max())
        assert best.sample == found.ids[best.row]
        trace = vlm.trace(best.picture, PROMPT, max_new_tokens=1)
        torch.testing.assert_close(found.map(trace, k), best.map)
        assert best.map.shape == (4, 4)
        assert len({each.sample for each in found.examples[k]}) == 5
    assert found.opposite == ()
    signed = interp.learn_concepts(collected, 3, "pca", maps=False)
    assert len(signed.opposite) == 3
    assert signed.opposite[0] == words_of(vlm, -signed.atoms)[0][0]
    assert signed.examples[0][0].map is None


def test_words_are_those_of_the_lens_at_the_last_layer(vlm, trace):
    """The last layer's state of a position, taken for a direction, names what the lens reads there."""
    lens = interp.logit_lens(trace, top_k=8, layers=[2])
    read = lens.texts(2, 5)
    up, _ = words_of(vlm, trace.residual(2)[5][None].float(), count=3)
    expected = real_words(read, 3)
    assert up[0][: len(expected)] == expected[: len(up[0])]
    assert real_words([" dog", " Dog", "dog", " x", " ab-c", " 3", " cat's"], 9) == ("dog", "ab-c", "cat's")


def test_words_behind_the_norm_are_read_by_the_head_alone(vlm):
    direction = vlm.head.weight[5].detach()[None]
    found = words_of(vlm, direction, normed=True)[0][0]
    logits = (vlm.head.weight @ direction[0]).detach()
    texts = [vlm.vocabulary.texts[i] for i in logits.argsort(descending=True).tolist()[:200]]
    assert found == real_words(texts, 10)


def test_features_of_an_sae_are_concepts_too(vlm, collected):
    make = torch.Generator().manual_seed(0)
    sae = interp.Sae(
        "random", "", 2, torch.randn(64, 12, generator=make), torch.zeros(12), torch.randn(12, 64, generator=make), torch.zeros(64), "relu"
    )
    found = interp.learn_concepts(collected, 12, "sae", sae=sae, maps=False)
    rows = collected.residual()
    dense = (rows @ sae.W_enc).relu()
    torch.testing.assert_close(found.activations, dense[:, list(found.features)], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.reconstruct(rows), dense @ sae.W_dec, rtol=1e-4, atol=1e-3)
    some = interp.learn_concepts(collected, 3, "sae", sae=sae, maps=False)
    energy = dense.square().sum(0) * sae.W_dec.square().sum(1)
    assert list(some.features) == energy.topk(3).indices.tolist()
    torch.testing.assert_close(some.reconstruct(rows), dense[:, list(some.features)] @ sae.W_dec[list(some.features)], rtol=1e-4, atol=1e-3)
    with pytest.raises(InterpError, match="sae reads layer"):
        interp.learn_concepts(held(rows, layer=1), 3, "sae", sae=sae)
    with pytest.raises(InterpError, match="sae is needed"):
        interp.learn_concepts(collected, 3, "sae")


@pytest.mark.parametrize("method", ["semi-nmf", "k-means", "pca"])
def test_they_are_saved_and_loaded(vlm, collected, tmp_path, method):
    found = interp.learn_concepts(collected, 3, method)
    found.save(tmp_path)
    again = interp.Concepts.load(tmp_path, vlm)
    assert again.to_dict() == found.to_dict()
    assert torch.equal(again.atoms, found.atoms)
    torch.testing.assert_close(again.transform(collected), found.activations)
    assert torch.equal(again.examples[1][0].map, found.examples[1][0].map)
    assert again.examples[1][0].webp == found.examples[1][0].webp
    json.dumps(found.to_dict(), allow_nan=False)
    with pytest.raises(InterpError, match="concepts are of"):
        interp.Concepts.load(tmp_path, interp.Vlm(*tiny.build("crop", seed=3)))
    (tmp_path / "concepts.json").write_text("{}")
    with pytest.raises(InterpError, match="damaged"):
        interp.Concepts.load(tmp_path)
    with pytest.raises(InterpError, match="no saved concepts"):
        interp.Concepts.load(tmp_path / "other")


def test_overlap():
    assert word_overlap([("a", "b"), ("c",)]) == 0
    assert word_overlap([("a", "b"), ("b", "a")]) == 1
    assert word_overlap([("a", "b"), ("b",)]) == pytest.approx((0.5 + 1) / 2)
    assert word_overlap([(), ("b",)]) == 0
    assert word_overlap([("a",)]) is None


def test_matching_is_the_best_permutation():
    make = torch.Generator().manual_seed(0)
    one, other = torch.randn(5, 8, generator=make), torch.randn(5, 8, generator=make)
    found = matched(one, other)
    similar = cosines(one, other)
    best = max(itertools.permutations(range(5)), key=lambda order: sum(similar[i, j] for i, j in enumerate(order)))
    assert found.tolist() == list(best)
    assert linear_sum_assignment(-similar.numpy())[1].tolist() == found.tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 500}, "n is 500; it must be a whole number from 1 to 400"),
        ({"n": 70, "method": "pca"}, "from 1 to 64"),
        ({"n": 0}, "n is 0"),
        ({"method": "ica"}, "method is 'ica'"),
        ({"layer": 2}, "Layer 2 does not exist"),
        ({"sparsity": -1}, "sparsity is -1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_is_refused(rows, fields, message):
    with pytest.raises(InterpError, match=message):
        interp.learn_concepts(held(rows), **{"n": 3} | fields)


def test_too_few_different_states_are_refused(rows):
    with pytest.raises(InterpError, match="fewer of the states differ"):
        interp.learn_concepts(held(rows[:2].repeat(10, 1)), 5, "k-means")
    with pytest.raises(InterpError, match="states is empty"):
        interp.learn_concepts(held(rows[:0]), 1)
    with pytest.raises(InterpError, match="not finite"):
        interp.learn_concepts(held(torch.full((9, 4), torch.nan)), 2)


def test_large_states_are_decomposed_in_float32(rows, monkeypatch):
    exact = semi_nmf(rows, 4, 0, 0.1)
    monkeypatch.setattr(decompose, "_DOUBLE", 1)
    found = semi_nmf(rows, 4, 0, 0.1)
    torch.testing.assert_close(found.atoms, exact.atoms, rtol=1e-2, atol=1e-2)
