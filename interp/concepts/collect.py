"""Collecting states: many samples answered in batches, several layers read in the same pass, nothing kept but what is wanted.

Samples whose inputs have the same shapes share a batch, so nothing is ever padded before the answer and a batch gives what single runs give. With a
folder, every few dozen samples are written as one file and forgotten: memory does not grow with their number, and a collection that was cut
off goes on where it stopped.
"""

import hashlib
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from ..devices import retry_on_oom
from ..errors import InterpError
from ..models.hooks import Hooks
from ..models.identity import fingerprint
from ..models.vlm import Inputs, Vlm
from ..steering.batch import check_stop, prompt_of
from ..steering.generation import Answer, answer_of, joined, rows_at_once
from ..tracing.record import greedy
from ..tracing.trace import checked_layer
from ..validation import file_path, function, instance, sequence, shown, whole_number
from . import state_files
from .samples import Sample, Samples, samples_of
from .states import ConceptStates, Sampled
from .wanted import Found, Keeper, Wanted

PROMPT = "Describe the image."
CHUNK = 64
"""Samples in one file."""
_BATCH = 16  # samples answered together; more gain little and wait for the longest answer
_LOWER = "Lower batch or max_new_tokens, load the model with quantize='4bit', or choose a smaller model."
Layers = int | Sequence[int]
T = TypeVar("T")


@dataclass(frozen=True)
class _Prepared:
    sample: Sample
    inputs: Inputs
    forced: torch.Tensor | None


@dataclass(frozen=True)
class _Done:
    about: Sampled
    found: Found | None
    picture: bytes


def collect(
    vlm: Vlm,
    samples: Any,
    layer: Layers,
    where: Any = "answer",
    *,
    prompt: str = PROMPT,
    max_new_tokens: int = 32,
    batch: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
    stop: threading.Event | None = None,
) -> ConceptStates:
    """The states of one `layer`, or of several given as a list, over many samples, one greedy answer for each.

    `samples`: a folder (of pictures, an imagefolder data set, parquet files, or one that `datasets` saved), a list of pictures, of (picture,
    prompt) or of (picture, prompt, answer to force), or a data set of `datasets`. `prompt` is asked where a sample brings none.

    `where`: which states.

    - a word ("dog"), or a list of words: the state that emits the first of them in the answer, in any spelling (as the state before it predicts
      it, this is not the state of the word's own token). Samples whose answer lacks it have no state.
    - "answer": the mean of the states that emit the answer. "last": the prompt's last position, which emits the answer's first token. "end": the
      state that emits its last one (the end-of-answer token, if it ended), and so has read all of its words.
    - "image", "prompt", "all", patches, a box or positions, as in `tracing.select`: their mean, without BOS and attention sinks.
    - "patches": every patch by itself.

    A word that is also one of these names is given as a list: ["image"]. With `folder`, states are kept there in files, and a collection
    that was interrupted is continued. `batch`: samples run together (by default what memory allows, up to 16). `on_progress` gets the samples done
    and their number (None if unknown) instead of a progress bar. Setting `stop` ends the run with `StoppedError` between two batches.

    Raises InterpError for samples that cannot be read, layers that do not exist, no samples, and a folder that holds other states.
    """
    instance("vlm", vlm, Vlm, "a Vlm, as interp.load(...) returns")
    several = isinstance(layer, Sequence) and not isinstance(layer, str)
    given = sequence("layer", layer, "layer numbers, or one") if several else [layer]
    at = tuple(sorted({checked_layer(each, vlm.name, vlm.n_layers) for each in given}))
    wanted = Wanted.of(where)
    new = whole_number("max_new_tokens", max_new_tokens, 1, vlm.context, hint=f"the context of {vlm.name}")
    batch = None if batch is None else whole_number("batch", batch, 1)
    function("on_progress", on_progress)
    if stop is not None:
        instance("stop", stop, threading.Event, "a threading.Event, or None")
    place = None if folder is None else file_path("folder", folder)
    found = samples_of(samples, prompt)
    run = _Run(vlm, at, wanted, new, batch, stop)
    with tqdm(total=found.count, desc="states", unit="sample", disable=on_progress is not None or None) as bar:

        def show(done: int) -> None:
            bar.update(done - bar.n)
            if on_progress:
                on_progress(done, found.count)

        return run.into_memory(found, show) if place is None else run.into_folder(found, place, show)


