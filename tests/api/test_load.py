"""Many visitors at once: the short form of `python -m tests.bench load`."""

import pytest

from tests.load import alone, leave_in_the_middle, requests, resident_mib, same, together


@pytest.mark.slow
def test_every_visitor_gets_what_it_would_get_alone(url, served):
    wanted = requests(12, feature=0)
    expected = alone(url, wanted)
    together(url, wanted[:6], sessions=4)  # caches are full before memory is compared
    before = resident_mib(served.pid)
    answers = together(url, wanted, sessions=4)
    leave_in_the_middle(url, wanted[0])
    assert len(answers) == len(wanted)
    assert [request for request, answer in answers if not same(expected[request], answer)] == []
    again = alone(url, wanted[:3])  # those who went away have left nothing
    assert all(same(expected[request], answer) for request, answer in again.items())
    assert resident_mib(served.pid) < 1.1 * before


def test_the_comparison_sees_a_difference():
    assert same('{"kl": [0.5000001]}', '{"kl": [0.5]}')
    assert not same('{"kl": [0.51]}', '{"kl": [0.5]}')
    assert not same('{"answer": "a dog"}', '{"answer": "a cat"}')
