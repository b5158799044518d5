import itertools
import json
import sys

import pytest
import torch

import interp
from interp import EMBED, InterpError
from interp.emoji_world.measure import sample
from interp.emoji_world.sprites import SEEN_VENDORS
from interp.emoji_world.words import NOUNS, WORDS
from interp.lens import build_index, index, nearest
from interp.lens.context_index import ContextualIndex
from interp.lens.nearest import nearest_words
from interp.lens.whole_words import whole_words
from tests.conftest import PROMPT

LINES = [
    "The dog and a cat sat on a red boat",
    "The cat on two blue mat and pizza with dog",
    "The house and tree with red sun on the blue boat",
    "The Dog sat with a tree and two pizza",
] * 3
LINES = [f"{line} {end}" for line, end in zip(LINES, itertools.cycle(["dog", "cat and house", "pizza zebra sun"]), strict=False)]


@pytest.fixture(scope="module")
def made(vlm):
    return interp.build_index(vlm, LINES, layers=[EMBED, 0, 2], size=120, per_token=3)


@pytest.fixture(scope="module")
def lens(trace, made):
    return interp.contextual_lens(trace, made, top_k=4)


def naive(states, made, k):
    """All similarities in float32; the best entry of each word; the best words."""
    states = states.float() / states.float().norm(dim=-1, keepdim=True)
    similarities = states @ made.vectors.float().T
    best = {word: similarities[:, made.word_of == i].amax(-1) for i, word in enumerate(made.words)}
    return torch.stack(list(best.values()), dim=-1).topk(k).values


def test_it_lists_the_nearest_words_of_all_entries(trace, made, lens):
    for axis, layer in enumerate(lens.layers):
        expected = naive(trace.residual(layer), made, 4)
        torch.testing.assert_close(lens.probs[axis], expected, atol=1e-5, rtol=0)
    assert (lens.method, lens.reads, lens.score_name, lens.entropy) == ("contextual", "here", "cosine similarity", None)