def _in_parts(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """`size` items at a time, and the rest."""
    left = iter(items)
    while part := tuple(itertools.islice(left, size)):
        yield part


@dataclass(frozen=True)
class _Run:
    vlm: Vlm
    layers: tuple[int, ...]
    wanted: Wanted
    max_new_tokens: int
    batch: int | None
    stop: threading.Event | None

    @property
    def about(self) -> dict[str, Any]:
        vlm = self.vlm
        notes = ["Samples that lack the word have no state."] if self.wanted.kind == "words" else []
        return {
            "model": vlm.name,
            "layers": list(self.layers),
            "where": self.wanted.describe(),
            "width": vlm.d_model,
            "normed": False,
            "notes": notes,
            "weights": fingerprint(vlm),
            "max_new_tokens": self.max_new_tokens,
        }

    def into_memory(self, samples: Samples, show: Callable[[int], None]) -> ConceptStates:
        """All states, held in memory."""
        parts: list[dict[str, torch.Tensor]] = []
        described: list[Sampled] = []
        sample_of: list[torch.Tensor] = []
        positions: list[torch.Tensor] = []
        done = 0
        for some in _in_parts(samples.read(), CHUNK):
            tensors, about = self._part(some, done, show)
            sample_of.append(tensors.pop("sample") + done)
            positions.append(tensors.pop("position"))
            parts.append(tensors)
            described += about
            done += len(some)
        if not done:
            raise InterpError("samples is empty: there is nothing to collect.")
        made = self.about
        return ConceptStates(
            made["model"],
            self.layers,
            made["where"],
            tuple(described),
            torch.cat(sample_of),
            torch.cat(positions),
            made["width"],
            notes=tuple(made["notes"]),
            _parts=tuple(parts),
            _vlm=self.vlm,
            _weights=made["weights"],
        )

    def into_folder(self, samples: Samples, folder: Path, show: Callable[[int], None]) -> ConceptStates:
        """All states, in files: those that are there already are kept, if they are of the same samples."""
        made = self.about
        digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()
        if state_files.begun(folder):
            if state_files.read_index(folder).get("digest") != digest:
                raise InterpError(
                    f"folder {shown(str(folder))} holds states of another model, layer, place or number of tokens. Remove it, or name another."
                )
        elif state_files.parts(folder):
            raise InterpError(
                f"folder {shown(str(folder))} holds parts of states without their {state_files.INDEX}. Remove it, or name another."
            )
        state_files.write_index(folder, made | {"digest": digest, "complete": False})
        reader, done = samples.read(), 0
        for number, file in enumerate(state_files.parts(folder)):
            kept = [row["id"] for row in state_files.read_head(file, made).samples]
            here = [sample.id for sample in itertools.islice(reader, CHUNK)]
            if here[: len(kept)] != kept:
                raise InterpError(f"folder {shown(str(folder))} holds states of other samples. Remove it, or name another.")
            if len(kept) < len(here):  # the last part of fewer samples, to which more were added
                reader = itertools.islice(samples.read(), number * CHUNK, None)
                break
            done += len(kept)
            show(done)
        for some in _in_parts(reader, CHUNK):
            tensors, about = self._part(some, done, show)
            state_files.write_part(folder, done // CHUNK, tensors, [vars(each) for each in about])
            done += len(some)
        if not done:
            raise InterpError("samples is empty: there is nothing to collect.")
        state_files.drop_parts(folder, -(-done // CHUNK))
        state_files.write_index(folder, made | {"digest": digest, "complete": True})
        return ConceptStates.load(folder, self.vlm)

    def _part(self, samples: Sequence[Sample], done: int, show: Callable[[int], None]) -> tuple[dict[str, torch.Tensor], list[Sampled]]:
        """The tensors of one part, and its samples in the order given."""
        out: list[_Done | None] = [None] * len(samples)
        for numbers, ready in self._batches(samples):
            check_stop(self.stop)
            for number, each in zip(numbers, self._answered(ready), strict=True):
                out[number] = each
            show(done + sum(each is not None for each in out))
        rows = [each for each in out if each is not None]
        states = [each.found.states for each in rows if each.found is not None]
        whole = torch.cat(states, 1) if states else torch.empty(len(self.layers), 0, self.vlm.d_model, dtype=self.vlm.model.dtype)
        found = [(number, position) for number, each in enumerate(rows) if each.found is not None for position in each.found.positions]
        tensors = {f"layer.{layer}": whole[i].contiguous() for i, layer in enumerate(self.layers)}
        tensors |= {
            "sample": torch.tensor([number for number, _ in found], dtype=torch.int64),
            "position": torch.tensor([position for _, position in found], dtype=torch.int64),
            **state_files.packed([each.picture for each in rows]),
        }
        return tensors, [each.about for each in rows]

    def _batches(self, samples: Sequence[Sample]) -> Iterator[tuple[list[int], list[_Prepared]]]:
        """Samples whose inputs have the same shapes, a batch at a time, and their numbers."""
        waiting: dict[Any, tuple[list[int], list[_Prepared]]] = {}
        for number, sample in enumerate(samples):
            try:
                inputs = self.vlm.prepare(sample.picture, sample.prompt)
            except InterpError as error:
                raise InterpError(f"Sample {shown(sample.id)} of samples: {error}") from error
            forced = None if sample.answer is None else self.vlm.answer_ids(inputs, sample.answer)
            self.vlm.check_length(inputs["input_ids"].shape[1], self.max_new_tokens if forced is None else len(forced) - 1)
            key = (forced is None, *((name, tensor.shape) for name, tensor in inputs.items()))
            numbers, ready = waiting.setdefault(key, ([], []))
            numbers.append(number)
            ready.append(_Prepared(sample, inputs, forced))
            if len(ready) >= self._most(inputs):
                yield waiting.pop(key)
            elif sum(len(held) for _, held in waiting.values()) >= 2 * _BATCH:  # of prepared pictures, which are large
                yield waiting.pop(max(waiting, key=lambda key: len(waiting[key][1])))
        yield from waiting.values()

    def _most(self, inputs: Inputs) -> int:
        """Samples run together."""
        return self.batch or min(_BATCH, rows_at_once(self.vlm, inputs["input_ids"].shape[1] + self.max_new_tokens))

    def _answered(self, ready: Sequence[_Prepared]) -> list[_Done]:
        def run(less: int) -> list[_Done]:
            step = -(-len(ready) // less)
            return [done for some in _in_parts(ready, step) for done in self._together(some)]

        with self.vlm.lock, torch.inference_mode():
            return retry_on_oom(run, _LOWER)

    def _together(self, ready: Sequence[_Prepared]) -> list[_Done]:
        vlm = self.vlm
        prompts = [prompt_of(vlm, each.inputs) for each in ready]
        tensors = joined([each.inputs for each in ready])
        keeper = Keeper(self.wanted, self.layers, prompts)
        with Hooks() as hooks:
            keeper.on(hooks, vlm)
            answers = self._generated(tensors) if ready[0].forced is None else self._forced(tensors, [each.forced for each in ready])
        found = keeper.found(answers, vlm.end_ids)
        return [
            _Done(
                Sampled(each.sample.id, each.sample.prompt, answer.text, got.word if got else "", each.sample.path),
                got,
                state_files.webp(each.inputs.image),
            )
            for each, answer, got in zip(ready, answers, found, strict=True)
        ]

    def _generated(self, tensors: dict[str, torch.Tensor]) -> list[Answer]:
        with greedy(self.vlm):
            ids = self.vlm.model.generate(**tensors, max_new_tokens=self.max_new_tokens, do_sample=False)
        return [answer_of(self.vlm, row) for row in ids[:, tensors["input_ids"].shape[1] :].tolist()]

    def _forced(self, tensors: dict[str, torch.Tensor], answers: Sequence[torch.Tensor | None]) -> list[Answer]:
        """Read forced answers: shorter ones are padded behind their end, where causal attention never looks."""
        given = [answer.tolist() for answer in answers if answer is not None]
        longest = max(map(len, given)) - 1
        first = self.vlm.model(**tensors, use_cache=True, logits_to_keep=1)
        ids = torch.tensor([[*row[:-1], *[row[-1]] * (longest + 1 - len(row))] for row in given], device=self.vlm.model.device)
        self.vlm.model(input_ids=ids, past_key_values=first.past_key_values, use_cache=True, logits_to_keep=1)
        return [answer_of(self.vlm, row) for row in given]
