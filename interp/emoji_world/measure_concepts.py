"""Measure what concepts are good for: `python -m interp.emoji_world.measure_concepts` prints the tables of docs/proofs.md.

Steering by coarse, fine and learned vectors, each beside a random vector of the same length and the wrong sign; what a fine-tune moved; and how purely
concepts stand for what is in the picture. Vectors are made on one set of scenes, layer and amount are chosen on a second, and a third is reported.
"""

import argparse
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

import interp

from .concept_tasks import (
    STYLE,
    TASKS,
    Collected,
    Dictionary,
    Task,
    Vectors,
    answer_dictionary,
    constant,
    drawn,
    fit,
    fit_style,
    pictures,
    questions,
    recall,
)
from .concept_truth import purity_table, shift_table
from .scenes import Scene
from .steered import Asked, Push, random_push, scaled
from .train_adapter import in_style
from .words import COLORS, QUESTIONS

MODEL, TUNED = "emoji-llava", "emoji-llava + emoji-llava-adapter"
AMOUNTS = (0.5, 0.75, 1.0, 1.5, 2.0)
AIM = 0.8  # share of wanted answers
LEEWAY = 0.05  # how much less often other questions may be answered correctly
CHOSEN_ON = 24  # scenes
CHECKED = 12  # settings whose effect on other questions is looked at, the most promising first
RANDOM = 3  # random vectors


@dataclass(frozen=True)
class Exam:
    """One kind of question about some scenes."""

    asked: Asked
    truths: Sequence[str]
    scenes: Sequence[Scene]

    @classmethod
    def of(cls, vlm: interp.Vlm, scenes: Sequence[Scene], kinds: Sequence[str]) -> "Exam":
        """Kinds in turn, whose prompts have the same length."""
        both = questions(kinds, scenes)
        return cls(Asked(vlm, pictures(scenes), [question for question, _ in both]), [truth for _, truth in both], scenes)

    def said(self, layer: int, push: Push | None) -> list[str]:
        """The answers; None: as they are without a push."""
        return self.asked.plain if push is None else self.asked.pushed(layer, push(self.asked))

    def right(self, layer: int, push: Push | None, kept: Callable[[str], bool] = lambda _truth: True) -> float:
        """Share of right answers to the questions whose true answer is `kept`."""
        pairs = [(text == truth) for text, truth in zip(self.said(layer, push), self.truths, strict=True) if kept(truth)]
        return sum(pairs) / len(pairs)


@dataclass(frozen=True)
class Room:
    """All questions about one set of scenes that a task is judged by."""

    task: Task
    own: Exam
    same_kind: Exam | None
    others: Sequence[Exam]

    @classmethod
    def of(cls, vlm: interp.Vlm, task: Task, seed: str, count: int, exams: dict[tuple[str, ...], Exam]) -> "Room":
        """`exams`: those about other scenes, which tasks share; missing ones are added."""

        def exam(*kinds: str) -> Exam:
            if kinds not in exams:
                exams[kinds] = Exam.of(vlm, drawn(seed, count), kinds)
            return exams[kinds]

        return cls(
            task,
            Exam.of(vlm, task.pairs(f"{seed}, {task.name}", count)[0], task.asks[0]),
            exam(*task.same_kind[0]) if task.same_kind else None,
            [] if task is STYLE else [exam(kind) for kind in task.others],
        )

    def reached(self, layer: int, push: Push | None) -> float:
        """Share of answers that are what is wanted."""
        return share(self.task.reached, self.own.said(layer, push))

    def stays(self, layer: int, push: Push | None) -> float:
        """What should not change: the share of right answers to other questions or, for descriptions, of the nouns that they name."""
        if not self.others:
            return recall(self.own.scenes, self.own.said(layer, push))
        return sum(exam.right(layer, push) for exam in self.others) / len(self.others)


def share(holds: Callable[[str], bool], said: Sequence[str]) -> float:
    """Of answers for which it holds."""
    return sum(map(holds, said)) / len(said)


@dataclass(frozen=True)
class Choice:
    """A layer and an amount, and what they gave on the scenes they were chosen on."""

    layer: int
    amount: float


