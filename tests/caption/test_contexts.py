from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.caption.contexts import (
    StreamingOptions,
    StreamingResult,
    checkpoint_bin,
    drop_times,
    drop_wrong_checkpoint_segments,
    empty_context,
    merge_tokens,
    rescale_times,
    streaming_decode,
)
from onlooker.operators.caption.time_tokens import TimeTokens

BEGIN, END = 2, 3
TIMES = TimeTokens(50, 16)
LENGTH = 14

tokens = st.integers(0, TIMES.total - 1)
words = st.integers(4, 49)
events = st.lists(
    st.tuples(st.integers(0, 15), st.integers(0, 15), st.lists(words, min_size=1, max_size=3)), max_size=3
)


def row(values: Sequence[int], length: int = LENGTH) -> torch.Tensor:
    return torch.tensor([[*values, *[0] * (length - len(values))]])


def serialise(found: Sequence[tuple[int, int, list[int]]]) -> list[int]:
    return [token for start, end, caption in found for token in (50 + start, 50 + end, *caption)]


def closed(values: Sequence[int], length: int = LENGTH) -> list[int]:
    """A row as it must come out of joining."""
    kept = list(values)[: length - 2]
    return [BEGIN, *kept, END, *[0] * (length - 2 - len(kept))]


@given(st.lists(st.lists(tokens, min_size=1, max_size=12), min_size=1, max_size=3))
def test_joining_keeps_what_is_no_padding_begin_or_end_in_order(parts: list[list[int]]) -> None:
    joined = merge_tokens([torch.tensor([part]) for part in parts], LENGTH, BEGIN, END)
    kept = [token for part in parts for token in part if token not in (0, BEGIN, END)]
    assert joined.tolist() == [closed(kept)]


@given(st.lists(tokens, min_size=1, max_size=LENGTH))
def test_joining_twice_changes_nothing(values: list[int]) -> None:
    once = merge_tokens([row(values)], LENGTH, BEGIN, END)
    assert torch.equal(merge_tokens([once], LENGTH, BEGIN, END), once)


@given(st.lists(tokens, min_size=1, max_size=LENGTH))
def test_dropping_times_leaves_the_words_in_order(values: list[int]) -> None:
    left = [value for value in row(values)[0].tolist() if value < 50]
    assert drop_times(row(values), TIMES).tolist() == [left + [0] * (LENGTH - len(left))]


@given(events, st.integers(0, 17))
def test_events_behind_the_point_are_dropped(found: list[tuple[int, int, list[int]]], limit: int) -> None:
    whole = row([BEGIN, *serialise(found), END], 20)
    kept = [event for event in found if event[1] < limit]
    assert drop_wrong_checkpoint_segments(whole, TIMES, limit, BEGIN, END).tolist() == [closed(serialise(kept), 20)]


def test_words_before_the_first_event_are_dropped() -> None:
    whole = row([BEGIN, 7, 8, 51, 52, 9, END])
    assert drop_wrong_checkpoint_segments(whole, TIMES, 16, BEGIN, END).tolist() == [closed([51, 52, 9])]


def test_rescaling_rounds_down_and_leaves_words_alone() -> None:
    rescaled = rescale_times(torch.tensor([[49, 50, 51, 65]]), TIMES, 1)
    assert rescaled.tolist() == [[49, 50, 50, 60]]  # 0, 1, 15 times 2/3


def test_points_lie_at_equal_distances() -> None:
    assert [checkpoint_bin(TimeTokens(1, 64), 2, point) for point in range(2)] == [32, 64]
    assert checkpoint_bin(TimeTokens(1, 100), 8, 7) == 104


SCRIPT = [
    [[BEGIN, 54, 60, 7, 8, END], [BEGIN, 50, 58, 9, END]],
    [[BEGIN, 56, 65, 10, END], [BEGIN, END]],
]
"""Outputs of two videos at two points."""


def decode(**options: bool) -> StreamingResult:
    script = torch.stack([torch.cat([row(values) for values in point]) for point in SCRIPT])  # P, B, L
    return streaming_decode(
        lambda point, context: script[point],
        len(script),
        TIMES,
        batch=2,
        length=LENGTH,
        begin=BEGIN,
        end=END,
        options=StreamingOptions(**options),
    )


def test_the_second_point_sees_the_captions_of_the_first_without_times() -> None:
    result = decode()
    assert result.points[0].fed is not None and result.points[1].fed is not None
    assert torch.equal(result.points[0].fed, empty_context(2, LENGTH, BEGIN, END))
    assert result.points[1].fed.tolist() == [closed([7, 8]), closed([9])]
    assert result.tokens.tolist() == [closed([52, 55, 7, 8, 56, 65, 10]), closed([50, 54, 9])]


def test_contexts_with_times() -> None:
    result = decode(no_timestamp_in_context=False)
    assert result.points[1].fed is not None
    assert result.points[1].fed.tolist() == [closed([52, 55, 7, 8]), closed([50, 54, 9])]


def test_times_that_keep_their_scale() -> None:
    assert decode(normalize_early_timestamps=False).tokens[0].tolist() == closed([54, 60, 7, 8, 56, 65, 10])


def test_points_that_stand_alone() -> None:
    result = decode(early_segments_as_context=False)
    assert [point.fed for point in result.points] == [None, None]
    assert result.tokens.tolist() == [row(SCRIPT[1][0])[0].tolist(), row(SCRIPT[1][1])[0].tolist()]


def test_a_context_that_is_copied_forgets_the_points_before() -> None:
    result = decode(copy_context=True)
    assert result.tokens.tolist() == [row(SCRIPT[1][0])[0].tolist(), row(SCRIPT[1][1])[0].tolist()]


def test_events_from_wrong_points_are_removed() -> None:
    result = decode(remove_segments_from_wrong_checkpoint=True)
    # At the first of two points of 16 bins nothing ends at bin 8 or later.
    assert result.tokens.tolist() == [closed([56, 65, 10]), closed([])]


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="0 points"):
        streaming_decode(lambda point, context: row([]), 0, TIMES, batch=1, length=4, begin=BEGIN, end=END)
    with pytest.raises(ValueError, match=r"\(1, 14\), expected \(1, 4\)"):
        streaming_decode(lambda point, context: row([]), 1, TIMES, batch=1, length=4, begin=BEGIN, end=END)
