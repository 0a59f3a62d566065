"""Tolerances hold for sums in other orders, and for nothing much larger."""

import pytest
import torch
from tolerance import UNIT_ROUNDOFF, float32_sum


@pytest.mark.parametrize("terms", [10, 1000, 100_000])
def test_orders_of_a_sum_differ_by_less(terms):
    numbers = torch.randn(terms)
    one_by_one = numbers.cumsum(0)
    scale = one_by_one.abs().max().item()
    exact = numbers.double().sum().item()

    for found in (numbers.sum(), numbers.flip(0).cumsum(0)[-1], one_by_one[-1]):
        assert found.item() == pytest.approx(exact, rel=0, abs=float32_sum(terms, scale))


def test_a_tolerance_is_a_small_multiple_of_a_rounding():
    assert float32_sum(1) == 8 * UNIT_ROUNDOFF
    assert float32_sum(400, scale=2) == 2 * 20 * float32_sum(1)
