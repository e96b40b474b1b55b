from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.localize.hysteresis import Hysteresis


def intervals(scores, on, off):
    found, state = [], Hysteresis()
    for t, score in enumerate(scores):
        if state.step(float(t), score, on, off) == "finish":
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
