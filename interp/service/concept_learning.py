"""Learning a dictionary of concepts from a visitor's own pictures, within limits that the page says."""

import contextlib
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from ..concepts.collect import collect
from ..concepts.concepts import Concepts
from ..concepts.learn import learn_concepts
from ..concepts.samples import Samples, samples_of
from ..concepts.wanted import Wanted
from ..errors import InterpError
from ..models.vlm import Vlm
from ..presets import PRESETS
from ..steering.batch import check_stop, prompt_of
from ..validation import index, shown
from . import picture_zip
from .concept_shelf import ConceptShelf, Learned
from .requests import MAX_LEARNED, LearnRequest
from .runs import Runs
from .service import Service

MAX_PICTURES = 500
MAX_STATES = 1_000_000_000
"""Bytes of all states, in float32."""
_UNSTABLE = 0.7
OnProgress = Callable[[str], None]
LIMITS = (
    f"At most {MAX_PICTURES} pictures, a zip of {picture_zip.MAX_ZIP / 1e6:.0f} MB and {picture_zip.MAX_UNPACKED / 1e6:.0f} MB unpacked, {MAX_LEARNED} concepts, and "
    f"{MAX_STATES / 1e9:.0f} GB of states. The pictures are deleted as soon as the dictionary is learned; it keeps small copies of those that a concept is strongest on."
)


class ConceptLearning:
    """One learning at a time, with the service's model. What is learned is put on the shelf."""

    def __init__(self, service: Service, shelf: ConceptShelf) -> None:
        self.service, self._shelf = service, shelf
        self.runs = Runs()
        self._busy = threading.Lock()

    def layer(self, model: str) -> int | None:
        """The layer that is read unless another is asked for: that of the model's own dictionary or SAE, so that both can be compared; None if it has neither."""
        known = PRESETS.get(model)
        if known is None:
            return None
        layers = [*(each.layer for each in known.concepts), *(each.layer for each in known.saes)]
        return layers[0] if layers else None

    def learn(self, request: LearnRequest, on_progress: OnProgress | None = None, stop: threading.Event | None = None) -> Learned:
        """A dictionary of the pictures in a zip, or in a folder of this machine. Setting `stop` ends it with StoppedError.

        Raises InterpError where learning is not allowed, for pictures that cannot be used, and for more than the limits.
        """
        tell = on_progress or (lambda _doing: None)
        if not self.service.can_learn:
            raise InterpError(self.service.why_not_learn)
        if request.folder and not self.service.own_files:
            raise InterpError("folder is of the server, which is shared: upload a zip of pictures instead.")
        if bool(request.folder) == (request.pictures is not None):
            given = "neither was given" if request.pictures is None else "both were given"
            raise InterpError(f"Learning needs a zip of pictures{', or a folder' if self.service.own_files else ''}: {given}.")
        Wanted.of(request.where)
        with self._alone(), tempfile.TemporaryDirectory(prefix="concepts-") as place:
            return self._learn(request, Path(place), tell, stop)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise InterpError("This server is already learning from somebody's pictures. Try again in a few minutes.")
        try:
            yield
        finally:
            self._busy.release()

    def _learn(self, request: LearnRequest, place: Path, tell: OnProgress, stop: threading.Event | None) -> Learned:
        vlm = self.service.vlm(request.model, tell)
        layer = self.layer(vlm.name) if request.layer is None else request.layer
        layer = index(
            "Layer", vlm.n_layers // 2 if layer is None else layer, 0, vlm.n_layers - 1, f"{vlm.name} has layers 0 to {vlm.n_layers - 1}"
        )

        def checked(done: int, count: int) -> None:
            check_stop(stop)
            tell(f"Looked through {done} of {count} pictures …")

        source = Path(request.folder)
        if request.pictures is not None:
            source = place / "pictures"
            source.mkdir()
            picture_zip.unpack(request.pictures, source, MAX_PICTURES, checked)
        samples = samples_of(source, request.prompt)
        count = _counted(samples)
        _check_states(vlm, request.where, samples, count)
        progress = _Answering(tell, lambda: self._check_model(vlm))
        how: dict[str, Any] = {"prompt": request.prompt, "max_new_tokens": request.max_new_tokens, "stop": stop}
        states = collect(vlm, source, layer, request.where, folder=place / "states", on_progress=progress, **how)
        _check_size(len(states), vlm, count)
        tell(f"Splitting {len(states):,} states into {request.n} concepts, three times …")
        concepts = learn_concepts(states, request.n, request.method, stop=stop)
        return self._kept(concepts, request, count)

    def _check_model(self, vlm: Vlm) -> None:
        if not self.service.holds(vlm):
            raise InterpError(f"{vlm.name} was replaced by another model, so nothing was learned. Choose it again and press Learn.")

    def _kept(self, concepts: Concepts, request: LearnRequest, count: int) -> Learned:
        """On the shelf: without the model, which may be replaced, and without paths of files that are gone."""
        if request.pictures is not None:
            bare = tuple(tuple(replace(example, path="") for example in row) for row in concepts.examples)
            concepts = replace(concepts, examples=bare)
        source = "a zip" if request.pictures is not None else request.folder
        about = (
            f"Learned here from {count} pictures of {source}, with the prompt {shown(request.prompt)}: {figures(concepts)} "
            "Nothing is known of what is on these pictures, so nothing was compared with it."
        )
        learned = Learned(f"learned-{secrets.token_urlsafe(9)}", replace(concepts, _vlm=None), about)
        self._shelf.keep(learned)
        return learned


