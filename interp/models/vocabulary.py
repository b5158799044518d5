"""The text of each token, and which tokens spell a word."""

import functools
import re
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from .. import validation
from ..errors import InterpError

_LONGEST = 200  # characters of a word
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
_ODD = re.compile("[\udc80-\udcff]")  # how Python's "surrogateescape" marks bytes that are no text


@dataclass(frozen=True)
class Vocabulary:
    """The text of every id of a model's output layer.

    A text is what the token adds to a sentence, leading space included ("▁dog" and "Ġdog" are both " dog"). Bytes that are not
    valid UTF-8 by themselves are shown as "<0xE2>" (an emoji may begin with the token " <0xF0><0x9F>").
    """

    texts: tuple[str, ...]
    """The text of each id; "" where the tokenizer has none."""
    undecodable: tuple[int, ...]
    """Ids without a token (padding rows of the output layer). They count in a softmax, but are never listed."""

    @classmethod
    def of(cls, tokenizer: Any, size: int) -> "Vocabulary":
        """The vocabulary of an output layer with `size` rows. Token ids beyond that are left out."""
        _check_tokenizer(tokenizer)
        size = validation.whole_number("size", size, 1)
        pieces = dict.fromkeys(range(size), "")
        known = {i: piece for piece, i in tokenizer.get_vocab().items() if i < size}
        pieces |= known
        special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
        # By majority: a large vocabulary of one kind also has pieces that begin with the other kind's mark for a space.
        byte_level = sum(piece.startswith("Ġ") for piece in known.values()) > sum(piece.startswith("▁") for piece in known.values())
        read = functools.partial(_byte_level_text, _byte_alphabet()) if byte_level else _sentencepiece_text
        texts = tuple(piece if i in special else read(piece) for i, piece in pieces.items())
        return cls(texts, tuple(i for i in range(size) if i not in known))

    @functools.cached_property
    def _ids(self) -> dict[str, list[int]]:
        ids: dict[str, list[int]] = {}
        for i, piece in enumerate(self.texts):
            if piece:
                ids.setdefault(piece, []).append(i)
        return ids

    def resolve(self, word: str, tokenizer: Any, *, first_piece: bool = False) -> dict[str, int]:
        """Every single-token spelling of a word (with and without the leading space, as given and capitalised) and its id.

        Raises InterpError for an empty word, and for a word of several tokens, which it lists; with `first_piece`, the first of them is returned instead.
        """
        _check_tokenizer(tokenizer)
        word, first_piece = validation.text("A word", word, _LONGEST).strip(), validation.flag("first_piece", first_piece)
        if not word:
            raise InterpError("The word to look for is empty. Type one.")
        spellings: dict[str, int] = {}
        for spelling in dict.fromkeys([f" {word}", word, f" {word.capitalize()}", word.capitalize()]):
            for i in self._ids.get(spelling, []):
                spellings.setdefault(spelling, i)
        if spellings:
            return spellings
        ids = [i for i in tokenizer(f" {word}", add_special_tokens=False).input_ids if i < len(self.texts) and self.texts[i].strip()]
        if not ids:
            raise InterpError(f"The model has no token for any part of {word!r}. Try another word.")
        pieces = [self.texts[i] for i in ids]
        if first_piece:
            return {pieces[0]: ids[0]}
        raise InterpError(
            f"{word!r} is {len(ids)} tokens for this model ({', '.join(map(repr, pieces[:8]))}{', …' if len(ids) > 8 else ''}), and "
            f"words are read one token at a time. Try a shorter or more common word, or look for its first piece, {pieces[0]!r}."
        )


def _check_tokenizer(tokenizer: object) -> None:
    validation.instance("tokenizer", tokenizer, PreTrainedTokenizerBase, "a tokenizer of transformers, such as Vlm.tokenizer")


@functools.cache
def _byte_alphabet() -> dict[str, int]:
    """The printable characters that stand for the 256 bytes in byte-level BPE (GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}


def _byte_level_text(alphabet: dict[str, int], piece: str) -> str:
    if any(character not in alphabet for character in piece):
        return piece  # an added token, stored as plain text
    return _utf8_or_hex(bytes(alphabet[character] for character in piece))


def _sentencepiece_text(piece: str) -> str:
    if _BYTE.fullmatch(piece):
        return _utf8_or_hex(bytes([int(piece[3:5], 16)]))
    return piece.replace("▁", " ")


def _utf8_or_hex(data: bytes) -> str:
    return _ODD.sub(lambda found: f"<0x{ord(found[0]) - 0xDC00:02X}>", data.decode("utf-8", errors="surrogateescape"))
