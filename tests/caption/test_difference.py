"""Weights as a difference from others: near what they were, far nearer than the base, small."""

import pytest
import torch

from onlooker.operators.caption.difference import as_difference, with_difference


def weights():
    generator = torch.Generator().manual_seed(0)
    base = {"a": torch.randn(120, 81, generator=generator), "b": torch.randn(5, generator=generator)}
    grown = torch.randn(123, 90, generator=generator)
    grown[:120, :81] = base["a"] + 0.1 * torch.randn(120, 81, generator=generator)
    return base, {"a": grown, "b": base["b"] + 1, "c": torch.randn(3, 3, generator=generator)}


def stored(kept):
    """As a folder keeps them: float16, and bytes as they are."""
    return {name: value if value.dtype == torch.uint8 else value.half() for name, value in kept.items()}


def test_what_changed_comes_back():
    base, state = weights()
    back = with_difference(stored(as_difference(state, base)), base)
    assert back.keys() == state.keys()
    old = base["a"]
    error = (back["a"][:120, :81] - state["a"][:120, :81]).norm() / (state["a"][:120, :81] - old).norm()
    assert error < 0.15  # the base alone: 1
    for name, value in back.items():
        assert value.dtype == torch.float32 and value.shape == state[name].shape
    torch.testing.assert_close(back["a"][120:], state["a"][120:].half().float())
    torch.testing.assert_close(back["a"][:120, 81:], state["a"][:120, 81:].half().float())
    torch.testing.assert_close(back["b"], state["b"].half().float())


def test_it_is_small():
    base, state = weights()
    kept = stored(as_difference({"a": state["a"][:120, :81]}, base))
    assert sum(value.numel() * value.element_size() for value in kept.values()) < 0.55 * state["a"][:120, :81].numel()


def test_nothing_changed_is_nothing():
    base, _ = weights()
    back = with_difference(as_difference(base, base), base)
    assert all(torch.equal(back[name], base[name]) for name in base)


def test_a_difference_from_other_weights_is_refused():
    base, state = weights()
    kept = as_difference(state, base)
    with pytest.raises(ValueError, match="a difference from 'a', which the base does not have"):
        with_difference(kept, {})
    with pytest.raises(ValueError, match="a difference from 'a' of another size than the base"):
        with_difference(kept, {"a": torch.zeros(4, 4)})
