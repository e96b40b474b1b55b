"""The rules of time by themselves, against their definitions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.decode.timeline import FrameClock, FrameCounts, SampleGrid, clock_rule

TIME_BASE = Fraction(1, 600)


def by_definition(ticks: list[int], rate: Fraction, time_base: Fraction) -> list[int]:
    """For each slot k the first frame at or after k / rate, never a frame twice, an empty slot none."""
    taken: list[int] = []
    slots = math.floor(ticks[-1] * time_base * rate) + 1 if ticks else 0
    for k in range(slots):
        first = next(t for t in ticks if t * time_base >= k / rate)
        if first not in taken:
            taken.append(first)
    return taken


@given(
    st.lists(st.integers(0, 9000), min_size=1, max_size=60, unique=True).map(sorted),
    st.sampled_from([Fraction(2), Fraction(1, 2), Fraction(25), Fraction(30000, 1001), Fraction(299, 100)]),
)
def test_the_grid_takes_what_the_definition_says(ticks: list[int], rate: Fraction) -> None:
    grid = SampleGrid(rate, TIME_BASE)
    assert [t for t in ticks if grid.take(t)] == by_definition(ticks, rate, TIME_BASE)


@given(st.lists(st.integers(0, 9000), min_size=2, max_size=60, unique=True).map(sorted), st.data())
def test_a_grid_resumed_after_a_sample_goes_on_alike(ticks: list[int], data: st.DataObject) -> None:
    grid = SampleGrid(2.0, TIME_BASE)
    samples = [t for t in ticks if grid.take(t)]
    last = data.draw(st.sampled_from(samples))
    resumed = SampleGrid(2.0, TIME_BASE, last)
    assert [t for t in ticks if t > last and resumed.take(t)] == [t for t in samples if t > last]


def test_without_a_rate_every_frame_is_a_sample() -> None:
    grid = SampleGrid(None, TIME_BASE)
    assert [t for t in range(7) if grid.take(t)] == list(range(7))


def test_decimal_rates_mean_what_is_written() -> None:
    """0.1 is not the binary fraction next to it: the frame at exactly 30 s fills the slot of 30 s."""
    grid = SampleGrid(0.1, Fraction(1))
    assert [t for t in range(61) if grid.take(t)] == [0, 10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize("rate", [0, -1.0, math.inf, math.nan])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="sampling rate must be a positive"):
        SampleGrid(rate, TIME_BASE)


Stamp = tuple[int | None, int | None, int | None]


@given(
    st.sampled_from(["presentation", "first_frame", "decode_order"]),
    st.lists(
        st.tuples(
            st.none() | st.integers(-2000, 2**33), st.none() | st.integers(-2000, 2**33), st.none() | st.integers(0, 99)
        ),
        max_size=50,
    ),
)
def test_no_stamps_however_wild_make_time_stand_or_go_back(rule, stamps: list[Stamp]) -> None:
    counts = FrameCounts()
    clock = FrameClock(rule, TIME_BASE, 24, counts)
    placed = [t for t in (clock.place(*s) for s in stamps) if t is not None]
    assert all(a < b for a, b in zip([-1, *placed], placed, strict=False))
    assert len(placed) + counts.non_increasing + counts.before_zero == len(stamps)
    if placed:
        assert clock.end > placed[-1]


def test_frames_without_pts_follow_their_predecessor() -> None:
    counts = FrameCounts()
    clock = FrameClock("presentation", TIME_BASE, 24, counts)
    assert [clock.place(p, None, d) for p, d in [(None, 24), (None, 30), (60, 0), (None, 24)]] == [0, 24, 60, 84]
    assert counts.inferred_pts == 3


def test_a_free_clock_that_wraps_goes_on_where_the_last_frame_ended() -> None:
    counts = FrameCounts()
    clock = FrameClock("first_frame", Fraction(1, 90_000), 3600, counts)
    wrap = 2**33
    assert [clock.place(p % wrap, None, 3600) for p in range(wrap - 7200, wrap + 7200, 3600)] == [0, 3600, 7200, 10800]
    assert counts.clock_jumps == 1


def test_a_free_clock_may_learn_its_zero_late() -> None:
    """The first frame of a camera often has no PTS."""
    clock = FrameClock("first_frame", Fraction(1, 90_000), 3600, FrameCounts())
    assert [clock.place(p, None, None) for p in [None, 500_000, 503_600]] == [0, 3600, 7200]


def test_small_steps_back_are_dropped_not_rebased() -> None:
    counts = FrameCounts()
    clock = FrameClock("first_frame", Fraction(1, 90_000), 3600, counts)
    assert [clock.place(p, None, 3600) for p in [9000, 12600, 12600, 10000, 16200]] == [0, 3600, None, None, 7200]
    assert (counts.non_increasing, counts.clock_jumps) == (2, 0)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("mov,mp4,m4a,3gp,3g2,mj2", "presentation"),
        ("matroska,webm", "presentation"),
        ("mpegts", "first_frame"),
        ("mpeg", "first_frame"),
        ("avi", "decode_order"),
    ],
)
def test_which_clock_a_container_has(name: str, rule: str) -> None:
    assert clock_rule(name) == rule
