"""Weights as an update of others: exact where the rank is full, near where it is enough, wrong where it is not."""

import pytest
import torch

from onlooker.operators.caption.low_rank import as_update, with_update


def weights():
    generator = torch.Generator().manual_seed(0)
    base = {"a": torch.randn(12, 8, generator=generator), "b": torch.randn(5, generator=generator)}
    change = torch.randn(12, 2, generator=generator) @ torch.randn(2, 8, generator=generator)
    grown = torch.randn(15, 10, generator=generator)
    grown[:12, :8] = base["a"] + change
    return base, {"a": grown, "b": base["b"] + 1, "c": torch.randn(3, 3, generator=generator)}


def test_what_changed_little_comes_back():
    base, state = weights()
    kept = as_update(state, base, rank=2)
    back = with_update(kept, base)
    assert back.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(back[name], value, atol=1e-4, rtol=1e-4)


def test_a_rank_that_is_too_low_is_not_enough():
    base, state = weights()
    back = with_update(as_update(state, base, rank=1), base)
    assert (back["a"] - state["a"]).abs().max() > 0.1
    assert torch.equal(back["a"][12:], state["a"][12:])  # what the base lacks is kept as it is


def test_an_update_of_other_weights_is_refused():
    base, state = weights()
    kept = as_update(state, base, rank=2)
    with pytest.raises(ValueError, match="an update of 'a', which the base does not have"):
        with_update(kept, {})
    with pytest.raises(ValueError, match="an update of 'a' of 12x8, but the base is"):
        with_update(kept, {"a": torch.zeros(4, 4)})