def figures(concepts: Concepts) -> str:
    """How far to trust concepts: what they leave unexplained, against both baselines, and how far other seeds find them again."""

    def share(value: float | None) -> str:
        return "an unknown share" if value is None else f"{100 * value:.1f} %"

    weak = sum(each < _UNSTABLE for each in concepts.stability)
    return (
        f"{len(concepts)} concepts by {concepts.method} of {len(concepts.activations):,} states ({concepts.where}) at layer {concepts.layer} leave {share(concepts.fit.fvu)} of "
        f"their variance unexplained ({share(concepts.fit.fvu_zero)} of their size, mean included). Stability over seeds: {median(concepts.stability):.2f} in the middle, "
        f"lowest {min(concepts.stability):.2f}; {weak} below {_UNSTABLE}."
    )


def _counted(samples: Samples) -> int:
    count = sum(1 for _ in samples.read()) if samples.count is None else samples.count
    if count > MAX_PICTURES:
        raise InterpError(
            f"There are {count} pictures; the limit of the page is {MAX_PICTURES}. Use fewer, or interp.collect and interp.learn_concepts in Python."
        )
    return count


def _check_states(vlm: Vlm, where: str, samples: Samples, count: int) -> None:
    """Refuse early what would be too many states, judged by the first picture."""
    if Wanted.of(where).kind != "patches":
        return
    first = next(samples.read())
    prompt = prompt_of(vlm, vlm.prepare(first.picture, first.prompt))
    _check_size(count * sum(grid.positions.numel() for grid in prompt.grids), vlm, count)


def _check_size(rows: int, vlm: Vlm, count: int) -> None:
    size = rows * vlm.d_model * 4
    if size > MAX_STATES:
        raise InterpError(
            f"The {rows:,} states of {count} pictures take {size / 1e9:.1f} GB; the limit is {MAX_STATES / 1e9:.0f} GB. Use about {count * MAX_STATES // size} pictures, or one "
            "state of each: choose 'answer' or 'image' instead of 'patches'."
        )


class _Answering:
    """Tells how many pictures are answered, and how long the rest will take."""

    def __init__(self, tell: OnProgress, check: Callable[[], None]) -> None:
        self._tell, self._check, self._start = tell, check, time.monotonic()

    def __call__(self, done: int, of: int | None) -> None:
        self._check()
        left = (time.monotonic() - self._start) / done * ((of or done) - done) if done else 0.0
        self._tell(f"Answered {done} of {of} pictures{_about(left)} …")


def _about(seconds: float) -> str:
    if seconds < 5:
        return ""
    return f", about {seconds / 60:.0f} minutes left" if seconds >= 90 else f", about {seconds:.0f} seconds left"
