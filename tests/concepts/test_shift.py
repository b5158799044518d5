"""Concept shift: exact where it is known, and never in the way where something is missing."""

import dataclasses

import numpy as np
import pytest
import torch

import interp
from interp import InterpError
from interp.concepts.match import cosines, matched
from tests.concepts.test_learn import held, planted


@pytest.fixture(scope="module")
def rows():
    make = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(5, 32, generator=make)
    return (centres.repeat_interleave(12, 0) + torch.randn(60, 32, generator=make)).float()


@pytest.fixture(scope="module")
def concepts(rows):
    return interp.learn_concepts(held(rows), 5, "k-means", seeds=1)


def test_nothing_moves_between_equal_states(rows, concepts):
    found = interp.concept_shift(held(rows), held(rows), concepts)
    assert not found.shifts.any()
    assert torch.equal(found.shifted, concepts.atoms)
    assert [one.match for one in found.each] == list(range(5))
    assert all(one.cosine == pytest.approx(1, abs=1e-6) for one in found.each)
    assert {(one.magnitude, one.consistency, one.along, one.recovery) for one in found.each} == {(0.0, None, None, None)}
    assert found.correlation is None
    assert (found.compared, found.left_out) == (60, (0, 0))


def test_a_constant_shift_is_found_exactly_and_recovers_everything(rows, concepts):
    constant = torch.linspace(-1, 1, 32)
    found = interp.concept_shift(held(rows), held(rows + constant), concepts)
    torch.testing.assert_close(found.shifts, constant.expand(5, -1), rtol=0, atol=1e-4)
    for one in found.each:
        assert one.consistency == pytest.approx(1, abs=1e-4)
        assert one.along == pytest.approx(1, abs=1e-4)
        assert one.magnitude == pytest.approx(float(constant.norm()), rel=1e-4)
        assert one.recovery == pytest.approx(1, abs=1e-3)
        torch.testing.assert_close(found.shifted[one.concept], found.concepts_after.atoms[one.match], rtol=0, atol=1e-3)


def test_a_shift_is_the_difference_of_the_means_of_the_concepts_samples(rows, concepts):
    after = rows + torch.randn(60, 32, generator=torch.Generator().manual_seed(3))
    found = interp.concept_shift(held(rows), held(after), concepts, alpha=0.5)
    moves = after - rows
    for one in found.each:
        of = concepts.assigned == one.concept
        torch.testing.assert_close(found.shifts[one.concept], after[of].mean(0) - rows[of].mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.shifted[one.concept], concepts.atoms[one.concept] + 0.5 * found.shifts[one.concept])
        similar = cosines(moves[of], moves[of])
        apart = ~torch.eye(len(similar), dtype=torch.bool)
        assert one.consistency == pytest.approx(float(similar[apart].mean()), abs=1e-4)
        assert one.size == int(of.sum())
    assert torch.equal(torch.tensor([one.match for one in found.each]), matched(concepts.atoms, found.concepts_after.atoms))
    assert torch.equal(interp.concept_shift(held(rows), held(after), concepts, alpha=0).shifted, concepts.atoms)


def test_only_states_of_the_same_samples_are_compared(rows, concepts):
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:50]
    after = held(rows[order] + 1, ids=[str(i) for i in order.tolist()])
    found = interp.concept_shift(held(rows), after, concepts)
    torch.testing.assert_close(found.shifts, torch.ones(5, 32), rtol=0, atol=1e-4)
    assert (found.compared, found.left_out) == (50, (10, 0))


