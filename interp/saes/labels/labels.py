"""Names for the features of a sparse autoencoder, and the file that holds them beside it.

Names are optional: a damaged file is reported in `Labels.about` and costs nothing but names. Third-party text is reduced to one line without
control characters, but not escaped.
"""

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import InterpError
from ...files import write_text
from ...validation import as_number, shown, whole_number
from ...validation import text as checked_text

SCHEMA = "llava-microscope/labels/1"
LONGEST = 300  # characters of a name, and of how it was found
MAX_UNPACKED = 64 << 20  # bytes of one file
NUMBER = re.compile(r"0|[1-9]\d{0,8}", re.ASCII)
ID = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w.-]{0,99}/[A-Za-z0-9][\w.-]{0,199}", re.ASCII)  # owner/name
INSTEAD = "features show their top words instead."
UNNAMED = "unnamed"
"""The text of a feature that the naming method could not name."""


@dataclass(frozen=True)
class Label:
    """The name of one feature."""

    text: str
    """One line of 1 to `LONGEST` characters."""
    source: str
    """How it was found, as shown on the page."""
    score: float | None = None
    """The method's own score, if it has one."""


@dataclass(frozen=True)
class Labels:
    """The names of an SAE's features."""

    names: Mapping[int, Label]
    """By feature; those without a name are absent."""
    about: str
    """One line for the page: how many names, where they come from, and what is missing."""

    def get(self, feature: int) -> Label | None:
        """The name of a feature, if it has one."""
        return self.names.get(whole_number("feature", feature, 0))

    def named(self, word: str) -> list[int]:
        """Features whose names contain these whole words, ignoring case, in ascending order: "dog" finds "dog or fox", not "hotdog"."""
        wanted = " ".join(checked_text("word", word).casefold().split())
        whole = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)")
        return sorted(feature for feature, label in self._searched() if wanted and whole.search(label.text.casefold()))

    def search(self, text: str, limit: int = 50) -> list[int]:
        """Features whose names contain `text`, ignoring case: as whole words first, then at the start of a word, then anywhere."""
        limit, wanted = whole_number("limit", limit, 1), " ".join(checked_text("text", text).casefold().split())
        start = re.compile(rf"(?<!\w){re.escape(wanted)}(\w?)")
        ranked = []
        for feature, label in self._searched():
            name = label.text.casefold()
            if wanted and wanted in name:
                ranked.append((min((1 if found[1] else 0 for found in start.finditer(name)), default=2), feature))
        return [feature for _, feature in sorted(ranked)[:limit]]

    def _searched(self) -> Iterator[tuple[int, Label]]:
        return ((feature, label) for feature, label in self.names.items() if label.text != UNNAMED)


class TroubleError(ValueError):
    """A problem with an answer or a file, worded for the page."""


def labels_from_file(path: str | os.PathLike[str], features: int | None = None) -> Labels:
    """Read a labels.json written by `write_labels`. A missing or damaged file gives no names.

    `features`: the size of the dictionary; a file that names features beyond it counts as damaged.
    """
    path = Path(path)
    if not path.exists():
        return Labels({}, "This SAE ships no names; features show their top words.")
    try:
        if path.stat().st_size > MAX_UNPACKED:
            raise TroubleError(f"it has more than {MAX_UNPACKED >> 20} MB")
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise TroubleError(f"its schema is not {SCHEMA}")
        if not isinstance(data.get("method"), str) or not isinstance(data.get("labels"), dict):
            raise TroubleError("it lacks a method or labels")
        names = {}
        for key, entry in data["labels"].items():
            if not NUMBER.fullmatch(key) or (features is not None and int(key) >= features):
                raise TroubleError(f"{clean(key)!r} is not a feature of this SAE")
            if not isinstance(entry, dict):
                raise TroubleError(f"feature {key} has no text")
            names[int(key)] = Label(entry.get("text", ""), entry.get("source", ""), entry.get("score"))
            if flaw := _flaw(names[int(key)]):
                raise TroubleError(f"feature {key}: {flaw}")
    except (OSError, ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, TroubleError) else "it is not readable JSON"
        return Labels({}, f"The names in {path.name} cannot be used ({why}); {INSTEAD}")
    known = {feature: label for feature, label in names.items() if label.text != UNNAMED}
    return Labels(names, f"Names: {count(known, features)}, {clean(data['method'])}")


def write_labels(path: str | os.PathLike[str], names: Mapping[int, Label], method: str) -> None:
    """Write a labels.json; equal names give equal bytes. `method` says in a sentence or two how they were found.

    Raises InterpError for anything that `labels_from_file` would reject.
    """
    if not checked_text("method", method).strip():
        raise InterpError(f"method is {method!r}; it must say in a sentence or two how the names were found.")
    for feature, label in names.items():
        if type(feature) is not int or not 0 <= feature < 10**9:
            raise InterpError(f"Feature {shown(feature)} cannot be named: features are whole numbers from 0 to 999 999 999.")
        if flaw := _flaw(label):
            raise InterpError(f"The name of feature {feature} cannot be written: {flaw}.")
    entries = {str(i): {"text": names[i].text, "source": names[i].source, "score": names[i].score} for i in sorted(names)}
    write_text(path, lambda: json.dumps({"schema": SCHEMA, "method": method, "labels": entries}, ensure_ascii=False, indent=1) + "\n")


def neuronpedia_link(neuronpedia_id: str, feature: int) -> str:
    """The page of a feature on Neuronpedia. Raises InterpError for an invalid id."""
    if not is_neuronpedia_id(neuronpedia_id):
        raise InterpError(f"{neuronpedia_id!r} is not a Neuronpedia id; these look like gemma-2b/12-res-jb.")
    return f"https://neuronpedia.org/{neuronpedia_id}/{int(feature)}"


def is_neuronpedia_id(text: object) -> bool:
    """Whether this has the form of a Neuronpedia id, such as "gemma-2b/12-res-jb"."""
    return isinstance(text, str) and ID.fullmatch(text) is not None


def count(names: Mapping[int, Label], features: int | None) -> str:
    """The number of names, and of features if known, such as "1 342 of 2 048 features"."""
    return (f"{len(names):,}" + (f" of {features:,}" if features is not None else "") + " features").replace(",", " ")


def clean(text: str) -> str:
    """One line without control, format and surrogate characters, cut to `LONGEST`; may be "". The zero-width joiner of emoji stays."""
    seen = (c for c in text[: 8 * LONGEST] if c.isspace() or c == "\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    line = " ".join("".join(seen).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1].rstrip() + "…"


def _flaw(label: Label) -> str:
    """What is wrong with a label, "" if nothing."""
    for what, text in (("text", label.text), ("source", label.source)):
        if not isinstance(text, str) or not text or text != clean(text):
            return f"its {what} is not one line of 1 to {LONGEST} characters"
    score = label.score
    if score is not None and as_number(score) is None:
        return "its score is not a number"
    return ""
