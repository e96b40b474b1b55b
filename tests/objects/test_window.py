"""Identities in a stream: what groups of a window become, and what of them stays."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onlooker.operators.objects.densevoc.identity import assign_identities
from onlooker.operators.objects.linking import CLOSED, NONE, Known, link
from onlooker.operators.objects.window import Seen, Window, WindowRules

RULES = WindowRules(frames=5, threshold=0.5, birth_score=0.7)
PLACE = np.float32([0.1, 0.1, 0.3, 0.3])


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def linked(
    scores: Any,
    identities: Any,
    frames: Any,
    sure: float = 0.4,
    ready: Any = None,
    looks: Any = None,
    boxes: Any = None,
) -> list[int]:
    """Identities with a threshold of .5; a track begins at .7, with number 10. By default all look alike."""
    scores = np.array(scores, np.float32)
    count = len(scores)
    ready = np.full(count, True) if ready is None else np.array(ready)
    looks = np.ones((count, 1), np.float32) if looks is None else np.array(looks, np.float32)
    boxes = np.tile(PLACE, (count, 1)) if boxes is None else np.array(boxes, np.float32)
    known = Known(frames, boxes, np.full(count, sure, np.float32), looks)
    return link(scores, identities, known, ready, 0.5, 0.7, 10).tolist()


def of_kinds(*kinds: float) -> Any:
    """Scores of objects that are told apart without fault; 0 is like nothing, not even itself."""
    own = np.array(kinds)
    return ((own[:, None] == own) & (own > 0)).astype(np.float32)


def seen(t: float, *objects: float, score: float = 0.9) -> Seen:
    """A frame with these objects, whose tokens are their numbers."""
    count = len(objects)
    boxes = np.tile(PLACE, (count, 1))
    tokens = np.float32(objects).reshape(count, 1)
    looks = np.array([look(kind) for kind in objects], np.float16).reshape(count, 512)
    return Seen(0, t, boxes, np.full(count, score, np.float32), tokens, looks)


def look(kind: float) -> Any:
    """A unit vector of an object, at right angles to those of others or nearly."""
    vector = np.random.default_rng(int(1e6 * kind)).normal(size=512)
    return vector / np.linalg.norm(vector)


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


def test_a_track_goes_on_with_what_fits_it_best() -> None:
    scores = [[1, 0.9, 0.6, 0.8], [0.9, 1, 0.7, 0.9], [0.6, 0.7, 1, 0], [0.8, 0.9, 0, 1]]
    assert linked(scores, ints(3, 3, NONE, NONE), ints(0, 1, 2, 2)) == [3, 3, NONE, 3]


def test_both_directions_of_a_score_count() -> None:
    """One track has .9 and .2 with the new detection, the other one the same in both."""
    for even, track in ((0.5, 3), (0.6, 4)):
        scores = [[1, 0, 0.9], [0, 1, even], [0.2, even, 1]]
        assert linked(scores, ints(3, 4, NONE), ints(0, 0, 1)) == [3, 4, track]


def test_as_many_go_on_as_can_and_all_together_fit_best() -> None:
    """Not the pair that fits best first: what is left of the others would have to take what fits neither."""
    scores = np.eye(4)
    for i, j, score in ((0, 2, 0.8), (1, 2, 0.9), (1, 3, 0.7), (0, 3, 0.3)):
        scores[i, j] = scores[j, i] = score
    assert linked(scores, ints(0, 1, NONE, NONE), ints(0, 0, 1, 1)) == [0, 1, 0, 1]


def test_a_track_is_known_by_the_views_that_are_most_alike() -> None:
    """Three of its five detections show it from the side of the new one; on average it is unlike."""
    scores, looks = np.eye(6), np.array([[-1], [-1], [1], [1], [1], [1]])
    identities, frames = ints(4, 4, 4, 4, 4, NONE), ints(0, 1, 2, 3, 4, 6)
    assert linked(scores, identities, frames, looks=looks)[-1] == 4
    looks[2] = -1
    assert linked(scores, identities, frames, looks=looks)[-1] == NONE


def test_looks_size_and_place_tell_who_goes_on() -> None:
    """Each alone where the others are the same, and place only of who was seen in the frame before."""
    identities, alike = ints(0, 1, NONE), np.ones((3, 3))
    turned = [[1, 0], [0.6, 0.8], [0.6, 0.8]]
    assert linked(alike, identities, ints(0, 0, 2), looks=turned)[-1] == 1
    sizes = [[0.1, 0.1, 0.5, 0.5], PLACE, PLACE]
    assert linked(alike, identities, ints(0, 0, 2), boxes=sizes)[-1] == 1
    places = [PLACE + 0.3, PLACE, PLACE]
    assert linked(alike, identities, ints(0, 0, 1), boxes=places)[-1] == 1
    assert linked(alike, identities, ints(0, 0, 2), boxes=places)[-1] == 0


def test_who_moves_is_looked_for_where_it_was_going() -> None:
    """Two cross: where they stood is where the other one is now."""
    left, middle, right = PLACE, PLACE + [0.2, 0, 0.2, 0], PLACE + [0.4, 0, 0.4, 0]
    boxes = [left, right, middle, middle, left, right]
    identities, frames = ints(0, 1, 0, 1, NONE, NONE), ints(0, 0, 1, 1, 2, 2)
    assert linked(np.ones((6, 6)), identities, frames, boxes=boxes)[-2:] == [1, 0]


def test_who_looks_like_nobody_is_somebody_else() -> None:
    assert linked(np.eye(2), ints(3, NONE), ints(0, 2), looks=np.eye(2), sure=0.8) == [3, 10]


def test_no_identity_is_given_twice_in_a_frame() -> None:
    """A second detection that looks the same is another object, or waits to be one."""
    everything = np.ones((4, 4))
    assert linked(everything, ints(5, NONE, 5, NONE), ints(0, 1, 1, 2)) == [5, NONE, 5, 5]
    assert linked(everything, ints(5, NONE, 5, NONE), ints(0, 1, 1, 2), sure=0.8) == [5, 10, 5, 5]


def test_a_track_begins_with_several_weak_detections_or_a_strong_one() -> None:
    assert linked(of_kinds(1, 2, 0), ints(NONE, NONE, NONE), ints(0, 0, 0)) == [NONE] * 3
    assert linked(of_kinds(1, 2, 0), ints(NONE, NONE, NONE), ints(0, 0, 0), sure=0.8) == [10, 11, NONE]
    assert linked(of_kinds(1, 2, 2, 1), ints(NONE, NONE, NONE, NONE), ints(0, 0, 1, 1)) == [10, 11, 11, 10]
    assert linked(of_kinds(1, 1), ints(NONE, NONE), ints(0, 1), sure=0.3) == [NONE, NONE]
    assert linked(of_kinds(1, 1, 1), ints(NONE, NONE, NONE), ints(0, 1, 2), sure=0.3) == [10, 10, 10]


def test_tracks_are_numbered_by_their_first_detections() -> None:
    """Not by how many they have, as the groups of the paper are."""
    assert linked(of_kinds(1, 2, 2, 1, 2), ints(*[NONE] * 5), ints(0, 0, 1, 2, 2)) == [10, 11, 11, 10, 11]


def test_what_waits_counts_but_gets_nothing() -> None:
    assert linked(of_kinds(1, 1), ints(NONE, NONE), ints(0, 1), ready=[True, False]) == [10, NONE]
    assert linked(of_kinds(1, 1), ints(NONE, NONE), ints(0, 1), ready=[False, False]) == [NONE, NONE]
    assert linked(of_kinds(1, 1), ints(7, NONE), ints(0, 1), ready=[True, False]) == [7, NONE]


def test_who_was_closed_counts_for_nothing() -> None:
    assert linked(of_kinds(1, 1, 1), ints(CLOSED, CLOSED, NONE), ints(0, 1, 2)) == [CLOSED, CLOSED, NONE]
    assert linked(of_kinds(1, 1, 1), ints(CLOSED, NONE, NONE), ints(0, 1, 2)) == [CLOSED, 10, 10]


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_whatever_the_scores(seed: int) -> None:
    """No identity twice in a frame, none taken back, none that is dead given again; with scores that mean nothing."""
    random = np.random.default_rng(seed)
    rules = WindowRules(frames=4, threshold=0.5, birth_score=0.8, delay=int(random.integers(0, 3)))
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
        rules = WindowRules(frames=2 * len(frames), threshold=0.5, birth_score=0.0, delay=delay)
        window = Window()
        for t, frame in enumerate(frames):
            window.push(seen(float(t), *frame), rules)
            window.settle(doubtful, rules)
        window.settle(doubtful, rules, last=True)
        return [identity for each in window.frames for identity in each.identities.tolist()]

    def partition(identities: list[int]) -> set[frozenset[int]]:
        return {frozenset(i for i, one in enumerate(identities) if one == identity) for identity in set(identities)}

    assert partition(online(len(frames))) == partition(offline.tolist())
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
