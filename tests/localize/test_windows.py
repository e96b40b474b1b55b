"""Windows over a stream: what they hold, when they come, and how what they say is averaged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.localize.windows import Pool, Ring, Window, WindowPlan

PLAN = WindowPlan(frames=8, levels=3, stride=2, hop=4, margin=3, fps=2.0)


def push_all(times, plan=PLAN):
    """All windows of a stream whose frame i has the vector [i], and the ring."""
    ring = Ring()
    windows = [w for i, t in enumerate(times) for w in ring.push(t, np.array([i], np.float32), plan)]
    return windows, ring


def steady(count):
    return [i / 2 for i in range(count)]


def test_a_window_comes_with_every_hop_and_holds_the_last_frames():
    windows, _ = push_all(steady(13))
    assert [(w.origin, w.filled) for w in windows] == [(0, 4), (0, 8), (4, 8)]
    assert windows[0].video[:, 0].tolist() == [0, 1, 2, 3, 0, 0, 0, 0]
    assert windows[2].video[:, 0].tolist() == [4, 5, 6, 7, 8, 9, 10, 11]
    assert windows[2].times == tuple(steady(12)[4:])


def test_the_last_window_begins_on_the_grid_and_ends_with_the_stream():
    _, ring = push_all(steady(14))
    last = ring.close(PLAN)
    assert (last.origin, last.filled, last.last) == (8, 6, True)
    assert last.video[:, 0].tolist() == [8, 9, 10, 11, 12, 13, 0, 0]
    assert Ring().close(PLAN) is None


def test_missing_frames_are_those_before_and_more_of_them_are_left_out():
    windows, ring = push_all([0.0, 0.5, 0.7, 2.0, 2.5, 3.0, 3.5])
    assert windows[0].video[:4, 0].tolist() == [0, 1, 1, 1]
    assert windows[0].times == (0.0, 0.5, 1.0, 1.5)
    assert windows[1].video[:, 0].tolist() == [0, 1, 1, 1, 3, 4, 5, 6]
    assert ring.end == 8


def test_a_stream_may_begin_at_any_time():
    windows, _ = push_all([100.02 + t for t in steady(8)])
    assert [(w.origin, w.filled) for w in windows] == [(0, 4), (0, 8)]
    assert windows[1].seconds(0, 2.0) == 100.02


@given(st.lists(st.floats(0.05, 3.0), min_size=1, max_size=60))
def test_slots_follow_the_clock_whatever_the_gaps(gaps):
    times = np.cumsum(gaps).tolist()
    windows, ring = push_all(times)
    assert ring.end == int(times[-1] * 2 + 1e-3) - int(times[0] * 2 + 1e-3) + 1
    assert len(ring.vectors) == len(ring.times) <= PLAN.frames
    assert [w.origin + w.filled for w in windows] == list(range(4, ring.end + 1, 4))
    for window in windows:
        assert list(window.times) == sorted(set(window.times))


def test_positions_between_frames_are_interpolated():
    window = Window(0, 3, np.zeros((8, 1), np.float32), (0.0, 0.52, 1.0), last=False)
    assert window.seconds(1.5, 2.0) == pytest.approx(0.76)
    assert window.seconds(4.0, 2.0) == pytest.approx(2.0)
    assert window.seconds(-1.0, 2.0) == pytest.approx(-0.5)


@pytest.mark.parametrize("wrong", [{"hop": 6}, {"frames": 10}, {"hop": 0}, {"hop": 12}, {"fps": 0.0}])
def test_windows_that_do_not_fit_the_pyramid_are_refused(wrong):
    with pytest.raises(ValueError):
        WindowPlan(**{"frames": 8, "levels": 3, "stride": 2, "hop": 4, "margin": 3, "fps": 2.0, **wrong})


def test_trust_falls_towards_borders_but_not_where_the_stream_itself_begins_or_ends():
    def trust(origin, filled, last):
        return PLAN.weights(Window(origin, filled, np.zeros((8, 1), np.float32), (), last))[:8].tolist()

    assert trust(0, 8, True) == [1] * 8
    assert trust(0, 8, False) == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert trust(8, 8, False) == [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]
    assert trust(8, 4, True) == [0.25, 0.5, 0.75, 1, 0, 0, 0, 0]


def said(window, seed):
    rng = np.random.default_rng(seed)
    n = len(PLAN.steps.times)
    return rng.normal(size=n).astype(np.float32), rng.random((n, 2)).astype(np.float32)


def test_what_one_window_says_stays_as_it_is_to_the_last_bit():
    windows, ring = push_all(steady(7))
    pool, last = Pool.empty(PLAN), ring.close(PLAN)
    for i, window in enumerate([*windows, last]):
        logits, boxes = said(window, i)
        pool.add(window, logits, boxes, PLAN)
    there = PLAN.mask(last.filled)
    assert pool.logits[there].tobytes() == logits[there].tobytes()
    assert pool.boxes[there].tobytes() == boxes[there].tobytes()


def test_logits_are_weighted_means_over_the_windows_that_see_an_instant():
    windows, _ = push_all(steady(32))
    pool, sums, weights = Pool.empty(PLAN), {}, {}
    for i, window in enumerate(windows):
        logits, boxes = said(window, i)
        pool.add(window, logits, boxes, PLAN)
        for anchor, (time, stride) in enumerate(zip(*PLAN.steps, strict=True)):
            key = (stride, window.origin + time)
            if window.origin == 0:  # it takes the place of the one before
                sums.pop(key, None), weights.pop(key, None)
            trust = float(PLAN.weights(window)[anchor])
            sums[key] = sums.get(key, 0.0) + trust * float(logits[anchor])
            weights[key] = weights.get(key, 0.0) + trust
    for anchor, (time, stride) in enumerate(zip(*PLAN.steps, strict=True)):
        key = (stride, pool.origin + time)
        assert pool.logits[anchor] == pytest.approx(sums[key] / weights[key], abs=1e-5)


def boundaries(*told, slot):
    """What a pool holds about a slot after windows from 0, 4 ... on, each of which tells displacements of it."""
    pool = Pool.empty(PLAN)
    for origin, box in told:
        boxes = np.zeros((len(PLAN.steps.times), 2), np.float32)
        boxes[slot - origin] = box
        pool.add(Window(origin, 8, np.zeros((8, 1), np.float32), (), last=False), boxes[:, 0], boxes, PLAN)
    return pool.boxes[slot - pool.origin].tolist()


def test_an_end_that_was_still_to_come_is_forgotten_when_a_window_has_seen_further():
    assert boundaries((0, (1, 9)), (4, (1, 3)), slot=7) == [1, 3]
    assert boundaries((0, (1, 9)), (4, (1, 8)), slot=7) == [1, 8]
    seen_both = boundaries((0, (1, 0.5)), (4, (1, 2.5)), slot=6)
    assert 0.5 < seen_both[1] < 2.5


def test_a_start_that_is_cut_off_counts_next_to_nothing_beside_one_that_was_seen():
    assert boundaries((0, (3, 1)), (4, (1, 1)), slot=5)[0] == pytest.approx(3, abs=0.01)
    assert boundaries((4, (1, 1)), slot=5)[0] == 1
