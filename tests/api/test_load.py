"""Many visitors at once: the short form of `python -m tests.bench load`."""

import pytest

from tests.load import alone, leave_in_the_middle, requests, resident_mib, same, together
from tests.server import serve


@pytest.fixture(scope="module")
def server():
    """A server of its own: its memory is compared."""
    with serve() as running:
        yield running.url, running.pid


@pytest.mark.server
@pytest.mark.slow
def test_every_visitor_gets_what_it_would_get_alone(server):
    url, pid = server
    wanted = requests(24, feature=0)
    expected = alone(url, wanted)
    together(url, wanted[:12])  # caches are full before memory is compared
    before = resident_mib(pid)
    answers = together(url, wanted)
    leave_in_the_middle(url, wanted[0])
    assert len(answers) == len(wanted)
    assert [request for request, answer in answers if not same(expected[request], answer)] == []
    again = alone(url, wanted[:5])  # those who went away have left nothing
    assert all(same(expected[request], answer) for request, answer in again.items())
    assert resident_mib(pid) < 1.1 * before  # a leak of one picture's states a request would be more


def test_the_comparison_sees_a_difference():
    assert same('{"kl": [0.5000001]}', '{"kl": [0.5]}')
    assert not same('{"kl": [0.51]}', '{"kl": [0.5]}')
    assert not same('{"answer": "a dog"}', '{"answer": "a cat"}')
