from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.caption.time_tokens import TimeTokens
from onlooker.training.dvc_targets import (
    AnnotatedVideo,
    RowFormat,
    TargetError,
    TargetOptions,
    streaming_targets,
    whole_video_row,
)

MINUTE = 60_000_000
WORDS, BINS = 1000, 16
ROWS = RowFormat(TimeTokens(WORDS, BINS), begin=1, end=2, length=64, event_length=16)


@st.composite
def videos(draw: st.DrawFn) -> AnnotatedVideo:
    """Events whose only word is 10 + their number."""
    count = draw(st.integers(0, 6))
    times = [sorted(draw(st.tuples(st.integers(0, MINUTE), st.integers(0, MINUTE)))) for _ in range(count)]
    start, end = np.array(times, np.int64).reshape(count, 2).T
    return AnnotatedVideo(start, end, MINUTE, [[10 + index] for index in range(count)])


options = st.builds(
    TargetOptions,
    num_dense_outputs=st.integers(1, 8),
    normalize_early_timestamps=st.booleans(),
    no_timestamp_in_context=st.booleans(),
    dynamic_location=st.booleans(),
    continuous_random_mask=st.booleans(),
    context_mask_ratio=st.sampled_from([0.0, 0.5, 1.0]),
    only_use_augmented_context=st.booleans(),
)


def events_of(row: np.ndarray) -> list[int]:
    return [int(token) - 10 for token in row if 10 <= token < WORDS]


@given(videos(), options, st.integers(0, 2**32 - 1))
def test_context_and_target_share_out_what_is_over(video: AnnotatedVideo, choice: TargetOptions, seed: int) -> None:
    targets = streaming_targets(video, ROWS, choice, np.random.default_rng(seed))
    count = choice.num_dense_outputs * (1 if choice.only_use_augmented_context else 2)
    assert targets.text_tokens.shape == targets.context_tokens.shape == (count, ROWS.length)
    ends = ROWS.event_bins(video)[:, 1]
    for text, context, frame in zip(*vars(targets).values(), strict=True):
        shared = events_of(text) + events_of(context)
        assert sorted(shared) == sorted(set(shared))
        # The last point of equal distances may lie behind the last frame; nothing ends there.
        assert sorted(shared) == [index for index, end in enumerate(ends) if end <= frame]
        assert events_of(text) == sorted(events_of(text)), "events keep the order of the annotation"
    assert sorted(events_of(targets.text_tokens[-1]) + events_of(targets.context_tokens[-1])) == list(range(len(ends)))


@given(videos(), st.integers(1, 8), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_random_split_leaves_the_latest_event_to_be_written(
    video: AnnotatedVideo, points: int, dynamic: bool, seed: int
) -> None:
    choice = TargetOptions(num_dense_outputs=points, dynamic_location=dynamic)
    targets = streaming_targets(video, ROWS, choice, np.random.default_rng(seed))
    ends = ROWS.event_bins(video)[:, 1]
    for text, frame in zip(targets.text_tokens, targets.checkpoint_inds, strict=True):
        over = [index for index, end in enumerate(ends) if end <= frame and end >= 1]
        latest = {index for index in over if ends[index] == max(ends[over])}
        assert latest <= set(events_of(text))


def video(*events: tuple[float, float, list[int]]) -> AnnotatedVideo:
    """Events in seconds of a minute."""
    start, end = (np.array([event[i] for event in events]) * 1_000_000 for i in (0, 1))
    return AnnotatedVideo(start.astype(np.int64), end.astype(np.int64), MINUTE, [words for _, _, words in events])


class Highest:
    """Draws that hand over as much as they may."""

    def integers(self, low: int, high: int, /) -> int:
        return high - 1

    def random(self, size: int, /, *, dtype: type[np.float32]) -> np.ndarray:
        return np.zeros(size, dtype)


def test_two_points_by_hand() -> None:
    # 16 bins of 4 s: the events end in bins 2, 7 and 8, the points lie at 8 and 16.
    events = video((0, 8, [20]), (4, 28, [21, 22]), (10, 32, [23]))
    targets = streaming_targets(events, ROWS, TargetOptions(num_dense_outputs=2), Highest())
    text = [[token for token in row if token] for row in targets.text_tokens.tolist()]
    context = [[token for token in row if token] for row in targets.context_tokens.tolist()]
    # At the first point bins count double, up to the last one; an event that ends in bin 8 is left to the second.
    assert text[0] == [1, 1000, 1004, 20, 1002, 1014, 21, 22, 2]
    assert context[0] == [1, 2]
    # r = 7 is drawn: what ends before it is handed over.
    assert text[1] == [1, 1001, 1007, 21, 22, 1002, 1008, 23, 2]
    assert context[1] == [1, 20, 2]
    assert targets.checkpoint_inds.tolist() == [7, 15]


def test_nothing_is_handed_over_where_nothing_may_be() -> None:
    events = video((0, 8, [20]), (4, 28, [21]))
    choice = TargetOptions(num_dense_outputs=4, continuous_random_mask=False, context_mask_ratio=0.0)
    targets = streaming_targets(events, ROWS, choice, np.random.default_rng(0))
    assert all(events_of(row) == [] for row in targets.context_tokens)


def test_long_captions_lose_two_more_words_where_times_need_the_room() -> None:
    long = list(range(10, 40))
    events = video((0, 8, long), (30, 60, [40]))
    targets = streaming_targets(events, ROWS, TargetOptions(num_dense_outputs=2), Highest())
    assert [token for token in targets.text_tokens[0].tolist() if 10 <= token < WORDS] == long[:13]
    assert [token for token in targets.context_tokens[1].tolist() if 10 <= token < WORDS] == long[:15]


def test_long_rows_end_with_the_end_token() -> None:
    rows = replace(ROWS, length=8)
    row = whole_video_row(video((0, 4, [10, 11]), (4, 8, [12, 13]), (8, 12, [14])), rows)
    assert row.tolist() == [1, 1000, 1001, 10, 11, 1001, 1002, 2]


def test_special_tokens_in_captions_are_dropped() -> None:
    row = whole_video_row(video((0, 4, [10, 0, 1, 11])), replace(ROWS, length=8))
    assert row.tolist() == [1, 1000, 1001, 10, 11, 2, 0, 0]


def test_wrong_annotations_and_options_are_refused() -> None:
    with pytest.raises(TargetError, match="2 captions with 1 starts and 1 ends"):
        AnnotatedVideo(np.array([0]), np.array([1]), MINUTE, [[10], [11]])
    with pytest.raises(TargetError, match="num_dense_outputs 0"):
        TargetOptions(num_dense_outputs=0)