@pytest.mark.parametrize("crowded", [False, True], ids=["spread", "all alike"])
def test_a_search_in_blocks_of_16_bits_finds_what_float32_finds(crowded, monkeypatch):
    """With all vectors alike, 16 bits cannot tell them apart, and the rows are read again."""
    make = torch.Generator().manual_seed(0)
    vectors = torch.randn(900, 32, generator=make) * (1e-3 if crowded else 1) + (1 if crowded else 0)
    vectors = (vectors / vectors.norm(dim=-1, keepdim=True)).bfloat16()
    contexts = tuple(interp.lens.context_index.Context("", f"w{i}", "", 0) for i in range(300))
    made = ContextualIndex(vectors, torch.zeros(900, dtype=torch.int64), torch.arange(900) // 3, contexts, "m", "t", {})
    queries = torch.randn(50, 32, generator=make) + (5 if crowded else 0)
    queries /= queries.norm(dim=-1, keepdim=True)
    for name, value in {
        "_COLUMNS": 128,
        "_MEMBERS": 2,
        "_WIDE_COLUMNS": 100,
        "PAIRS": 2000,
        "_ROWS": 12,
        "_GATHERED": 4000,
    }.items():
        monkeypatch.setattr(nearest, name, value)
    read_again = []
    monkeypatch.setattr(nearest, "_wide", lambda *a, wide=nearest._wide: read_again.append(len(a[0])) or wide(*a))
    entries, similarities = nearest_words(queries, made, 5)
    assert read_again == ([2] * 25 if crowded else [])
    torch.testing.assert_close(similarities, naive(queries, made, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close((vectors[entries].float() * queries[:, None]).sum(-1), similarities, atol=1e-5, rtol=0)
    assert all(len(set(row)) == 5 for row in made.word_of[entries].tolist())


def test_the_state_of_a_word_in_text_finds_itself(vlm, trace, made):
    """A trace begins with text before its picture: the same tokens read as a line are the same states."""
    ids = [token.id for token in trace.tokens[:-1]]
    last = next(i for i, token in enumerate(trace.tokens) if token.kind == "image")
    states = trace.states[3, 1:last].float()
    unit = (states / states.norm(dim=-1, keepdim=True)).bfloat16()
    contexts = tuple(interp.lens.context_index.Context("", trace.tokens[i].text or "-", "", ids[i]) for i in range(1, last))
    own = ContextualIndex(unit, torch.full((last - 1,), 2), torch.arange(last - 1), contexts, vlm.name, "itself", made.weights)
    found = interp.contextual_lens(trace, own, top_k=1, layers=[2], positions=range(1, last))
    torch.testing.assert_close(found.probs, torch.ones_like(found.probs), atol=1e-2, rtol=0)


def test_vectors_are_the_states_of_a_plain_pass_over_the_line(vlm, made):
    entry = next(i for i, place in enumerate(made.places.tolist()) if made.contexts[place].word == "zebra" and made.layers[i] == 2)
    context = made.contexts[int(made.places[entry])]
    line = next(line for line in LINES if f"{context.before.removeprefix('… ')}zebra" in line)
    caught = []
    ids = vlm.tokenizer(line, return_tensors="pt").input_ids
    with vlm.lock, torch.no_grad(), interp.models.hooks.Hooks() as hooks:
        vlm.on_layer(hooks, 2, lambda hidden: caught.append(hidden[0]))
        vlm.model(input_ids=ids)
    at = len(vlm.tokenizer(line[: line.index("zebra") + 5]).input_ids) - 1
    expected = caught[0][at] / caught[0][at].norm()
    torch.testing.assert_close(made.vectors[entry].float(), expected, atol=4e-3, rtol=0)


def test_words_are_whole_and_kept_up_to_their_cap(vlm, made):
    assert {"dog", "boat", "zebra", "house"} <= set(made.words)
    assert "the" in made.words  # within a line
    assert all(context.word != "The" for context in made.contexts)  # the first word of a line
    assert len(made.vectors) <= 120
    counts = torch.bincount(made.word_of, minlength=len(made.words))
    assert int(counts.max()) == 3 * 3  # occurrences x layers, the same word in capitals included
    assert made.of_layers == (EMBED, 0, 2)
    few = interp.build_index(vlm, LINES, layers=[1], size=5, per_token=3)
    assert len(few.vectors) == len(few.words) == 5  # different words come first
    assert "dog" in few.words
    wanted = interp.build_index(vlm, LINES, layers=[1], size=3, per_token=2, words=["Zebra", "pizza", "dog"])
    assert sorted(wanted.words) == ["dog", "pizza", "zebra"]


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([" gir", "affe", "s", " eat", "."], ["giraffes", "eat"]),
        (["The", " A", " 3", "rd", "!", " it", "'s"], ["The", "rd", "it"]),
        (["\u732b", "\u304c", " dog"], ["\u732b", "\u304c", "dog"]),
        ([" well", "-", "known"], ["well", "known"]),
        ([" don", "'t", " say", " dog", "'s"], ["say", "dog"]),
        ([" x" * 31], []),
    ],
)
def test_pieces_are_joined_to_words(pieces, words):
    assert [word.text for word in whole_words(pieces)] == words


def test_a_reading_names_its_sentence_and_layer(lens, made):
    found = lens.context(1, 7, 2)
    assert found.context in made.contexts
    assert found.layer in made.of_layers
    assert found.context.word.casefold() == lens.texts(1, 7)[2].strip()
    assert found.similarity == float(lens.probs[lens.layers.index(1), 7, 2])
    assert f"[{found.context.word}]" in str(found.context)
    with pytest.raises(InterpError, match="rank is 4"):
        lens.context(1, 7, 4)


def test_a_word_has_the_similarity_and_rank_of_its_best_entry(lens, made, trace):
    for word in ("dog", "Zebra"):  # one token, and several
        states = trace.residual(1).float()
        all_words = (states / states.norm(dim=-1, keepdim=True)) @ made.vectors.float().T
        each = torch.stack([all_words[:, made.word_of == i].amax(-1) for i in range(len(made.words))], dim=-1)
        own = each[:, made.words.index(word.casefold())]
        axis = lens.layers.index(1)
        torch.testing.assert_close(lens.probability(word)[axis], own)
        assert torch.equal(lens.rank(word)[axis], (each > own[:, None] + 1e-7).sum(-1))
    with pytest.raises(InterpError, match="has no word 'wolf'"):
        lens.probability("wolf")


def test_what_is_saved_is_loaded(made, lens, trace, tmp_path):
    made.save(tmp_path / "new")
    loaded = interp.load_index(tmp_path / "new")
    assert loaded.contexts == made.contexts
    assert (loaded.model_name, loaded.made_from) == (made.model_name, "strings, 12 lines")
    for name in ("vectors", "layers", "places"):
        assert torch.equal(getattr(loaded, name), getattr(made, name))
    again = interp.contextual_lens(trace, loaded, top_k=4)
    assert torch.equal(again.neighbours, lens.neighbours)


def test_a_stopped_build_resumes_to_the_same_index(vlm, made, tmp_path, monkeypatch):
    monkeypatch.setattr(build_index, "_BATCH", 40)
    steps = []

    def stop(done, _of):
        steps.append(done)
        if len(steps) == 2:
            raise KeyboardInterrupt

    arguments = (vlm, LINES, [EMBED, 0, 2], 120, 3, 0, None, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        build_index.built(*arguments, stop)
    passes = []
    monkeypatch.setattr(build_index, "_states", lambda *a, states=build_index._states: passes.append(1) or states(*a))
    resumed = build_index.built(*arguments, lambda done, _of: steps.append(done))
    assert 0 < len(passes) == len(steps) - 4  # two batches of before are not run again
    torch.testing.assert_close(resumed.vectors, made.vectors, atol=1e-2, rtol=0)
    assert torch.equal(resumed.places, made.places)
    with pytest.raises(InterpError, match="other text, or with other settings"):
        build_index.built(vlm, LINES[1:], [EMBED, 0, 2], 120, 3, 0, None, tmp_path, stop)


def test_massive_states_are_left_out(vlm, monkeypatch):
    monkeypatch.setattr(build_index, "_MASSIVE", 1.0)
    some = interp.build_index(vlm, LINES, layers=[1], size=100, per_token=3)
    monkeypatch.setattr(build_index, "_MASSIVE", 1e9)
    every = interp.build_index(vlm, LINES, layers=[1], size=100, per_token=3)
    assert 0 < len(some.vectors) < len(every.vectors)


def test_the_command_builds_an_index_from_a_file(checkpoint, tmp_path, monkeypatch, capsys):
    (tmp_path / "text.txt").write_text("\n".join(LINES))
    folder = tmp_path / "target"
    command = ["index", "--model", checkpoint("crop"), "--quantize", "none", "--text", str(tmp_path / "text.txt")]
    monkeypatch.setattr(sys, "argv", [*command, "--target", str(folder), "--size", "30", "--layers", "1"])
    index.main()
    assert sorted(file.name for file in folder.iterdir()) == ["index.json", "index.safetensors"]
    assert f"{len(interp.load_index(folder).vectors)} entries" in capsys.readouterr().out


def test_foreign_folders_and_models_are_refused(made, vlm, load, picture, tmp_path):
    with pytest.raises(InterpError, match="it is no index of contexts"):
        interp.load_index(tmp_path)
    (tmp_path / "layer_3").mkdir()
    (tmp_path / "layer_3" / "embeddings_cache.pt").write_bytes(b"")
    with pytest.raises(InterpError, match=r"LatentLens as pickles.*can run code.*python -m interp\.lens\.index"):
        interp.load_index(tmp_path)
    made.save(tmp_path)
    about = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(about | {"contexts": about["contexts"][:3]}))
    with pytest.raises(InterpError, match="3 contexts"):
        interp.load_index(tmp_path)
    other = load("padded", "none").trace(picture, PROMPT, answer="dog")
    assert "other weights" in interp.contextual_lens(other, made, top_k=1, layers=[1]).note
    narrow = ContextualIndex(made.vectors[:, :8], made.layers, made.places, made.contexts, "narrow", "", {})
    with pytest.raises(InterpError, match=r"\(width 8, at least 3 layers\); .* has width 64"):
        narrow.check(vlm)


def test_text_without_words_is_refused(vlm):
    with pytest.raises(InterpError, match="none of the words"):
        interp.build_index(vlm, ["12 34", ""])
    with pytest.raises(InterpError, match="none of the words"):
        interp.build_index(vlm, ["a dog <image> and a cat"])  # special tokens are no text


def test_the_shipped_index_reads_the_nouns_on_patches(emoji_vlm):
    """At every layer, of scenes that training never used; compared with the wrong picture's nouns it reads nothing."""
    made = interp.load_index(interp.presets.ASSETS / "emoji-llava-lenses" / "contextual")
    data = sample("contextual", 3, SEEN_VENDORS)
    own = data.shares.argmax(-1)
    things = data.shares[..., : len(NOUNS)].amax(-1) >= 0.5
    hits, control = [], []
    for picture, truth, other, thing in zip(data.pictures, own, own.roll(1, 0), things, strict=True):
        trace = emoji_vlm.trace(picture, "Describe the image.", max_new_tokens=1)
        found = interp.contextual_lens(trace, made, top_k=1, positions=trace.grids[0].positions[thing.view(8, 8)].tolist())
        for layer in found.layers:
            words = [found.texts(layer, position)[0].strip() for position in found.positions]
            hits += [word == WORDS[i] for word, i in zip(words, truth[thing].tolist(), strict=True)]
            control += [word == WORDS[i] for word, i in zip(words, other[thing].tolist(), strict=True)]
    assert sum(hits) / len(hits) > 0.95
    assert sum(control) / len(control) < 0.03
