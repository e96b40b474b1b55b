"""Bounded space without losing what matters: peaks of curves, evenness of samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.pipeline.sinks.thinning import Curve, EvenSample


def curve_of(values: list[float], buckets: int = 8) -> list[tuple[float, float]]:
    curve = Curve(buckets)
    for t, value in enumerate(values):
        curve.add(float(t), value)
    return curve.points()


@given(st.lists(st.floats(-10, 10), max_size=300))
def test_points_are_few_ordered_real_and_hold_the_extremes(values: list[float]) -> None:
    points = curve_of(values)
    assert len(points) <= 16
    assert [t for t, _ in points] == sorted({t for t, _ in points})
    assert all(values[int(t)] == value for t, value in points)
    if values:
        assert max(v for _, v in points) == max(values) and min(v for _, v in points) == min(values)


def test_short_curves_are_kept_whole() -> None:
    assert curve_of([1.0, 3.0, 2.0]) == [(0.0, 1.0), (1.0, 3.0), (2.0, 2.0)]


def test_every_peak_of_a_long_curve_survives_where_plain_thinning_loses_it() -> None:
    values = np.zeros(100_000)
    peaks = [1_234, 50_001, 77_777]
    values[peaks] = 1.0
    curve = Curve()
    for t, value in enumerate(values.tolist()):
        curve.add(t, value)
    kept = [t for t, value in curve.points() if value == 1.0]
    assert kept == peaks and len(curve.points()) <= 2000
    every_nth = values[:: len(values) // 2000]
    assert every_nth.max() == 0.0  # the crippled twin: same size, no peak


def test_values_that_are_no_numbers_are_left_out() -> None:
    assert curve_of([1.0, float("nan"), float("inf"), 2.0]) == [(0.0, 1.0), (3.0, 2.0)]


@given(st.integers(1, 12), st.integers(0, 500))
def test_samples_are_even_bounded_and_begin_at_the_first(limit: int, count: int) -> None:
    dropped: list[int] = []
    sample: EvenSample[int] = EvenSample(limit, dropped.append)
    made = 0
    for i in range(count):

        def make(i: int = i) -> int:
            nonlocal made
            made += 1
            return i

        sample.offer(make)
    kept = sample.items
    assert len(kept) <= limit and len(kept) >= min(count, limit // 2 + 1 if limit > 1 else 1)
    assert kept == list(range(0, count, kept[1] - kept[0] if len(kept) > 1 else count or 1))
    assert len(dropped) + len(kept) == made


def test_nonsense_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        Curve(3)
    with pytest.raises(ValueError, match="room"):
        EvenSample(0, print)
