"""Steering vectors: the arithmetic that their names promise, their signs, their files, and that an edit along them does what they say."""

import pytest
import torch

import interp
from interp import Edit, InterpError
from tests import tiny
from tests.concepts.test_learn import held, planted
from tests.conftest import PROMPT

LAYER = 1
UP = [(tiny.noise(60, 60, seed=seed), PROMPT) for seed in range(4)]
DOWN = [(tiny.noise(60, 60, seed=seed), "Describe a red house.") for seed in range(4, 9)]


@pytest.fixture(scope="module")
def sets(vlm):
    return [interp.collect(vlm, samples, LAYER, "last", max_new_tokens=2) for samples in (DOWN, UP)]


@pytest.fixture(scope="module")
def concepts():
    return interp.learn_concepts(held(planted(width=64)[0]), 4, "k-means", seeds=1)


def test_the_coarse_vector_is_the_difference_of_the_means_on_saved_files(vlm, sets, tmp_path):
    for states, name in zip(sets, "ab", strict=True):
        states.save(tmp_path / name)
    base, target = (interp.ConceptStates.load(tmp_path / name) for name in "ab")
    found = interp.steering_vector(base, target)
    torch.testing.assert_close(found.vector, target.residual().mean(0) - base.residual().mean(0), rtol=0, atol=1e-6)
    assert (found.layer, found.model_name, found.examples) == (LAYER, vlm.name, (4, 5))
    own = interp.contrast_vector(vlm, UP, DOWN, LAYER, where="answer")
    torch.testing.assert_close(found.vector, own.vector, rtol=1e-4, atol=1e-4)
    assert found.auroc == own.auroc


def test_an_amount_of_one_takes_base_to_target_and_zero_does_nothing(vlm, sets, picture):
    found = interp.steering_vector(*sets)
    whole = interp.steer(vlm, picture, PROMPT, [Edit(vector=found, amount=1, where="answer")], max_new_tokens=4)
    assert whole.applied[0].absolute == pytest.approx(float(found.vector.norm()), rel=1e-5)
    assert whole.applied[0].fired == len(whole.steered_answer.ids), "the last prompt position, and every token that enters"
    none = interp.steer(vlm, picture, PROMPT, [Edit(vector=found, amount=0, where="answer")], max_new_tokens=4)
    assert none.steered_answer == none.plain_answer
    assert max(none.kl) == 0


def test_fine_vectors_are_differences_with_the_sign_of_their_name(concepts):
    def vector(i, j):
        return concepts.vector(i, j).vector

    torch.testing.assert_close(vector(0, 1), concepts.atoms[1] - concepts.atoms[0])
    torch.testing.assert_close(vector(0, 1), -vector(1, 0))
    torch.testing.assert_close(vector(0, 1) + vector(1, 2), vector(0, 2), rtol=1e-5, atol=1e-5)


def test_a_fine_vector_leads_from_the_first_to_the_second(concepts):
    """What is at concept i comes to concept j, whatever i and j."""
    for i in range(4):
        for j in {*range(4)} - {i}:
            moved = concepts.atoms[i] + concepts.vector(i, j).vector
            assert int(concepts.transform(moved[None]).argmax()) == j
            half = concepts.atoms[i] + 0.1 * concepts.vector(i, j).vector
            cosine = torch.nn.functional.cosine_similarity
            assert cosine(half, concepts.atoms[j], dim=0) > cosine(concepts.atoms[i], concepts.atoms[j], dim=0)


def test_a_fine_vector_steers_the_model_towards_its_concept(vlm, picture):
    samples = [(tiny.noise(60, 60, seed=i), PROMPT) for i in range(8)]
    learned = interp.learn_concepts(interp.collect(vlm, samples, LAYER, "patches", max_new_tokens=1), 3, "k-means", maps=False)
    edit = Edit(vector=learned.vector(0, 2), amount=5, where="image")
    trace = vlm.trace(picture, PROMPT, max_new_tokens=2)
    result = interp.steer(vlm, picture, PROMPT, [edit], max_new_tokens=2)
    steered = interp.steered_trace(trace, [edit], result.steered_answer)
    before, after = (learned.map(each, 2).mean() - learned.map(each, 0).mean() for each in (trace, steered))
    assert after > before


