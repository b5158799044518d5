"""Asking a server: order, retries, failures that are kept, resuming, and a key that stays where it is."""

import datetime as dt
import io
import logging
import threading

import pytest

from interp.errors import InterpError
from interp.study.chat import Server, _retry_after, connect
from interp.study.client import MalformedError, Reply, Request, Retry, TransientError, ask_all, unasked, wait_for
from interp.study.journal import Entry, Journal
from tests.study.chat_server import Says, serve_chat

KEY = "sk-very-secret-0123456789"


def requests(*names):
    return [Request(name, lambda name=name: [{"role": "user", "content": name}]) for name in names]


def check(text):
    if not text.startswith("good"):
        raise MalformedError(f"not good: {text!r}")


class Waits:
    """A sleeper that only notes how long it should have slept."""

    def __init__(self):
        self.all = []

    async def __call__(self, seconds):
        self.all.append(seconds)


def ask(chat, names, path, *, waits=None, attempts=4, url="", **options):
    server_options = {name: options.pop(name) for name in ("key_variable", "timeout", "extra", "temperature") if name in options}
    server = Server(url or chat.url, "fake", **server_options)
    retry = Retry(attempts, sleep=waits or Waits())

    async def run():
        with Journal(path) as journal:
            async with connect(server) as send:
                return await ask_all(requests(*names), send, journal, check=check, retry=retry, **options)

    return wait_for(run())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "asked" / "journal.jsonl"


def test_answers_come_back_in_the_order_of_the_requests_although_they_arrive_in_another(path):
    others = threading.Event()

    def say(text, _):
        if text == "a":
            others.wait(60)
        if text == "d":
            others.set()
        return f"good {text}"

    with serve_chat(say) as chat:
        entries = ask(chat, "abcd", path, concurrency=2)
    assert [(key, entry.answer) for key, entry in entries.items()] == [(key, f"good {key}") for key in "abcd"]
    assert entries["a"].tokens_in == 11
    assert entries["a"].tokens_out == 7
    with Journal(path) as journal:
        assert list(journal.entries)[:2] == ["b", "c"]  # as they arrived
        assert dict(entries) == journal.entries


def test_no_more_requests_than_allowed_are_under_way_and_no_fewer(path):
    meeting = threading.Barrier(3, timeout=60)  # breaks unless three requests are there at once
    with serve_chat(lambda text, _: f"good {text}", meeting.wait) as chat:
        entries = ask(chat, "abcdef", path, concurrency=3)
    assert chat.most == 3
    assert [entry.failure for entry in entries.values()] == [""] * 6


@pytest.mark.parametrize(
    "first",
    [
        Says(status=429, body=""),
        Says(status=500, body="oops"),
        Says(status=503, body=""),
        Says(hang_up=True),
        Says(body="<html>"),
        Says(body="[]"),
        Says(body='{"choices": []}'),
        Says(body='{"error": "busy"}'),
        Says(body="null"),
    ],
    ids=["429", "500", "503", "connection lost", "html", "list", "no choice", "an error as an answer", "null"],
)
def test_what_may_pass_is_asked_again_after_a_growing_wait(path, first):
    waits = Waits()
    with serve_chat(lambda text, times: first if times < 2 else f"good {text}") as chat:
        entries = ask(chat, "a", path, waits=waits)
    assert entries["a"].answer == "good a"
    assert entries["a"].attempts == 3
    assert [0.5 <= waits.all[0] <= 1, 1 <= waits.all[1] <= 2, len(waits.all)] == [True, True, 2]


def test_an_answer_that_does_not_come_is_asked_for_again(path):
    waits = Waits()
    with serve_chat(lambda *_: Says(never=True)) as chat:
        entries = ask(chat, "a", path, waits=waits, timeout=0.03)
    assert entries["a"].failure == "no answer within 0.03 seconds"
    assert entries["a"].attempts == len(waits.all) + 1 == 4


def test_a_closed_port_is_a_failure_with_its_reason(path):
    with serve_chat(lambda *_: "") as chat:
        pass
    entries = ask(chat, "a", path)
    assert entries["a"].attempts == 4
    assert "no connection" in entries["a"].failure


def test_the_wait_that_the_server_asks_for_is_kept(path):
    waits = Waits()
    with serve_chat(lambda text, times: f"good {text}" if times else Says(status=429, headers={"Retry-After": "37"}, body="")) as chat:
        ask(chat, "a", path, waits=waits)
    assert waits.all == [37]


def test_a_wait_may_be_given_as_a_date():
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=40)
    assert 38 <= _retry_after(soon.strftime("%a, %d %b %Y %H:%M:%S GMT")) <= 40
    assert [_retry_after(value) for value in ("", "soon", "-3", "nan", "Wed, 01 Jan 2020 00:00:00 GMT")] == [0] * 5


