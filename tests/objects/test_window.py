"""Identities in a stream: what groups of a window become, and what of them stays."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onlooker.operators.objects.densevoc.identity import assign_identities
from onlooker.operators.objects.linking import CLOSED, NONE, link
from onlooker.operators.objects.window import Seen, Window, WindowRules

RULES = WindowRules(frames=5, threshold=0.5, birth_score=0.7)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def linked(groups: Any, identities: Any, frames: Any, strong: bool = False, ready: Any = None) -> list[int]:
    count = len(groups)
    ready = np.full(count, True) if ready is None else np.array(ready)
    return link(groups, identities, frames, ready, np.full(count, strong), 10).tolist()


def seen(t: float, *objects: float, score: float = 0.9) -> Seen:
    """A frame with these objects, whose tokens are their numbers."""
    count = len(objects)
    boxes = np.tile(np.float32([[0.1, 0.1, 0.3, 0.3]]), (count, 1))
    return Seen(0, t, boxes, np.full(count, score, np.float32), np.float32(objects).reshape(count, 1))


def perfect(tokens: Any) -> Any:
    """Two tokens are one object if they are equal."""
    return (tokens == tokens[:, 0]).astype(np.float32)


def watch(window: Window, frames: list[list[float]], rules: WindowRules = RULES) -> list[list[int]]:
    """Identities of each frame at the time it came."""
    told = []
    for objects in frames:
        window.push(seen(float(window.next_number), *objects), rules)
        window.settle(perfect, rules)
        told.append(window.frames[-1].identities.tolist())
    return told


def test_a_group_takes_the_identity_most_of_it_has() -> None:
    groups = ints(1, 1, 1, 2, 1, 2)
    identities = ints(3, 3, 4, 4, NONE, NONE)
    assert linked(groups, identities, ints(0, 1, 2, 2, 3, 3)) == [3, 3, 4, 4, 3, 4]


def test_ties_go_to_the_older_identity() -> None:
    assert linked(ints(1, 1, 1), ints(7, 2, NONE), ints(0, 1, 2)) == [7, 2, 2]


def test_each_identity_goes_to_one_group() -> None:
    """What split off begins a track of its own, if it is new and seen twice."""
    groups = ints(1, 1, 2, 2, 2)
    assert linked(groups, ints(0, 0, 0, NONE, NONE), ints(0, 1, 2, 3, 4)) == [0, 0, 0, 10, 10]
    assert linked(groups, ints(0, 0, 0, 0, NONE), ints(0, 1, 2, 3, 4)) == [0, 0, 0, 0, NONE]


def test_no_identity_is_given_twice_in_a_frame() -> None:
    """A newer association groups a second detection of a frame with the track that has one there."""
    assert linked(ints(1, 1, 2, 1), ints(5, NONE, 5, NONE), ints(0, 1, 1, 2)) == [5, NONE, 5, 5]


def test_a_track_begins_with_two_detections_or_a_strong_one() -> None:
    assert linked(ints(1, 2, 0), ints(NONE, NONE, NONE), ints(0, 0, 0)) == [NONE] * 3
    assert linked(ints(1, 2, 0), ints(NONE, NONE, NONE), ints(0, 0, 0), strong=True) == [10, 11, NONE]
    assert linked(ints(2, 1, 1, 2), ints(NONE, NONE, NONE, NONE), ints(0, 0, 1, 1)) == [10, 11, 11, 10]


def test_what_waits_counts_but_gets_nothing() -> None:
    assert linked(ints(1, 1), ints(NONE, NONE), ints(0, 1), ready=[True, False]) == [10, NONE]
    assert linked(ints(1, 1), ints(NONE, NONE), ints(0, 1), ready=[False, False]) == [NONE, NONE]


def test_who_was_closed_counts_for_nothing() -> None:
    assert linked(ints(1, 1, 1), ints(CLOSED, CLOSED, NONE), ints(0, 1, 2)) == [CLOSED, CLOSED, NONE]
    assert linked(ints(1, 1, 1), ints(CLOSED, NONE, NONE), ints(0, 1, 2)) == [CLOSED, 10, 10]


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_whatever_the_scores(seed: int) -> None:
    """No identity twice in a frame, none taken back, none that is dead given again; with scores that mean nothing."""
    random = np.random.default_rng(seed)
    rules = WindowRules(frames=4, threshold=0.5, birth_score=0.8, delay=int(random.integers(0, 4)))
    window, known, dead = Window(), {}, set()
    for t in range(12):
        frame = seen(float(t), *random.random(random.integers(0, 5)))
        frame.scores = random.random(len(frame.scores)).astype(np.float32)
        window.push(frame, rules)
        dead |= set(known.values()) - window.present()
        window.settle(lambda tokens: random.random((len(tokens), len(tokens))).astype(np.float32), rules)
        for each in window.frames:
            given_ids = [identity for identity in each.identities.tolist() if identity >= 0]
            assert len(given_ids) == len(set(given_ids))
            for i, identity in enumerate(each.identities.tolist()):
                if identity != NONE:
                    assert known.setdefault((each.number, i), identity) == identity
        assert not dead & window.present()
    assert not known or max(known.values()) == window.next_identity - 1


def test_who_comes_back_within_the_window_keeps_the_identity() -> None:
    """W - 1 frames after it was last seen is within, W is not: the new frame is one of the window."""
    present, hidden = [1.0, 2.0], [2.0]
    for after, kept in ((2, True), (RULES.frames - 1, True), (RULES.frames, False), (3 * RULES.frames, False)):
        window = Window()
        told = watch(window, [present, present, *[hidden] * (after - 1), present, present])
        assert told[0] == told[1] == [0, 1]
        assert all(frame == [1] for frame in told[2:-2])
        assert told[-1] == ([0, 1] if kept else [2, 1]), after


def test_a_weak_detection_is_told_with_the_second_one() -> None:
    window = Window()
    window.push(seen(0.0, 1.0, score=0.4), RULES)
    assert window.settle(perfect, RULES) == []
    window.push(seen(0.5, 1.0, score=0.4), RULES)
    assert [(s.identity, s.t) for s in window.settle(perfect, RULES)] == [(0, 0.0), (0, 0.5)]


def doubtful(tokens: Any) -> Any:
    """Two objects look alike until enough of them has been seen."""
    return np.where(perfect(tokens) > 0, 1.0, 0.6 if len(tokens) < 6 else 0.1).astype(np.float32)


def test_waiting_gives_what_the_whole_clip_says() -> None:
    """And telling at once does not, or the test would show nothing."""
    frames = [[1.0], [2.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
    tokens = np.array([[kind] for frame in frames for kind in frame], np.float32)
    numbers = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
    offline = assign_identities(doubtful(tokens), numbers, 0.5)

    def online(delay: int) -> list[int]:
        rules = WindowRules(frames=len(frames), threshold=0.5, birth_score=0.0, delay=delay)
        window = Window()
        for t, frame in enumerate(frames):
            window.push(seen(float(t), *frame), rules)
            window.settle(doubtful, rules)
        window.settle(doubtful, rules, last=True)
        return [identity for each in window.frames for identity in each.identities.tolist()]

    def partition(identities: list[int]) -> set[frozenset[int]]:
        return {frozenset(i for i, one in enumerate(identities) if one == identity) for identity in set(identities)}

    assert partition(online(len(frames) - 1)) == partition(offline.tolist())
    assert partition(online(0)) != partition(offline.tolist())


def test_size_does_not_grow() -> None:
    """A thousand objects later the window is as large as after one window."""

    def size(frames: int) -> int:
        window = Window()
        watch(window, [[float(i // 3), float(i // 2 + 5000)] for i in range(frames)])
        assert window.next_identity > frames // 3
        return len(pickle.dumps(window))

    assert abs(size(300) - size(30)) < 100


@pytest.mark.parametrize("frames", [[[]], [[], [], [1.0], []], []])
def test_nothing_to_see(frames: list[list[float]]) -> None:
    window = Window()
    told = watch(window, frames)
    assert [identity for frame in told for identity in frame] == [0] * sum(map(len, frames))
    assert window.settle(perfect, RULES, last=True) == []