def choose(pushes: Mapping[int, Push], room: Room) -> tuple[Choice, dict[int, float]]:
    """The least push that reaches the aim and leaves the rest as it is, or else the best compromise; and what an amount of 1 reaches by layer."""
    found = {(layer, amount): room.reached(layer, scaled(push, amount)) for layer, push in pushes.items() for amount in AMOUNTS}
    by_layer = {layer: found[layer, 1.0] for layer in pushes}
    plain, best, gain = room.stays(0, None), Choice(*max(found, key=lambda key: found[key])), -torch.inf
    for (layer, amount), reached in sorted(found.items(), key=_promising)[:CHECKED]:
        lost = plain - room.stays(layer, scaled(pushes[layer], amount))
        if reached >= AIM and lost <= LEEWAY:
            return Choice(layer, amount), by_layer
        if reached - lost > gain:
            best, gain = Choice(layer, amount), reached - lost
    return best, by_layer


def _promising(setting: tuple[tuple[int, float], float]) -> tuple[bool, float, float]:
    """First what reaches the aim, the least amount before all; then the rest, what reaches most before all."""
    (_, amount), reached = setting
    return reached < AIM, amount if reached >= AIM else 0.0, -reached


def percent(*shares: float | None) -> str:
    """Cells of a table."""
    return " | ".join("-" if each is None else f"{100 * each:.0f}" for each in shares)


def controls(push: Push, measure: Callable[[Push], float]) -> tuple[float, float]:
    """What random pushes of the same length reach, on average, and what the opposite push reaches."""
    return sum(measure(random_push(push, seed)) for seed in range(RANDOM)) / RANDOM, measure(scaled(push, -1))


def row(room: Room, kind: str, choice: Choice, unit: Push) -> str:
    """One row of the table of answers, measured on other scenes than those it was chosen on."""
    task, layer, push = room.task, choice.layer, scaled(unit, choice.amount)

    def same(by: Push | None) -> float | None:
        return room.same_kind.right(layer, by, task.same_kind[1]) if room.same_kind and task.same_kind else None

    random, wrong = controls(push, lambda by: room.reached(layer, by))
    cells = percent(room.reached(layer, None), room.reached(layer, push), random, wrong, share(task.stayed, room.own.said(layer, push)))
    kept = f"{percent(same(None))} → {percent(same(push))}" if room.same_kind else "-"
    return (
        f"| {task.name} | {kind} | {layer}, {choice.amount:g} | {cells} | {kept} | "
        f"{percent(room.stays(layer, None))} → {percent(room.stays(layer, push))} |"
    )


ANSWERS = """| answer | vector | layer, amount | plain | steered | random | wrong sign | old answer | same kind | other questions |
|---|---|---|---|---|---|---|---|---|---|"""
BY_LAYER = """| answer | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
|---|---|---|---|---|---|---|---|---|"""


class Answers:
    """The two tasks about answers. What several of them need is made once."""

    def __init__(self, vlm: interp.Vlm, count: int) -> None:
        self._vlm, self._count = vlm, count
        self._known: Collected = {}
        self._choosing: dict[tuple[str, ...], Exam] = {}
        self._testing: dict[tuple[str, ...], Exam] = {}

    @functools.cached_property
    def _dictionary(self) -> Dictionary:
        return answer_dictionary(self._vlm, "concepts, dictionary", self._count)

    def rows(self, task: Task) -> list[str]:
        """What the coarse vector reaches layer by layer, and a row for each vector."""
        vlm, count = self._vlm, self._count
        vectors = fit(vlm, task, "concepts, fit", count, self._dictionary, self._known)
        first = Room.of(vlm, task, "concepts, choose", min(CHOSEN_ON, count), self._choosing)
        last = Room.of(vlm, task, "concepts, test", count, self._testing)
        rows = []
        for kind, pushes in vectors.pushes.items():
            if pushes:
                choice, by_layer = choose(pushes, first)
                rows.append(row(last, kind, choice, pushes[choice.layer]))
                if kind == "coarse":
                    rows.insert(0, f"| {task.name} | {percent(*by_layer.values())} |")
        return rows


