import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from interp import InterpError
from interp.models.vocabulary import Vocabulary
from tests import tiny


@pytest.fixture(scope="module")
def byte_level():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def sentencepiece():
    """Llama's kind: "▁" for a space, bytes as "<0x41>"."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁dog",
        "dog",
        "▁",
        "▁▁",
        "▁D",
        "o",
        "g",
        "é",
        "Ġ",
        "<0xZZ>",
        "<0x+1>",
    ]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    tokenizer.add_tokens([AddedToken("<image>", special=True), AddedToken("▁odd", normalized=False)])
    return tokenizer


def text_of(tokenizer, piece, size=400):
    return Vocabulary.of(tokenizer, size).texts[tokenizer.convert_tokens_to_ids(piece)]


@pytest.mark.parametrize(
    ("piece", "text"),
    [
        ("Ġdog", " dog"),
        ("dog", "dog"),
        ("Ċ", "\n"),
        ("Ġ", " "),
        ("Ã", "<0xC3>"),
        ("A", "A"),
        ("<image>", "<image>"),
        ("</s>", "</s>"),
    ],
)
def test_byte_level_pieces(byte_level, piece, text):
    assert text_of(byte_level, piece) == text


def test_of_a_piece_that_ends_inside_a_letter_only_the_odd_bytes_are_shown_as_numbers():
    pieces = {"ĠðŁ": 0, "ĠcafÃ": 1, "©Ċ": 2, "Ã©": 3, "Ġa": 4}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(pieces, [])))
    assert Vocabulary.of(tokenizer, 5).texts == (" <0xF0><0x9F>", " caf<0xC3>", "<0xA9>\n", "é", " a")


@pytest.mark.parametrize(
    ("piece", "text"),
    [
        ("▁dog", " dog"),
        ("dog", "dog"),
        ("▁▁", "  "),
        ("é", "é"),
        ("Ġ", "Ġ"),  # a letter, though the other kind marks a space by it
        ("<0x0A>", "\n"),
        ("<0xE2>", "<0xE2>"),
        ("<0x41>", "A"),
        ("<0xZZ>", "<0xZZ>"),  # text that only looks like a byte
        ("<0x+1>", "<0x+1>"),
        ("<image>", "<image>"),
        ("▁odd", "▁odd"),  # an added token is stored as it reads
    ],
)
def test_sentencepiece_pieces(sentencepiece, piece, text):
    assert text_of(sentencepiece, piece) == text


def test_ids_without_a_token_are_named(byte_level):
    size = len(byte_level)
    padded = Vocabulary.of(byte_level, size + 3)
    assert padded.undecodable == (size, size + 1, size + 2)
    assert padded.texts[size:] == ("", "", "")
    assert Vocabulary.of(byte_level, size).undecodable == ()
    assert len(Vocabulary.of(byte_level, size - 5).texts) == size - 5  # a head may have fewer rows than the tokenizer has words


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("word", ["dog", " dog", "dog "])
def test_a_word_is_found_with_and_without_its_leading_space(kind, word, request):
    tokenizer = request.getfixturevalue(kind)
    found = Vocabulary.of(tokenizer, len(tokenizer)).resolve(word, tokenizer)
    space = "Ġ" if kind == "byte_level" else "▁"
    assert found[" dog"] == tokenizer.convert_tokens_to_ids(f"{space}dog")
    assert found["dog"] == tokenizer.convert_tokens_to_ids("dog")


def test_a_word_is_found_capitalised_but_not_the_other_way_round(byte_level):
    vocabulary = Vocabulary.of(byte_level, len(byte_level))
    assert set(vocabulary.resolve("dog", byte_level)) == {" dog", "dog", " Dog"}
    assert set(vocabulary.resolve("Dog", byte_level)) == {" Dog"}


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_a_word_of_several_pieces_names_them(kind, request):
    tokenizer = request.getfixturevalue(kind)
    vocabulary = Vocabulary.of(tokenizer, len(tokenizer))
    with pytest.raises(InterpError, match=r"'Dodo' is \d+ tokens .*'o'"):
        vocabulary.resolve("Dodo", tokenizer)
    first = vocabulary.resolve("Dodo", tokenizer, first_piece=True)
    assert len(first) == 1
    assert next(iter(first)).strip() == "D"


@pytest.mark.parametrize("word", ["", " ", "\n"])
def test_an_empty_word_is_refused(byte_level, word):
    with pytest.raises(InterpError, match="empty"):
        Vocabulary.of(byte_level, len(byte_level)).resolve(word, byte_level)


def test_ids_beyond_the_head_are_never_resolved(byte_level):
    dog = byte_level.convert_tokens_to_ids("Ġdog")
    with pytest.raises(InterpError):
        Vocabulary.of(byte_level, dog).resolve("pizza", byte_level)


@pytest.mark.parametrize("word", [None, 3, b"dog", ["dog"], "\ud800", "do\udfffg"])
def test_what_is_not_a_word_is_refused(byte_level, word):
    with pytest.raises(InterpError, match=r"A word (is|holds)"):
        Vocabulary.of(byte_level, len(byte_level)).resolve(word, byte_level)
