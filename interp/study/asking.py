"""The part that all verbs with a server have in common: its arguments, the estimate, the dry run, the progress, and what went wrong."""

import argparse
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import InterpError
from ..validation import whole_number
from . import work
from .chat import Server, connect
from .client import Messages, RefusedError, Request, Retry, ask_all, unasked, wait_for
from .dimmed import pictures_in, text_in
from .estimate import estimate
from .journal import Entry, Journal
from .study import Study

JOURNAL = "journal.jsonl"
EXAMPLE = "example"
_REASONS = 3  # that are told of many failures


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments about the server."""
    group = parser.add_argument_group("server", "one that speaks OpenAI's chat completions: vLLM, SGLang, TGI, transformers serve")
    group.add_argument("--server", metavar="URL", help="its address, such as http://localhost:8000/v1")
    group.add_argument("--key-variable", metavar="NAME", help="the environment variable that holds its key, if it wants one")
    group.add_argument("--concurrency", type=int, default=8, metavar="N", help="requests under way at a time")
    group.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="until an answer is complete")
    group.add_argument("--attempts", type=int, default=8, metavar="N", help="for each request, with growing waits in between")
    group.add_argument("--max-tokens", type=int, default=256, metavar="N", help="of an answer")
    group.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    group.add_argument("--extra", metavar="JSON", help='more fields of each request, such as {"modalities": "multi-images"} for SGLang')
    group.add_argument("--retry-failed", action="store_true", help="ask again what failed before")
    group.add_argument("--dry-run", action="store_true", help="estimate tokens, time and cost, show one request, and send nothing")
    group.add_argument(
        "--picture-tokens", type=int, metavar="N", help="of one picture, for the estimate  (default: one for 28 by 28 pixels)"
    )
    group.add_argument("--prices", type=float, nargs=2, metavar=("IN", "OUT"), help="of a million tokens, for the estimate")


@dataclass(frozen=True)
class Stage:
    """A verb's folder in a study, with what its results depend on."""

    study: Study
    name: str
    settings: Mapping[str, Any]

    @property
    def journal(self) -> Path:
        """Where the answers are kept."""
        return self.study.folder / self.name / JOURNAL


def ask(
    stage: Stage, model: str, requests: Sequence[Request], check: Callable[[str], object], args: argparse.Namespace
) -> Mapping[str, Entry] | None:
    """Ask what the stage's journal does not hold yet; returns all that it holds then, by key. None after a dry run, and outside the main process.

    Raises InterpError for arguments that cannot be, a folder with other settings, and a server that refuses every request.
    """
    if not args.server:
        raise InterpError(
            "--server is missing: the address of a server that speaks OpenAI's chat completions, such as http://localhost:8000/v1."
        )
    server = Server(args.server, model, args.key_variable or "", args.max_tokens, args.temperature, args.timeout, _extra(args.extra))
    whole_number("concurrency", args.concurrency, 1)
    whole_number("attempts", args.attempts, 1)
    if not args.dry_run:  # by all processes: they wait for each other
        # Not max_tokens: an answer that fits is the same whatever it is, and one that was cut off is asked again with more.
        about = {"model": model, "temperature": server.temperature, "extra": server.extra}
        stage.study.stage(stage.name, {**stage.settings, **about})
    return work.once(lambda: _ask(stage, server, requests, check, args))


def _ask(
    stage: Stage, server: Server, requests: Sequence[Request], check: Callable[[str], object], args: argparse.Namespace
) -> Mapping[str, Entry] | None:
    if args.dry_run:
        held = _peek(stage.journal)
        _show(
            stage,
            [request for request in requests if request.key not in held or (args.retry_failed and held[request.key].failure)],
            held,
            args,
        )
        return None
    retry = Retry(args.attempts)
    with Journal(stage.journal) as journal:
        waiting = unasked(requests, journal, retry_failed=args.retry_failed)
        if waiting:
            _tell(f"{stage.name}: {_estimated(_example(waiting)[1], waiting, journal.entries, args)}")
        with tqdm(total=len(requests), initial=len(requests) - len(waiting), desc=stage.name, unit="request") as bar:

            async def run() -> None:
                async with connect(server) as send:
                    await ask_all(
                        requests,
                        send,
                        journal,
                        check=check,
                        concurrency=args.concurrency,
                        retry=retry,
                        retry_failed=args.retry_failed,
                        on_entry=lambda _: bar.update(1),
                    )

            wait_for(run())
        return dict(journal.entries)


def _extra(written: str | None) -> dict[str, Any]:
    try:
        extra = json.loads(written or "{}")
    except ValueError as error:
        raise InterpError(f"--extra is {written!r}, which is not JSON ({error}).") from error
    if not isinstance(extra, dict):
        raise InterpError(f"--extra is {written!r}; it must be a JSON object.")
    return extra


def _peek(path: Path) -> Mapping[str, Entry]:
    """What a journal holds, without making one."""
    if not path.exists():
        return {}
    with Journal(path) as journal:
        return journal.entries


def _example(waiting: Sequence[Request]) -> tuple[str, Messages]:
    """The first request that can be made, with its name."""
    for request in waiting:
        with contextlib.suppress(RefusedError):
            return request.key, request.messages()
    return "none", []


def _estimated(example: Messages, waiting: Sequence[Request], earlier: Mapping[str, Entry], args: argparse.Namespace) -> str:
    return str(
        estimate(
            example,
            len(waiting),
            earlier.values(),
            concurrency=args.concurrency,
            picture_tokens=args.picture_tokens,
            prices=None if args.prices is None else (args.prices[0], args.prices[1]),
        )
    )


def _show(stage: Stage, waiting: Sequence[Request], earlier: Mapping[str, Entry], args: argparse.Namespace) -> None:
    """The dry run."""
    if not waiting:
        _tell("There is nothing left to ask.")
        return
    key, example = _example(waiting)
    _tell(f"{_estimated(example, waiting, earlier, args)}\n\nFor example, {key}:\n\n{text_in(example)}")
    if pictures := pictures_in(example):
        folder = stage.study.folder / f"{stage.name}-{EXAMPLE}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures, 1):
            (folder / f"{number}.png").write_bytes(picture)
        _tell(f"\nIts pictures: {folder}")


def failures(entries: Sequence[Entry]) -> str:
    """How many failed and why, in a sentence; "" if none did."""
    failed = Counter(entry.failure.partition(":")[0] for entry in entries if entry.failure)
    if not failed:
        return ""
    most = "; ".join(f"{count} times: {reason}" for reason, count in failed.most_common(_REASONS))
    return f"{failed.total()} failed ({most}{'; …' if len(failed) > _REASONS else ''}). The journal has each reason; --retry-failed asks again."


def _tell(text: str) -> None:
    print(text)  # noqa: T201 - what the command is for
