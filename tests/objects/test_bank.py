"""A few of many, spread evenly, in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onlooker.operators.objects.bank import Bank, spread
from onlooker.operators.objects.densevoc.aggregation import sampled_members


@pytest.mark.parametrize("capacity", [2, 4, 12])
def test_a_bank_holds_every_nth_item_from_the_first_on(capacity: int) -> None:
    bank: Bank[int] = Bank(capacity)
    for item in range(1000):
        kept = bank.add(item)
        assert kept == (item in bank.items)
        assert bank.items == list(range(0, item + 1, bank.stride))
        assert min(item + 1, capacity // 2) <= len(bank.items) <= capacity
        assert bank.count == item + 1
    assert bank.stride > 1


def test_items_are_chosen_as_the_hard_aggregation_does() -> None:
    """Where a bank still holds everything, a caption reads what the reference's would."""
    for wanted in (1, 2, 3, 6):
        for count in range(20):
            index = sampled_members(torch.ones(1, count, dtype=torch.bool), wanted)[0]
            assert spread(list(range(count)), wanted) == index[index >= 0].tolist()


def test_what_is_left_out_is_spread_evenly() -> None:
    bank: Bank[int] = Bank(12)
    for item in range(997):
        bank.add(item)
    steps = np.diff(spread(bank.items, 6))
    assert steps.max() <= 2 * steps.min()
