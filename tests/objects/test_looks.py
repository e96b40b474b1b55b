"""What a detection looks like: the cells of a map at its box, wherever it is, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from onlooker.operators.objects.looks import looks_of

CHANNELS = 8


def view(left: int, top: int, seed: int = 1) -> Any:
    """A map with one thing of 8 x 8 cells before noise."""
    rng = np.random.default_rng(0)
    cells = rng.normal(5, 0.1, (28, 28, CHANNELS)).astype(np.float32)
    cells[top : top + 8, left : left + 8] += np.random.default_rng(seed).normal(0, 1, (8, 8, CHANNELS))
    return cells


def box(left: int, top: int) -> Any:
    return np.float32([[left, top, left + 8, top + 8]]) / 28


def test_a_thing_looks_the_same_elsewhere_and_another_does_not() -> None:
    here, there = looks_of(view(3, 5), box(3, 5)), looks_of(view(15, 12), box(15, 12))
    other = looks_of(view(15, 12, seed=2), box(15, 12))
    assert here.shape == (1, 16 * CHANNELS) and here.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(here, axis=1), 1, atol=1e-6)
    assert (here @ there.T).item() > 0.98
    assert abs((here @ other.T).item()) < 0.4


def test_neither_level_nor_contrast_of_a_channel_counts() -> None:
    """A camera that opens its aperture, or a channel that is always large, changes nothing."""
    factors = np.arange(1, CHANNELS + 1, dtype=np.float32)
    np.testing.assert_allclose(
        looks_of(view(3, 5), box(3, 5)), looks_of(factors * view(3, 5) + 7, box(3, 5)), atol=0.01
    )


def test_nothing_to_see() -> None:
    assert looks_of(view(0, 0), np.zeros((0, 4), np.float32)).shape == (0, 16 * CHANNELS)
    assert not looks_of(np.ones((28, 28, CHANNELS), np.float32), box(3, 5)).any()
    outside = looks_of(view(0, 0), np.float32([[0.5, 0.5, 0.5, 0.5]]))
    assert np.isfinite(outside).all()
