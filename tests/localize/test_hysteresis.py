from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.localize.hysteresis import Hysteresis


def intervals(scores, on, off, changes=(), reach=0.0):
    found, state = [], Hysteresis(reach)
    for t, score in enumerate(scores):
        if state.step(float(t), score, on, off, change=t in changes) == "finish":
            found.append((state.t_start, float(t), state.peak))
            state.reset()
    if state.t_start is not None:
        found.append((state.t_start, float(len(scores)), state.peak))
    return found


def test_runs_from_first_above_on_to_end_of_last_above_off():
    assert intervals([0, 3, 2, 1.6, 1.4, 3], on=2.5, off=1.5) == [(1.0, 4.0, 3), (5.0, 6.0, 3)]


def test_between_the_thresholds_nothing_begins():
    assert intervals([2, 2, 2], on=2.5, off=1.5) == []


def test_one_threshold_alone_splits_what_flickers():
    flicker = [3, 2, 3, 2, 3]
    assert len(intervals(flicker, on=2.5, off=1.5)) == 1
    assert len(intervals(flicker, on=2.5, off=2.5)) == 3


@given(st.lists(st.floats(-5, 5), max_size=40))
def test_intervals_are_apart_and_hold_what_they_say(scores):
    last = -1.0
    for start, end, peak in intervals(scores, on=1.0, off=0.0):
        inside = scores[int(start) : int(end)]
        assert last < start < end
        assert inside[0] >= 1.0 and min(inside) >= 0.0 and max(inside) == peak
        assert end == len(scores) or scores[int(end)] < 0.0
        last = end


def test_an_interval_begins_where_the_scores_rose_above_the_lower_threshold():
    scores = [0, 2, 2, 2, 3, 1]
    assert intervals(scores, on=2.5, off=1.5) == [(4.0, 5.0, 3)]
    assert intervals(scores, on=2.5, off=1.5, reach=10.0) == [(1.0, 5.0, 3)]
    assert intervals(scores, on=2.5, off=1.5, reach=2.0) == [(2.0, 5.0, 3)], "but no further back than it reaches"
    assert intervals(scores, on=2.5, off=1.5, reach=10.0, changes={3}) == [(3.0, 5.0, 3)], "and not over a change"


def test_after_a_change_it_goes_on_only_with_what_would_begin_one():
    assert intervals([3, 3, 2, 2], on=2.5, off=1.5) == [(0.0, 4.0, 3)]
    assert intervals([3, 3, 2, 2], on=2.5, off=1.5, changes={2}) == [(0.0, 2.0, 3)]
    assert intervals([3, 3, 3, 2], on=2.5, off=1.5, changes={2}) == [(0.0, 4.0, 3)]


def test_intervals_that_follow_a_change_share_its_border():
    assert intervals([3, 3, 2, 3], on=2.5, off=1.5, changes={2}, reach=9.0) == [(0.0, 2.0, 3), (2.0, 4.0, 3)]


@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), max_size=40), st.floats(0, 8))
def test_with_changes_and_reach_they_are_apart_too(samples, reach):
    scores, changes = [s for s, _ in samples], {t for t, (_, c) in enumerate(samples) if c}
    last = 0.0
    for start, end, peak in intervals(scores, on=1.0, off=0.0, changes=changes, reach=reach):
        inside = scores[int(start) : int(end)]
        begun = next(t for t in range(int(start), int(end)) if scores[t] >= 1.0)
        assert last <= start < end and begun - start <= reach
        assert min(inside) >= 0.0 and max(inside) == peak
        assert not changes & set(range(int(start) + 1, begun + 1))
        last = end
