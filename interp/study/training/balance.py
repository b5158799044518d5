"""Rows of several kinds in exactly the proportions that were asked for."""

import argparse
import math
from collections.abc import Sequence
from fractions import Fraction

_FINEST = 1000  # parts of a whole: a finer share could be met by very large pools only


def share(text: str) -> Fraction:
    """A share from the command line: "0.5", "2/3". Raises ArgumentTypeError for anything that is none."""
    try:
        found = Fraction(text)
    except (ValueError, ZeroDivisionError):
        found = Fraction(-1)
    if not 0 <= found <= 1 or found.denominator > _FINEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: a number from 0 to 1 in at most thousandths, such as 0.5 or 2/3")
    return found


def counts(there: Sequence[int | None], shares: Sequence[Fraction]) -> list[int]:
    """As many rows of each kind as possible, in exactly these proportions, which add up to 1; None where there are as many as one likes.

    A kind whose share is 0 gets none, whatever there is. All are 0 if a kind that is wanted has too few rows for the smallest exact mixture.
    """
    whole = math.lcm(*(each.denominator for each in shares))
    parts = [int(each * whole) for each in shares]
    divisor = math.gcd(*parts)
    parts = [part // divisor for part in parts]
    limits = [count // part for count, part in zip(there, parts, strict=True) if part and count is not None]
    units = min(limits, default=0)
    return [units * part for part in parts]
