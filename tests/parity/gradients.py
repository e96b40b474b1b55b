"""Gradients of models against the reference's, by the names of its parameter trees."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

TOLERANCE = 1e-4
"""Of norms and of the largest number, relative."""
Model = TypeVar("Model", bound=nn.Module)


def assert_gradients(
    model: Model, as_tree: Callable[[Model], Mapping[str, Any]], norms: Mapping[str, Any], full: Mapping[str, Any]
) -> None:
    """Compare the gradients that a backward pass left: the norms of all parameters, and some in full."""
    gradients = copy.deepcopy(model)
    for ours, parameter in zip(gradients.parameters(), model.parameters(), strict=True):
        ours.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    tree = as_tree(gradients)
    # A gradient that is zero in exact arithmetic, as of a key's bias, is rounding noise on both sides.
    noise = 1e-6 * max((float(norm) for norm in norms.values()), default=1.0)
    for name, norm in norms.items():
        own = float(torch.from_numpy(tree[name]).double().norm())
        assert own == pytest.approx(float(norm), rel=TOLERANCE, abs=noise), name
    for name, expected in full.items():
        error = float(abs(tree[name] - expected).max())
        assert error <= TOLERANCE * float(abs(expected).max()) + noise, name