def test_waits_double_up_to_the_longest_and_lose_at_most_half():
    retry = Retry(first=1, longest=60)
    for attempt in range(1, 12):
        whole = min(60, 2 ** (attempt - 1))
        assert all(whole / 2 <= retry.wait(attempt, 0) <= whole for _ in range(50))
    assert len({retry.wait(5, 0) for _ in range(5)}) > 1
    assert retry.wait(1, 90) == 90


def test_failures_are_kept_with_their_reasons_and_cost_no_other_request(path):
    script = {
        "busy": Says(status=503, body="all slots taken"),
        "large": Says(status=413, body="too large"),
        "odd": "bad words",
        "empty": Says(text=None),
        "long": Says("good but", finish="length"),
    }
    waits = Waits()
    with serve_chat(lambda text, _: script.get(text, f"good {text}")) as chat:
        entries = ask(chat, ["busy", "large", "odd", "empty", "long", "fine"], path, waits=waits)
    failures = {key: entry.failure for key, entry in entries.items()}
    assert failures["busy"] == "status 503: all slots taken"
    assert failures["large"] == "status 413: too large"
    assert failures["odd"] == "not good: 'bad words'"
    assert failures["empty"] == "not good: ''"
    assert "raise --max-tokens" in failures["long"]
    assert failures["fine"] == ""
    assert entries["odd"].answer == "bad words"
    assert [entries[key].attempts for key in ("busy", "large", "odd")] == [4, 1, 1]
    with Journal(path) as journal:
        assert journal.entries == entries


def test_a_second_run_asks_only_what_is_missing_and_failures_on_request(path):
    healthy = False
    with serve_chat(lambda text, _: f"good {text}" if healthy or text != "b" else "bad") as chat:
        ask(chat, "ab", path)
        chat.asked.clear()
        ask(chat, "abc", path)
        assert chat.texts == ["c"]
        healthy = True
        chat.asked.clear()
        entries = ask(chat, "abc", path, retry_failed=True)
        assert chat.texts == ["b"]
        assert [entry.answer for entry in entries.values()] == ["good a", "good b", "good c"]
        chat.asked.clear()
        assert ask(chat, "abc", path, retry_failed=True) == entries
        assert chat.asked == []


def test_a_run_that_is_killed_is_continued_where_it_was(path, tmp_path):
    def killed(entry):
        if entry.key == "c":
            raise KeyboardInterrupt

    with serve_chat(lambda text, _: f"good {text}") as chat:
        with pytest.raises(KeyboardInterrupt):
            ask(chat, "abcdef", path, concurrency=1, on_entry=killed)
        with path.open("ab") as journal:
            journal.write(b'{"key": "d", "answer": "goo')  # the line that was being written
        chat.asked.clear()
        resumed = ask(chat, "abcdef", path, concurrency=1)
        assert chat.texts == list("def")
        whole = ask(chat, "abcdef", tmp_path / "other.jsonl", concurrency=1)
    assert [(key, entry.answer, entry.failure) for key, entry in resumed.items()] == [
        (key, entry.answer, entry.failure) for key, entry in whole.items()
    ]
    with Journal(path) as journal:
        assert list(journal.entries) == list("abcdef")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_holds_for_every_request_ends_the_run_at_once(path, status):
    with (
        serve_chat(lambda text, _: f"good {text}" if text == "a" else Says(status=status, body='{"error": "no"}')) as chat,
        pytest.raises(InterpError, match=f"refuses every request .status {status}"),
    ):
        ask(chat, "abcdefgh", path, concurrency=1)
    assert chat.texts == ["a", "b"]
    with Journal(path) as journal:
        assert list(journal.entries) == ["a"]


def test_many_failures_in_a_row_end_the_run_and_later_it_goes_on(path):
    names = [f"{i:02}" for i in range(40)]
    healthy = False
    with serve_chat(lambda text, _: f"good {text}" if healthy or text < "10" else Says(status=500, body="down")) as chat:
        with pytest.raises(InterpError, match="20 requests in a row got no answer, the last because of: status 500: down"):
            ask(chat, names, path, concurrency=1, attempts=1)
        assert chat.texts == names[:30]
        healthy = True
        entries = ask(chat, names, path, retry_failed=True)
    assert [entry.answer for entry in entries.values()] == [f"good {name}" for name in names]


@pytest.fixture
def log():
    """Everything that is logged, as text."""
    text = io.StringIO()
    handler, level = logging.StreamHandler(text), logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel("DEBUG")
    yield text
    logging.root.setLevel(level)
    logging.root.removeHandler(handler)