def test_vectors_are_saved_with_layer_model_and_sign(vlm, sets, concepts, tmp_path):
    for number, vector in enumerate([interp.steering_vector(*sets), concepts.vector(1, 2)]):
        path = tmp_path / f"{number}.safetensors"
        interp.save_vector(vector, path)
        again = interp.load_vector(path)
        assert torch.equal(again.vector, vector.vector)
        for name in ("layer", "model_name", "where", "auroc", "examples"):
            assert getattr(again, name) == getattr(vector, name)
        Edit(vector=again, strength=0.1)
    (tmp_path / "0.safetensors").write_bytes(b"x")
    with pytest.raises(InterpError, match="damaged"):
        interp.load_vector(tmp_path / "0.safetensors")
    with pytest.raises(InterpError, match="no steering vector at path"):
        interp.load_vector(tmp_path / "9.safetensors")


def test_the_pairs_of_xl_vlms_get_their_sign_turned_and_ours_do_not(concepts, tmp_path):
    atoms = concepts.atoms
    theirs = {"steering_vector": atoms[0], "steering_vector_mean_of_directions": torch.zeros(64), "concepts1": atoms}
    theirs |= {f"steering_vector_concept_{i}_to_{j}": atoms[i] - atoms[j] for i in range(4) for j in range(4) if i != j}
    torch.save(theirs, tmp_path / "theirs.pth")
    interp.write_xl_vectors(tmp_path / "ours.pth", concepts=concepts)
    for name in ("theirs", "ours"):
        found = interp.read_xl_vectors(tmp_path / f"{name}.pth", 1)
        for i in range(4):
            for j in {*range(4)} - {i}:
                torch.testing.assert_close(found[f"{i} to {j}"].vector, concepts.vector(i, j).vector)
    assert "its sign turned" in interp.read_xl_vectors(tmp_path / "theirs.pth", 1)["0 to 1"].where
    written = torch.load(tmp_path / "ours.pth", weights_only=True)
    torch.testing.assert_close(written["steering_vector_concept_1_to_2"], atoms[2] - atoms[1])


def test_a_coarse_vector_of_xl_vlms_comes_and_goes(sets, tmp_path):
    coarse = interp.steering_vector(*sets)
    interp.write_xl_vectors(tmp_path / "v.pth", coarse)
    assert torch.load(tmp_path / "v.pth", weights_only=True).keys() == {"steering_vector"}
    again = interp.read_xl_vectors(tmp_path / "v.pth", LAYER, model_name="tiny")["steering_vector"]
    assert torch.equal(again.vector, coarse.vector)
    assert (again.layer, again.model_name) == (LAYER, "tiny")
    with pytest.raises(InterpError, match="exactly one"):
        interp.write_xl_vectors(tmp_path / "v.pth")
    torch.save({"concepts": torch.zeros(2, 2)}, tmp_path / "v.pth")
    with pytest.raises(InterpError, match="no steering vectors"):
        interp.read_xl_vectors(tmp_path / "v.pth", 1)


def test_a_dictionary_of_xl_vlms_is_read_without_its_pickle(concepts, tmp_path):
    about = {"concepts": concepts.atoms, "activations": concepts.activations, "decomposition_method": "kmeans",
             "text_grounding": [["dog", "cat"]] * 4, "image_grounding_paths": [["a.jpg"], [["b.jpg"]], ["c.jpg"], []]}  # fmt: skip
    torch.save(about, tmp_path / "d.pth")
    found = interp.read_xl_concepts(tmp_path / "d.pth", layer=1)
    assert torch.equal(found.atoms, concepts.atoms)
    assert (found.method, found.words[0], found.examples[1][0].path) == ("k-means", ("dog", "cat"), "b.jpg")
    torch.save(about | {"analysis_model": Odd()}, tmp_path / "d.pth")
    with pytest.raises(InterpError, match="pickled Python objects"):
        interp.read_xl_concepts(tmp_path / "d.pth", layer=1)


class Odd:
    """Stands for a fitted object of scikit-learn."""


def pairs(count=60, width=16, noise=0.0, seed=0):
    """Contexts, and base and target states whose difference depends on the context."""
    make = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=make)
    base = torch.randn(count, width, generator=make)
    shift = 3 + x[:, :1] * torch.linspace(1, 4, width) + noise * torch.randn(count, width, generator=make)
    return x, base, base + shift