def answer_tables(rows: Sequence[Sequence[str]]) -> list[str]:
    """The two tables, from the rows of each task."""
    return [ANSWERS, *(each for found in rows for each in found[1:]), "", BY_LAYER, *(found[0] for found in rows)]


STYLES = """| vector | layer, amount | places first | random | wrong sign | colours and places in each | in the fine-tune's style | nouns named |
|---|---|---|---|---|---|---|---|"""


def style_words(text: str) -> int:
    """How many colours and places a description names."""
    words = text.replace(",", " ").replace(".", " ").split()
    return sum(word in {*COLORS, "left", "right"} for word in words)


def moved(vlm: interp.Vlm, count: int) -> dict[int, Push]:
    """The mean move of the states of descriptions by the fine-tune, for every layer."""
    shown = [(picture, QUESTIONS["describe"][0]) for picture in pictures(drawn("concepts, fit", count))]
    layers = range(vlm.n_layers)
    before, after = (interp.collect(each, shown, list(layers), "answer") for each in (vlm, interp.load(TUNED)))
    return {layer: constant(after.residual(layer).mean(0) - before.residual(layer).mean(0)) for layer in layers}


def style_table(vlm: interp.Vlm, count: int) -> list[str]:
    """The task about style."""
    vectors: Vectors = fit_style(vlm, "concepts, fit", count)
    kinds = {**vectors.pushes, "what the fine-tune moved": moved(vlm, count)}
    first = Room.of(vlm, STYLE, "concepts, choose", min(CHOSEN_ON, count), {})
    last = Room.of(vlm, STYLE, "concepts, test", count, {})

    def cells(layer: int, push: Push | None) -> tuple[str, str]:
        said = last.own.said(layer, push)
        return f"{sum(map(style_words, said)) / len(said):.2f}", percent(share(in_style, said), recall(last.own.scenes, said))

    words, rest = cells(0, None)
    rows = [f"| plain | - | {percent(last.reached(0, None), None, None)} | {words} | {rest} |"]
    for kind, pushes in kinds.items():
        if not pushes:
            continue
        choice, _ = choose(pushes, first)
        layer, push = choice.layer, scaled(pushes[choice.layer], choice.amount)
        random, wrong = controls(push, functools.partial(last.reached, layer))
        words, rest = cells(layer, push)
        rows.append(f"| {kind} | {layer}, {choice.amount:g} | {percent(last.reached(layer, push), random, wrong)} | {words} | {rest} |")
    return [STYLES, *rows]


def parts(count: int) -> dict[str, Callable[[], list[str]]]:
    """Each part of the measurement by name, as lines of a table."""
    vlm = interp.load(MODEL)
    of_answers = Answers(vlm, count)
    return {
        **{task.name: functools.partial(of_answers.rows, task) for task in TASKS},
        "style": lambda: style_table(vlm, count),
        "shift": lambda: shift_table(vlm, interp.load(TUNED), 3 * count),
        "purity": lambda: purity_table(vlm, 3 * count),
    }


def page(done: Mapping[str, Sequence[str]]) -> str:
    """The tables of all parts."""
    rows = {"answers": answer_tables([done[task.name] for task in TASKS]), **{name: done[name] for name in ("style", "shift", "purity")}}
    return "\n".join(line for name, lines in rows.items() for line in ("", name, "", *lines))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=100, help="to make vectors of, and as many to report")
    parser.add_argument("--work", type=Path, help="a file that keeps finished parts, so that a run that was stopped goes on")
    parser.add_argument("--threads", type=int, help="CPU threads")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    done: dict[str, list[str]] = json.loads(args.work.read_text(encoding="utf-8")) if args.work and args.work.exists() else {}
    for name, make in tqdm(parts(args.scenes).items(), desc="concepts"):
        if name not in done:
            done[name] = make()
            if args.work:
                args.work.write_text(json.dumps(done), encoding="utf-8")
    print(page(done))  # noqa: T201 - this is the command's output


if __name__ == "__main__":
    main()