def test_a_concept_without_samples_is_reported(rows, concepts):
    kept = [i for i in range(60) if concepts.assigned[i] != 2]
    found = interp.concept_shift(held(rows[kept], ids=[str(i) for i in kept]), held(rows + 1), concepts)
    empty = found.each[2]
    assert (empty.size, empty.magnitude, empty.consistency, empty.recovery) == (0, 0.0, None, None)
    assert not found.shifts[2].any()
    single = [i for i in range(60) if concepts.assigned[i] != 2] + [int((concepts.assigned == 2).nonzero()[0])]
    one = interp.concept_shift(held(rows[single], ids=[str(i) for i in single]), held(rows + 1), concepts).each[2]
    assert (one.size, one.consistency) == (1, None)
    assert one.along == pytest.approx(1, abs=1e-5)


def test_what_moves_most_comes_first(rows, concepts):
    after = rows.clone()
    noise = torch.randn(60, 32, generator=torch.Generator().manual_seed(1))
    along = torch.randn(32, generator=torch.Generator().manual_seed(2))
    for k, share in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        of = concepts.assigned == k
        after[of] += 2 * (share * along + (1 - share) * noise[of])
    after[concepts.assigned == 3] += 8 * along
    found = interp.concept_shift(held(rows), held(after), concepts)
    assert found.moved[0].concept == 3
    assert [one.relative for one in found.moved] == sorted((one.relative for one in found.each), reverse=True)
    assert found.correlation is None, "the centres of the same clusters are always recovered"
    pairs = [(0.1, 0.2), (0.5, 0.4), (0.9, 0.7), (None, 0.3), (0.2, None)]
    each = tuple(dataclasses.replace(one, consistency=a, recovery=b) for one, (a, b) in zip(found.each, pairs, strict=True))
    assert dataclasses.replace(found, each=each).correlation == pytest.approx(np.corrcoef(*zip(*pairs[:3], strict=True))[0, 1])
    assert dataclasses.replace(found, each=each[:2]).correlation is None


@pytest.mark.parametrize("method", ["semi-nmf", "pca"])
def test_unit_atoms_are_compared_at_the_size_of_states(method):
    rows = planted(300, 5, 32)[0] * 10
    found = interp.concept_shift(held(rows), held(rows + 0.5), interp.learn_concepts(held(rows), 5, method, seeds=1))
    assert all(one.size for one in found.each)
    assert all(one.shifted_cosine >= one.cosine - 0.02 for one in found.each if method == "semi-nmf")


def test_words_of_the_shifted_atoms_are_read_by_the_model_after(vlm):
    rows = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    words = interp.learn_concepts(held(rows, vlm), 3, "k-means", maps=False)
    found = interp.concept_shift(held(rows, vlm), held(rows, vlm), words)
    for one in found.each:
        assert one.words == one.words_shifted == one.words_after == words.words[one.concept]
        assert (one.gained, one.lost, one.word_recovery) == ((), (), 1.0)


def test_the_page_escapes_what_models_say(rows, concepts, tmp_path):
    bad = "<script>alert(1)</script>"
    named = dataclasses.replace(concepts, words=((bad,),) * 5)
    interp.concept_shift(held(rows), held(rows + 1), named).to_html(tmp_path / "shift.html")
    page = (tmp_path / "shift.html").read_text()
    assert bad not in page
    assert "&lt;script&gt;" in page
    assert page.count("<article>") == 5
    assert "http://" not in page
    assert "https://" not in page


def test_what_is_refused(rows, concepts):
    for before, after, message in (
        (held(rows), held(rows[:, :9]), "widths"),
        (held(rows), held(rows, ids=[f"x{i}" for i in range(60)]), "no state of the same sample"),
        (held(rows, layer=2), held(rows), "Layer 1 does not exist"),
    ):
        with pytest.raises(InterpError, match=message):
            interp.concept_shift(before, after, concepts)
    with pytest.raises(InterpError, match="SAE features"):
        interp.concept_shift(held(rows), held(rows), dataclasses.replace(concepts, method="sae"))
    with pytest.raises(InterpError, match="must have 5 of layer 1"):
        interp.concept_shift(held(rows), held(rows), concepts, after=interp.learn_concepts(held(rows), 3, "k-means", seeds=1))
