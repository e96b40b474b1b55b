import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.caption.time_tokens import TimeTokenError, TimeTokens

MINUTE = 60_000_000


@given(
    bins=st.integers(2, 200),
    duration=st.integers(1, 4 * 3600 * 1_000_000),
    share=st.floats(0, 1),
)
def test_a_time_comes_back_within_one_bin(bins: int, duration: int, share: float) -> None:
    times = TimeTokens(30522, bins)
    instant = int(share * duration)
    token = int(times.encode([instant], [duration], duration)[0, 0])
    back = times.decode_bin(token - 30522, duration)
    width = duration / (bins - 1)
    assert 30522 <= token < times.total
    assert back <= instant + 1  # exact borders may lie half a microsecond off
    assert instant - back < width + 1


@given(bins=st.integers(2, 200), words=st.sampled_from([30522, 32128]))
def test_the_bins_of_exact_borders_are_their_own(bins: int, words: int) -> None:
    duration = (bins - 1) * 1_000_000
    borders = np.arange(bins) * 1_000_000
    tokens = TimeTokens(words, bins).encode(borders, borders, duration)
    assert (tokens == words + np.arange(bins)[:, None]).all()


def test_the_end_counts_as_the_last_bin_and_so_does_what_lies_behind_it() -> None:
    times = TimeTokens(100, 64)
    assert times.encode([0, MINUTE - 1], [MINUTE, 2 * MINUTE], MINUTE).tolist() == [[100, 163], [162, 163]]


def test_centre_and_duration() -> None:
    times = TimeTokens(100, 61)
    assert times.encode([10_000_000], [21_000_000], MINUTE, "cd").tolist() == [[115, 111]]


def test_no_events() -> None:
    assert TimeTokens(100, 64).encode([], [], MINUTE).shape == (0, 2)


def test_is_time() -> None:
    assert TimeTokens(100, 4).is_time(torch.tensor([0, 99, 100, 103])).tolist() == [False, False, True, True]


def test_errors_name_the_value() -> None:
    with pytest.raises(TimeTokenError, match="duration 0 us"):
        TimeTokens(100, 4).encode([0], [1], 0)
    with pytest.raises(TimeTokenError, match="'xy'"):
        TimeTokens(100, 4).encode([0], [1], 2, "xy")  # type: ignore[arg-type]
    with pytest.raises(TimeTokenError, match="100 and 1"):
        TimeTokens(100, 1)