def test_the_key_goes_to_the_server_and_nowhere_else(path, monkeypatch, log, capsys):
    monkeypatch.setenv("SERVER_KEY", KEY)
    said = [Says(status=500, body=f"bad key {KEY}"), Says(status=422, body=f"bad key {KEY}")]
    with serve_chat(lambda _, times: said[min(times, 1)]) as chat:
        entries = ask(chat, "a", path, key_variable="SERVER_KEY")
    assert chat.headers[0]["authorization"] == f"Bearer {KEY}"
    assert entries["a"].failure == "status 422: bad key …"
    with (
        serve_chat(lambda *_: Says(status=401, body=f'{{"error": "Incorrect API key: {KEY}"}}')) as chat,
        pytest.raises(InterpError) as refused,
    ):
        ask(chat, "b", path, key_variable="SERVER_KEY")
    out = capsys.readouterr()
    assert KEY not in f"{refused.value}{path.read_text()}{log.getvalue()}{out.out}{out.err}{Server(chat.url, 'm', 'SERVER_KEY')}"


def test_no_other_token_of_the_user_is_sent(path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of-the-user")
    with serve_chat(lambda text, _: f"good {text}") as chat:
        ask(chat, "a", path)
    assert "hf_of-the-user" not in str(chat.headers)


def test_a_server_on_this_machine_is_reached_while_the_hub_is_offline(path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with serve_chat(lambda text, _: f"good {text}") as chat:
        assert ask(chat, "a", path)["a"].answer == "good a"


def test_the_request_is_as_the_caller_set_it(path):
    with serve_chat(lambda text, _: f"good {text}") as chat:
        ask(chat, "a", path, url=chat.url.removesuffix("/v1"), extra={"modalities": "multi-images"}, temperature=0.5)
    assert chat.asked == [
        {
            "model": "fake",
            "messages": [{"role": "user", "content": "a"}],
            "max_tokens": 256,
            "temperature": 0.5,
            "stream": False,
            "modalities": "multi-images",
        }
    ]


def test_pictures_of_requests_are_made_only_when_they_are_sent(path):
    made = []

    def lazily(name):
        made.append(name)
        return [{"role": "user", "content": name}]

    async def send(messages):
        assert made[-1] == messages[0]["content"]
        return Reply(f"good {made[-1]}")

    async def run():
        with Journal(path) as journal:
            asked = [Request(name, lambda name=name: lazily(name)) for name in "abc"]
            assert unasked(asked, journal, retry_failed=False) == asked
            return await ask_all(asked, send, journal, check=check, concurrency=1)

    assert [entry.answer for entry in wait_for(run()).values()] == ["good a", "good b", "good c"]


def test_two_requests_of_one_key_are_refused(path):
    async def send(messages):
        raise TransientError("not reached")

    async def run():
        with Journal(path) as journal:
            await ask_all(requests("a", "a"), send, journal, check=check)

    with pytest.raises(InterpError, match="same key"):
        wait_for(run())


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"url": "localhost:8000"}, "must be an address"),
        ({"url": "ftp://there"}, "must be an address"),
        ({"url": "http://me:secret@there/v1"}, "--key-variable"),
        ({"model": " "}, "no name"),
        ({"key_variable": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"temperature": -1}, "temperature is -1"),
        ({"timeout": 0}, "timeout is 0"),
    ],
)
def test_a_server_that_cannot_be_is_refused_with_the_reason(given, why):
    with pytest.raises(InterpError, match=why) as refused:
        Server(**{"url": "http://localhost:1/v1", "model": "m", **given})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [b"{}\n", b"[1]\n", b"nonsense\n", b"\xff\n", b'{"key": 1}\n', b'{"key": "a", "other": 1}\n', b'{"key": "a", "attempts": "1"}\n'],
)
def test_a_file_that_is_no_journal_is_refused_by_line(tmp_path, line):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"key": "a"}\n' + line + b'{"key": "b"}\n')
    with pytest.raises(InterpError, match="Line 2 of"):
        Journal(path)


def test_the_journal_keeps_any_text(tmp_path):
    path = tmp_path / "j.jsonl"
    entries = [Entry("é\n", 'a "quote"\nnext\u2028\ud800 <b>', "why\r", 2, 0.25, 3, 4), Entry("b")]
    with Journal(path) as journal:
        for entry in entries:
            journal.add(entry)
    with Journal(path) as journal:
        assert list(journal.entries.values()) == entries
    assert path.read_bytes().count(b"\n") == 2


def test_a_coroutine_is_waited_for_wherever_there_is_an_event_loop_already():
    async def one():
        return 1

    async def from_within():
        return wait_for(one())

    assert wait_for(one()) == wait_for(from_within()) == 1
