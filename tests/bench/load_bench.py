"""Load: eight sessions with 200 mixed requests; every answer against the same request's own alone, and the memory before and after."""

import time

from tests.load import SESSIONS, alone, leave_in_the_middle, requests, resident_mib, same, together
from tests.server import serve

REQUESTS = 200


def mixed(count: int = REQUESTS) -> None:
    """(a) All answers equal, none lost, memory within 5 %."""
    with serve() as running:
        url, pid = running.url, running.pid
        wanted = requests(count, feature=0)
        expected = alone(url, wanted)
        together(url, wanted[: count // 4])  # warm: caches are full before memory is compared
        before = resident_mib(pid)
        start = time.perf_counter()
        answers = together(url, wanted)
        seconds = time.perf_counter() - start
        leave_in_the_middle(url, wanted[0])
        after = resident_mib(pid)
        wrong = sum(not same(expected[request], answer) for request, answer in answers)
        again = alone(url, wanted[:20])
        wrong += sum(not same(expected[request], answer) for request, answer in again.items())
    print(f"{len(answers)} of {count} answered by {SESSIONS} sessions in {seconds:.1f} s; {wrong} differ from the answer given alone")
    grown = after / before - 1
    print(f"memory {before:.0f} -> {after:.0f} MiB, {grown:+.1%} (target 5 %: {'met' if grown <= 0.05 else 'MISSED'})", flush=True)


PARTS = {"mixed": mixed}
