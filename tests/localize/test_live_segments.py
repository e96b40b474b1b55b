"""Segments of window after window as events: each is told once, follows what is seen, and ends once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onlooker.operators.localize.live_segments import Found, QuerySegments, SegmentRules

RULES = SegmentRules(on=0.5, off=0.3, settle=4.0, reach=4.0, edge=4.0)
HOP = 4.0


def follow(*windows, rules=RULES, span=32.0, last=False):
    """Everything told over windows that end 4, 8 ... s after the beginning, with the time of each."""
    state, told, numbers = QuerySegments(), [], 0
    for i, found in enumerate(windows):
        now = (i + 1) * HOP
        left = now - span if now > span else -np.inf
        ordered = sorted((Found(*one) for one in found), key=lambda one: -one.score)
        news = rules.step(state, ordered, left, now, numbers, last=last and i == len(windows) - 1)
        numbers += sum(one.phase == "new" for one in news)
        told += [(now, one) for one in news]
        assert all(one.end > now - rules.settle for one in state.live), "what stays open was seen to go on lately"
    return told, state


def lines(told):
    return [(now, one.phase, one.number, one.start, one.end) for now, one in told]


def test_a_segment_opens_goes_on_and_ends_when_its_end_lies_back():
    told, state = follow([], [(6, 8, 0.6)], [(6, 11, 0.9)], [(6, 11.5, 0.9)], [(6, 11.5, 0.9)])
    assert lines(told) == [(8, "new", 0, 6, None), (16, "end", 0, 6, 11.5)]
    assert [one.rev for _, one in told] == [0, 1]
    assert not state.live


def test_what_has_ended_is_not_told_again():
    told, _ = follow([(0, 3, 0.9)], [(0, 3, 0.9)], [(0.2, 3.3, 0.9)], [(0, 3, 0.8)])
    assert [one.phase for _, one in told] == ["new", "end"]


def test_a_better_start_is_an_update_and_a_slightly_other_one_is_not():
    told, _ = follow([], [(6, 8, 0.9)], [(6.4, 12, 0.9)], [(4.5, 16, 0.9)])
    assert lines(told) == [(8, "new", 0, 6, None), (16, "update", 0, 4.5, None)]


def test_a_long_one_is_told_again_from_time_to_time():
    told, _ = follow(*[[(0, 4 * i, 0.9)] for i in range(1, 8)])
    assert [(now, one.phase) for now, one in told] == [(4, "new"), (16, "update"), (28, "update")]


def test_hysteresis():
    weak = [(0, 4, 0.4)]
    assert follow(weak, weak)[0] == []
    told, state = follow([(0, 4, 0.6)], [(0, 8, 0.35)])
    assert [one.phase for _, one in told] == ["new"] and len(state.live) == 1
    told, _ = follow([(0, 4, 0.6)], [])
    assert lines(told)[-1] == (8, "end", 0, 0, 4), "it is lost: it ended where it was last seen"


def test_the_same_words_may_come_true_several_times():
    told, _ = follow(
        [(0, 2, 0.9)], [(0, 2, 0.9), (5, 7, 0.8)], [(0, 2, 0.9), (5, 7, 0.8)], [(5, 7, 0.8), (13, 16, 0.7)]
    )
    ends = {one.number: (one.start, one.end) for _, one in told if one.phase == "end"}
    assert ends == {0: (0, 2), 1: (5, 7)}
    assert lines(told)[-1] == (16, "new", 2, 13, None)


def test_segments_about_the_same_moment_are_one():
    told, state = follow([(0, 4, 0.9), (0.5, 4, 0.8), (1, 2, 0.7)])
    assert len(told) == len(state.live) == 1


def test_an_event_longer_than_a_window_keeps_its_start_and_its_number():
    windows = [[(max(10, now - 32), min(now, 90), 0.9)] for now in np.arange(4, 120, 4.0) if now > 10]
    told, _ = follow([], [], *windows, span=32.0)
    assert {one.number for _, one in told} == {0}
    assert lines(told)[-1] == (96, "end", 0, 10, 90)
    assert all(one.start == 10 for _, one in told)


def test_two_that_turn_out_to_be_one_later_tell_only_the_rest():
    told, _ = follow([(0, 3, 0.9)], [(0, 3, 0.9)], [(0, 12, 0.9)], [(0, 12, 0.9)])
    assert lines(told) == [(4, "new", 0, 0, None), (8, "end", 0, 0, 3), (12, "new", 1, 3, None), (16, "end", 1, 3, 12)]


def test_a_guess_that_ended_does_not_stand_in_the_way_of_what_is_much_surer():
    told, _ = follow([(0, 3, 0.5)], [(0, 3, 0.4)], [(0, 12, 0.9)], [(0, 12, 0.9)])
    assert lines(told)[1:] == [(8, "end", 0, 0, 3), (12, "new", 1, 0, None), (16, "end", 1, 0, 12)]


def test_what_ended_long_ago_is_not_told():
    assert follow([], [], [], [(2, 6, 0.9)])[0] == []
    assert [one.phase for _, one in follow([], [], [], [(2, 9, 0.9)])[0]] == ["new", "end"]


def test_the_end_of_the_stream_ends_all():
    told, state = follow([(1, 3.9, 0.9)], [(1, 7, 0.9)], last=True)
    assert lines(told) == [(4, "new", 0, 1, None), (8, "end", 0, 1, 7)]
    assert not state.live


def test_short_ones_are_left_out():
    rules = SegmentRules(on=0.5, off=0.3, settle=4.0, reach=4.0, shortest=1.0)
    assert follow([(0, 0.9, 0.9)], rules=rules)[0] == []
    assert follow([(2, 2, 0.9), (3, 2, 0.9)])[0] == []


found = st.lists(
    st.tuples(st.floats(0, 60), st.floats(0, 20), st.floats(0.3, 1)).map(lambda s: (s[0], s[0] + s[1], s[2])),
    max_size=8,
)


@settings(max_examples=30)
@given(st.lists(found, min_size=1, max_size=12))
def test_whatever_windows_say_the_rules_hold(windows):
    """Numbers are used once, revisions count up, ends come last and in time, and the state stays small."""
    seen = [
        [(start, min(end, 4.0 * i), score) for start, end, score in found if max(start, 4 * i - 32) < 4 * i]
        for i, found in enumerate(windows, 1)
    ]
    told, state = follow(*seen, last=True)
    by_number = {}
    for now, one in told:
        by_number.setdefault(one.number, []).append((now, one))
    assert sorted(by_number) == list(range(len(by_number)))
    for revisions in by_number.values():
        assert [one.rev for _, one in revisions] == list(range(len(revisions)))
        phases = [one.phase for _, one in revisions]
        assert phases[0] == "new" and phases[-1] == "end" and set(phases[1:-1]) <= {"update"}
        (opened, _), (now, end) = revisions[0], revisions[-1]
        assert end.start <= end.end <= now
        assert opened < now or now <= end.end + RULES.settle + RULES.reach
    assert not state.live
    assert len(state.closed) <= sum(map(len, seen))


@pytest.mark.parametrize("score", [0.31, 0.95])
def test_a_score_is_the_newest(score):
    told, _ = follow([(0, 4, 0.6)], [(0, 4, score)])
    assert told[-1][1].score == score
