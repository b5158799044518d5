"""The answers that `steer` has collected: read from its files, and written in the format of multimodal-sae, with verdicts where there are some."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import write_whole
from .asking import JOURNAL
from .explanation_files import key_of
from .journal import Entry, read_journal
from .said import said_of
from .scoring import judges
from .steered_judge import category
from .study import Study

SUMMARY = "summary.json"
UNCHANGED = "1"
"""The category of answers that are the same, which no judge is asked about."""


@dataclass(frozen=True)
class Answered:
    """What one feature does to the answer on one sample."""

    sample: int
    feature: int
    prompt: str
    original: str
    clamped: str
    kl: float
    label: str
    """What the feature is said to stand for, "" if nothing is."""

    @property
    def changed(self) -> bool:
        """Whether the answer is another."""
        return self.original != self.clamped

    def key(self, label: str) -> str:
        """The name of a question to the judge, which is asked anew about another label or other answers."""
        control = " control" * (label != self.label)
        return judges.key_of(f"{self.sample:05} {self.feature}{control}", label, self.prompt, self.original, self.clamped)


@dataclass(frozen=True)
class Steered:
    """All answers of one run of `steer`."""

    folder: Path
    name: str
    samples: int
    answers: tuple[Answered, ...]
    """By sample, then as the features were listed."""
    failures: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, study: Study, name: str, batches: int, samples: int) -> "Steered":
        """From the files, all of which are there."""
        folder, said = study.folder / name, said_of(study)
        answers, failures = [], []
        for sample in range(samples):
            for number in range(batches):
                held = json.loads((folder / "answers" / f"{sample:05}-{number:04}.json").read_text(encoding="utf-8"))
                for row in held["rows"]:
                    if "failure" in row:
                        failures.append({"sample": sample, **row})
                        continue
                    label = said.get(row["feature"], {}).get("label", "")
                    answers.append(Answered(sample, row["feature"], held["prompt"], row["original"], row["clamped"], row["kl"], label))
        return cls(folder, name, samples, tuple(answers), tuple(failures))

    def picture(self, sample: int) -> Path:
        """The small copy of a sample's picture."""
        return self.folder / "pictures" / f"{sample:05}.webp"

    @property
    def judge(self) -> str:
        """The folder in the study where the verdicts are kept."""
        return f"{self.name}-judge"

    @property
    def journal(self) -> Path:
        """The judge's."""
        return self.folder.with_name(self.judge) / JOURNAL

    def of_sample(self) -> Iterator[tuple[int, list[Answered]]]:
        """The answers of each sample."""
        held: dict[int, list[Answered]] = {sample: [] for sample in range(self.samples)}
        for each in self.answers:
            held[each.sample].append(each)
        return iter(held.items())


def verdict(each: Answered, entries: Mapping[str, Entry]) -> str | None:
    """The category of a change, None if it was not judged."""
    if not each.changed:
        return UNCHANGED
    entry = entries.get(each.key(each.label))
    return None if entry is None or entry.failure else category(entry.answer)


def write(study: Study, steered: Steered, *, one: bool) -> str:
    """Write the answers, one file for each sample (or for the `one` picture), and the summary. Returns what there is to say."""
    entries = read_journal(steered.journal)
    judged = bool(entries)
    for sample, answers in steered.of_sample():
        place = steered.folder if one else steered.folder / "samples" / f"{sample:05}"
        place.mkdir(parents=True, exist_ok=True)
        held = {key_of(study.module, each.feature): _as_reference(each, verdict(each, entries) if judged else None) for each in answers}
        write_whole(place / f"{study.module}.json", json.dumps(held, indent=4, ensure_ascii=False) + "\n")
    features = [_summed(feature, answers, entries) for feature, answers in sorted(_by_feature(steered.answers).items())]
    summary = {
        "schema": "llava-microscope/study-steer/1",
        "module": study.module,
        "samples": steered.samples,
        "features": features,
        "failures": list(steered.failures),
        **({"judged": _judged(steered, entries)} if judged else {}),
    }
    write_whole(steered.folder / SUMMARY, json.dumps(summary, ensure_ascii=False, indent=1) + "\n")
    turned = sum(each["changed"] > 0 for each in features)
    failed = f" {len(steered.failures)} answers failed: see {SUMMARY}." if steered.failures else ""
    return f"{turned} of {len(features)} features change an answer, on {steered.samples} samples.{failed}"


def _by_feature(answers: Sequence[Answered]) -> dict[int, list[Answered]]:
    out: dict[int, list[Answered]] = {}
    for each in answers:
        out.setdefault(each.feature, []).append(each)
    return out


def _as_reference(each: Answered, found: str | None) -> dict[str, Any]:
    """As multimodal-sae writes it; "explanation" and "category" as its judge adds them."""
    told = {"original_resps": each.original, "clamped_resps": each.clamped, "idx": each.feature}
    return told if found is None else {**told, "explanation": each.label, "category": found}


def _summed(feature: int, answers: Sequence[Answered], entries: Mapping[str, Entry]) -> dict[str, Any]:
    verdicts = Counter(found for each in answers if each.changed and (found := verdict(each, entries)))
    return {
        "feature": feature,
        "label": answers[0].label,
        "samples": len(answers),
        "changed": sum(each.changed for each in answers),
        "kl": sum(each.kl for each in answers) / len(answers),
        **({"categories": dict(sorted(verdicts.items()))} if verdicts else {}),
    }


def _judged(steered: Steered, entries: Mapping[str, Entry]) -> dict[str, Any]:
    """How many changes are of each category, beside the same of the controls, which were judged with the label of another feature."""
    changed = [each for each in steered.answers if each.changed]
    found = Counter(verdict(each, entries) for each in changed if each.label)
    controls = Counter(category(entry.answer) for key, entry in entries.items() if " control " in key and not entry.failure)
    return {
        "unchanged": len(steered.answers) - len(changed),
        "categories": {name: count for name, count in sorted(found.items(), key=str) if name},
        "failed": found[None],
        "without_label": sum(not each.label for each in changed),
        "controls": dict(sorted(controls.items())),
    }
