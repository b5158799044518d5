"""Scores of concepts, with tiny random CLIP and BERT models of the real classes: their arithmetic, their limits, and their controls."""

import dataclasses

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import interp
from interp import InterpError
from interp.concepts.scores import f1
from tests import tiny
from tests.concepts.test_learn import held, planted
from tests.conftest import PROMPT

PICTURES = [tiny.noise(60, 60, seed=i) for i in range(10)]


def words_only():
    """A tokenizer whose tokens are single characters."""
    alphabet = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyzAP,. "]
    backend = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(alphabet)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[SEP]",
        model_max_length=128,
    )


def tiny_clip(folder):
    torch.manual_seed(0)
    tokenizer = words_only()
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = shape | {"vocab_size": len(tokenizer), "max_position_embeddings": 128, "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0}
    CLIPModel(CLIPConfig(text_config=text, vision_config=shape | {"image_size": 32, "patch_size": 8}, projection_dim=16)).save_pretrained(
        folder
    )
    square = {"height": 32, "width": 32}
    CLIPProcessor(CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square), tokenizer).save_pretrained(folder)
    return str(folder)


def tiny_bert(folder):
    torch.manual_seed(0)
    tokenizer = words_only()
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(**shape, vocab_size=len(tokenizer), max_position_embeddings=128)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def states(vlm):
    return interp.collect(vlm, [(picture, PROMPT) for picture in PICTURES], 2, "image", max_new_tokens=3)


@pytest.fixture(scope="module")
def concepts(states):
    return interp.learn_concepts(states, 3, "k-means", maps=False)


def test_clip_scores_lie_between_their_limits_beside_controls(concepts, states, clip):
    found = interp.clip_score(concepts, states, clip, device="cpu")
    assert set(found.scores) == {"top 1", "top 3", "random words", "other sample", "noise"}
    assert all(0 <= score.mean <= 2.5 for score in found.scores.values())
    assert (found.kind, found.model, found.samples) == ("CLIPScore", clip, 10)
    assert interp.clip_score(concepts, states, clip, device="cpu").to_dict() == found.to_dict()


def test_clip_score_is_that_of_its_definition(concepts, states, clip):
    found = interp.clip_score(concepts, states, clip, device="cpu", limit=1)
    model, processor = CLIPModel.from_pretrained(clip).eval(), CLIPProcessor.from_pretrained(clip)
    strongest = int(concepts.transform(states)[0].argmax())
    text = f"A photo is described by the words {', '.join(concepts.words[strongest])}."
    with torch.inference_mode():
        out = model(**processor(images=states.picture(0), text=[text], return_tensors="pt", truncation=True))
    cosine = torch.nn.functional.cosine_similarity(out.image_embeds, out.text_embeds)
    assert found.scores["top 1"].mean == pytest.approx(2.5 * max(0.0, float(cosine)), abs=1e-4)


def test_the_order_of_samples_does_not_matter(vlm, concepts, states, clip):
    turned = interp.collect(vlm, [(picture, PROMPT) for picture in PICTURES[::-1]], 2, "image", max_new_tokens=3)
    one, other = (interp.clip_score(concepts, each, clip, device="cpu").scores for each in (states, turned))
    for name in ("top 1", "top 3"):
        assert one[name].mean == pytest.approx(other[name].mean, abs=1e-3)


def test_bert_score_of_equal_texts_is_one_and_it_is_symmetric(concepts, states, bert):
    said = {sample.id: ", ".join(concepts.words[int(k)]) for sample, k in zip(states.samples, concepts.assigned, strict=True)}
    found = interp.bert_score(concepts, states, bert, references=said, device="cpu")
    assert found.scores["top 1"].mean == pytest.approx(1, abs=1e-4)
    assert found.scores["random words"].mean < 1
    own = interp.bert_score(concepts, states, bert, device="cpu")
    assert own.scores["top 1"].mean <= 1
    make = torch.Generator().manual_seed(0)
    one, other = (torch.nn.functional.normalize(torch.randn(n, 8, generator=make), dim=1) for n in (3, 5))
    assert f1(one, other) == pytest.approx(f1(other, one))
    assert f1(one, one) == pytest.approx(1)
    precision, recall = (one @ other.T).amax(1).mean(), (one @ other.T).amax(0).mean()
    assert f1(one, other) == pytest.approx(float(2 * precision * recall / (precision + recall)))


def test_purity_of_what_is_known():
    rows = planted(10, 2)[0]
    concepts = interp.learn_concepts(held(rows), 2, "k-means", seeds=1)
    assigned = concepts.assigned.tolist()
    labels = {str(i): ["dog", "blue"] if k == 0 else ["cat", "blue"] for i, k in enumerate(assigned)}
    found = interp.purity(concepts, labels)
    assert found.mean == 1
    assert [one.label for one in found.each] == ["dog", "cat"], "blue says nothing: all have it"
    assert [one.size for one in found.each] == list(concepts.sizes)
    same = interp.purity(concepts, dict.fromkeys(labels, "thing"))
    assert (same.mean, same.shuffled, same.each[0].base) == (1, 1, 1)
    halves = {str(i): "even" if i % 2 else "odd" for i in range(10)}
    of = [halves[str(i)] for i, k in enumerate(assigned) if k == 0]
    assert interp.purity(concepts, halves).each[0].share == max(of.count("odd"), of.count("even")) / len(of)


def test_pure_concepts_beat_shuffled_labels():
    clusters = torch.eye(64)[:4].repeat_interleave(10, 0) * 9 + torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    concepts = interp.learn_concepts(held(clusters), 4, "k-means", seeds=1)
    found = interp.purity(concepts, {str(i): f"label {i // 10}" for i in range(40)}, held(clusters))
    assert found.mean == 1
    assert found.shuffled < 0.6
    assert found.to_dict()["concepts"][0]["share"] == 1


def test_what_is_refused(concepts, states, clip, bert, tmp_path):
    for call, message in (
        (lambda: interp.purity(concepts, {"0": "dog"}), "labels has none for sample '1'"),
        (lambda: interp.clip_score(concepts, states, str(tmp_path), device="cpu"), "cannot be loaded"),
        (lambda: interp.clip_score(concepts, states, bert, device="cpu"), "no embedding of pictures"),
        (lambda: interp.clip_score(dataclasses.replace(concepts, words=((),) * 3), states, clip, device="cpu"), "no words to score"),
        (lambda: interp.bert_score(concepts, states, bert, references={}, device="cpu"), "no caption for sample '0'"),
        (lambda: interp.clip_score(concepts, held(states.residual(), layer=2), clip, device="cpu"), "no picture of sample"),
    ):
        with pytest.raises(InterpError, match=message):
            call()
