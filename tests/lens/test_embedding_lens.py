import json

import pytest
import torch

import interp
from interp import EMBED, InterpError
from interp.models import unembed
from tests.conftest import PROMPT

ANSWER = "dog and cat on a red boat"


@pytest.fixture(params=["crop", "interleave", "padded"])  # untied; tied; output rows that no token belongs to
def trace(request, load, picture):
    return load(request.param).trace(picture, PROMPT, answer=ANSWER)


def naive(trace):
    """Cosine similarities [layers + 1, T, vocabulary]."""
    rows = trace.vlm.model.get_input_embeddings().weight[: len(trace.vlm.vocabulary.texts)].detach()
    return torch.nn.functional.normalize(trace.states, dim=-1) @ torch.nn.functional.normalize(rows, dim=-1).T


def test_it_equals_the_naive_cosines(trace):
    vlm, every = trace.vlm, naive(trace)
    lens = interp.embedding_lens(trace, top_k=4)
    assert (lens.method, lens.reads, lens.score_name) == ("embedding", "here", "cosine similarity")
    assert lens.entropy is lens.log_z is None
    shown = every.clone()
    shown[..., list(vlm.vocabulary.undecodable)] = -2
    torch.testing.assert_close(lens.probs, shown.topk(4).values)
    torch.testing.assert_close(every.gather(-1, lens.ids), lens.probs)
    assert lens.ids.max() < len(vlm.tokenizer)
    ids = list(lens.resolve("dog").values())
    best = every[..., ids].amax(-1, keepdim=True)
    torch.testing.assert_close(lens.probability("dog"), best[..., 0])
    assert ((lens.rank("dog") - (every > best).sum(-1)).abs() <= 1).all()  # rounding may swap two


def test_at_the_input_every_token_of_text_reads_itself(trace):
    lens = interp.embedding_lens(trace, top_k=1, layers=[EMBED])
    rows = trace.positions("prompt", "answer")
    assert lens.ids[0, rows, 0].tolist() == [trace.tokens[i].id for i in rows]
    torch.testing.assert_close(lens.probs[0, rows, 0], torch.ones(len(rows)))


def test_chunks_subsets_and_sixteen_bit_change_nothing(vlm, picture, monkeypatch):
    trace = vlm.trace(picture, PROMPT, answer=ANSWER)
    whole = interp.embedding_lens(trace, top_k=3)
    monkeypatch.setitem(unembed._BUFFER_BYTES, "cpu", 7 * 320 * 4)
    small = interp.embedding_lens(trace, top_k=3, layers=[2, EMBED], positions=[5, 0, 31])
    torch.testing.assert_close(small.probs, whole.probs[[3, 0]][:, [5, 0, 31]])
    assert small.texts(2, 31) == whole.texts(2, 31)
    torch.testing.assert_close(interp.embedding_lens(trace).probs[..., :3], whole.probs)
    table = vlm.model.get_input_embeddings()
    monkeypatch.setattr(interp.lens.embedding_lens, "_STEP", 50)
    monkeypatch.setitem(table._parameters, "weight", torch.nn.Parameter(table.weight.bfloat16()))
    torch.testing.assert_close(interp.embedding_lens(trace, top_k=3).probs, whole.probs, atol=2e-3, rtol=0)


def test_json_says_that_scores_are_similarities(trace, tmp_path):
    lens = interp.embedding_lens(trace, layers=[1])
    lens.to_json(tmp_path / "lens.json")
    data = json.loads((tmp_path / "lens.json").read_text(encoding="utf-8"))
    assert data["schema"] == "llava-microscope/logit-lens/2"
    assert (data["method"], data["reads"], data["score_name"], data["entropy"]) == ("embedding", "here", "cosine similarity", None)
    old = interp.logit_lens(trace, layers=[1]).to_dict()
    assert (old["schema"], old["method"], old["reads"], old["score_name"]) == (
        "llava-microscope/logit-lens/1",
        "logit",
        "next",
        "probability",
    )


def test_fewer_embeddings_than_words_are_refused(trace, monkeypatch):
    table = trace.vlm.model.get_input_embeddings()
    monkeypatch.setitem(table._parameters, "weight", torch.nn.Parameter(table.weight[:100].detach()))
    with pytest.raises(InterpError, match="100 input embeddings"):
        interp.embedding_lens(trace)
