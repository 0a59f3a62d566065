"""Tolerances that come from the arithmetic, not from one machine.

Processors add numbers in different orders and widths, so the last bits of a sum differ between
machines. A comparison that is not of equal bits allows for that with the functions below.
"""

import math

# Largest relative error of one rounding to float32.
UNIT_ROUNDOFF = 2**-24


def float32_sum(terms: int, scale: float = 1.0) -> float:
    """Return how far two float32 sums of the same numbers may be apart.

    n roundings of random sign add up to about sqrt(n) of one of them (Higham, Accuracy and
    Stability of Numerical Algorithms, 2nd edition, 2.8). The factor 8 leaves room for terms that
    are themselves results of a few operations.

    Args:
        terms: how many numbers are added. For a dot product its length, for the output of a network
            the length of its longest sums, for a mean the number of values behind it.
        scale: size of the partial sums. 1 makes the result a relative tolerance.
    """
    return 8 * math.sqrt(terms) * UNIT_ROUNDOFF * scale


# Relative tolerance of losses of two trainings with the same steps: a loss is made of sums of some
# ten thousand products, and a few steps carry their differences on.
SAME_LOSSES = float32_sum(10_000)