def test_a_learned_vector_follows_its_input_where_one_for_all_cannot():
    x, base, target = pairs(300)
    found = interp.learn_vector(held(x, layer=2), held(base), held(target), epochs=200)
    assert found.explained > 0.7
    coarse = interp.learn_vector(held(x, layer=2), held(base), held(target), hidden=1)
    torch.testing.assert_close(coarse.predict(x[:1])[0], (target - base)[torch.arange(300) % 5 < 4].mean(0))
    assert coarse.explained == pytest.approx(0, abs=1e-5)
    assert (found.reads, found.layer, found.held_out) == (2, 1, 60)
    same = interp.learn_vector(held(x, layer=2), held(base), held(target), epochs=200)
    assert torch.equal(same.decoder, found.decoder)
    predicted = found.predict(x)
    torch.testing.assert_close(predicted, (x @ found.encoder.T + found.bias).tanh() @ found.decoder.T)


def test_samples_are_matched_by_their_ids():
    x, base, target = pairs(40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    names = [str(i) for i in range(40)]
    plain = interp.learn_vector(held(x), held(base), held(target), epochs=5)
    mixed = interp.learn_vector(held(x), held(base[order], ids=[names[i] for i in order]), held(target[:38]), epochs=5)
    fewer = interp.learn_vector(held(x[:38]), held(base[:38]), held(target[:38]), epochs=5)
    assert torch.equal(mixed.decoder, fewer.decoder)
    assert not torch.equal(mixed.decoder, plain.decoder)


def test_a_learned_vector_is_saved_and_steers(vlm, picture, tmp_path):
    samples = [(tiny.noise(60, 60, seed=i), PROMPT) for i in range(12)]
    context = interp.collect(vlm, samples, [1, 2], "last", max_new_tokens=1)
    forced = [[(*pair, answer) for pair in samples] for answer in ("a dog", "a cat")]
    same = [interp.collect(vlm, each, 1, "answer") for each in forced]
    with pytest.raises(InterpError, match="hold the same states"):
        interp.learn_vector(context, *same, reads=2)
    base, target = (interp.collect(vlm, each, 1, "end") for each in forced)
    found = interp.learn_vector(context, base, target, reads=2, epochs=3)
    found.save(tmp_path / "v.safetensors")
    again = interp.LearnedVector.load(tmp_path / "v.safetensors")
    trace = vlm.trace(picture, PROMPT, max_new_tokens=2)
    vector = again.vector(trace)
    torch.testing.assert_close(vector.vector, found.predict(trace.residual(2)[[trace.answer_start - 1]])[0])
    result = interp.steer(vlm, picture, PROMPT, [Edit(vector=vector, strength=1, where="answer")], max_new_tokens=2)
    assert result.fired[0] > 0
    assert vars(again)["explained"] == found.explained
    state = {"encoder.weight": found.encoder, "encoder.bias": found.bias, "decoder.weight": found.decoder}
    torch.save(state, tmp_path / "net.pt")
    assert torch.equal(
        interp.LearnedVector.load(tmp_path / "net.pt", reads=2, layer=1).predict(trace.residual(2)), found.predict(trace.residual(2))
    )
    with pytest.raises(InterpError, match="pass reads= and layer="):
        interp.LearnedVector.load(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interp.steering_vector(held(torch.zeros(1, 8)), held(torch.ones(3, 8))), "There are 1 states in base"),
        (lambda: interp.steering_vector(held(torch.zeros(3, 8)), held(torch.ones(3, 9))), "use one model"),
        (lambda: interp.steering_vector(held(torch.zeros(3, 8), layer=1), held(torch.ones(3, 8), layer=2)), "Layer 1 does not exist"),
        (lambda: interp.learn_vector(*[held(torch.zeros(5, 8))] * 3), "5 samples in common"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(InterpError, match=message):
        call()


def test_a_concept_has_no_vector_to_itself(concepts):
    with pytest.raises(InterpError, match="no direction from a concept to itself"):
        concepts.vector(1, 1)
    with pytest.raises(InterpError, match="Concept 4 does not exist"):
        concepts.vector(1, 4)
