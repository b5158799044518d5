"""The estimate: by hand, and from answers that came before."""

import pytest
from PIL import Image

from interp.study.dimmed import conversation, pictures_in, text_in
from interp.study.estimate import estimate
from interp.study.journal import Entry

EXAMPLE = conversation([Image.new("RGB", (100, 57)), Image.new("RGB", (56, 28))], "x" * 81)


def test_by_rules_of_thumb():
    found = estimate(EXAMPLE, 1000, concurrency=8, prices=(2.0, 10.0))
    per_request = 21 + 4 * 3 + 2 * 1
    assert (found.requests, found.pictures, found.tokens_in, found.tokens_out) == (1000, 2000, 1000 * per_request, 40_000)
    assert found.seconds == 125 * 3.0
    assert found.cost == pytest.approx((35_000 * 2 + 40_000 * 10) / 1e6)
    assert str(found) == (
        "1000 requests with 2000 pictures, about 35 k tokens in and 40 k out, about 6 minutes, about 0.47 in money (by rules of thumb)"
    )


def test_a_picture_may_have_a_known_number_of_tokens():
    assert estimate(EXAMPLE, 1, concurrency=1, picture_tokens=729).tokens_in == 21 + 2 * 729
    assert estimate(EXAMPLE, 1, concurrency=1).cost is None


def test_answers_that_came_before_count_more():
    earlier = [
        Entry("a", "x", seconds=10, tokens_in=100, tokens_out=10),
        Entry("b", "x", seconds=20, tokens_in=300, tokens_out=30),
        Entry("c"),
    ]
    found = estimate(EXAMPLE, 10, earlier, concurrency=4)
    assert (found.tokens_in, found.tokens_out, found.seconds, found.measured) == (2000, 200, 45, True)
    assert "from the answers so far" in str(found)


@pytest.mark.parametrize(("seconds", "said"), [(30, "30 seconds"), (600, "10 minutes"), (36_000, "10.0 hours")])
def test_the_time_is_told_in_a_fitting_unit(seconds, said):
    assert said in str(estimate(EXAMPLE, 1, [Entry("a", seconds=seconds, tokens_in=1)], concurrency=1))


def test_a_conversation_is_taken_apart_as_it_was_put_together():
    assert len(pictures_in(EXAMPLE)) == 2
    assert text_in(EXAMPLE) == "x" * 81
    assert text_in([{"role": "system", "content": "a"}, *EXAMPLE]) == "a\n" + "x" * 81
