"""The tracker on a stream: with an association that is right, and with random ones where only sameness counts."""

from __future__ import annotations

import pickle
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from onlooker.operators.contract import Context, Inputs
from onlooker.operators.errors import OnlookerError
from onlooker.operators.events import parse_event
from onlooker.operators.objects.densevoc.identity import assign_identities
from onlooker.operators.objects.densevoc.model import DenseVoc
from onlooker.operators.objects.tracker_node import ObjectTracker, ObjectTrackerConfig
from onlooker.operators.objects.tracks import POINTS
from onlooker.operators.packets import Detections

from .tracking import (
    CHANNELS,
    FPS,
    KINDS,
    RESOLUTION,
    Teller,
    Watcher,
    box_of,
    detections,
    pictures,
    random_model,
    right_model,
    run,
    save,
    tokens,
    tracker,
)


@pytest.fixture(scope="module")
def right(tmp_path_factory: Any) -> Any:
    return save(tmp_path_factory.mktemp("right"), right_model(), online_threshold=0.7)


@pytest.fixture(scope="module")
def random(tmp_path_factory: Any) -> Any:
    return save(tmp_path_factory.mktemp("random"), random_model(3), online_threshold=0.7)


def noise(frames: int, seed: int = 0) -> list[Detections]:
    """Detections that mean nothing, from none to six a frame."""
    random = np.random.default_rng(seed)
    packets = []
    for number in range(frames):
        count = int(random.integers(0, 7))
        corners = np.sort(random.random((count, 2, 2)), axis=1).reshape(count, 4).astype(np.float32)
        features = random.normal(0, 3, (count, RESOLUTION**2, CHANNELS)).astype(np.float32)
        scores = random.random(count).astype(np.float32)
        looks = features.reshape(count, KINDS)
        looks = looks / np.linalg.norm(looks, axis=1, keepdims=True)
        packets.append(Detections("s", 0, number / FPS, corners, scores, features, looks=looks))
    return packets


def lives(told: list[tuple[float, Any]]) -> dict[int, list[Any]]:
    """The revisions of each track, checked to be one life: new, updates, end."""
    tracks = defaultdict(list)
    for _, event in told:
        tracks[event.event_no].append(event)
    for events in tracks.values():
        assert [event.data.rev for event in events] == list(range(len(events)))
        phases = [event.phase for event in events]
        assert phases[-1] == "end" and phases[:-1] == ["new", *["update"] * len(phases)][: len(phases) - 1]
        assert all(event.t_end is None for event in events[:-1])
    return tracks


def as_lines(told: list[tuple[float, Any]]) -> list[tuple[float, str]]:
    return [(t, event.to_json(canonical=True)) for t, event in told]


def test_an_object_appears_moves_and_is_gone(right: Any) -> None:
    packets = detections([[], [3], [3], [3], [3], [3], *[[]] * 6], names=True)
    told = run(tracker(right, window=4), packets)
    (events,) = lives(told).values()
    new, *updates, end = events
    assert [t for t, _ in told] == [0.5, 1.5, 2.5, 4.5]  # told at 2 per second, updated once a second
    assert len(new.data.boxes) == 1
    assert [[point.t for point in update.data.boxes] for update in updates] == [[1.0, 1.5], [2.0, 2.5]]
    assert (end.t_start, end.t_end, end.data.t_seen) == (0.5, 2.5, 4.5)
    assert [point.t for point in end.data.boxes] == [0.5, 1.0, 1.5, 2.0, 2.5]
    np.testing.assert_allclose(end.data.boxes[-1][1:], box_of(3, 2.5), atol=1e-4)
    assert {event.data.name for event in events} == {"thing 3"} and end.data.score == 0.9
    assert all(parse_event(event.to_json()) == event for event in events)


def test_what_is_open_ends_with_the_stream(right: Any) -> None:
    tracks = lives(run(tracker(right), detections([[1], [1, 2], [2]])))
    assert [(events[-1].t_start, events[-1].t_end, events[-1].data.t_seen) for events in tracks.values()] == [
        (0.0, 0.5, 1.5),
        (0.5, 1.0, 1.5),
    ]


@pytest.mark.parametrize(("after", "count"), [(5, 1), (6, 2)])
def test_hidden_and_back(right: Any, after: int, count: int) -> None:
    """Seen again within the window it is the same, later another; objects that stay keep their identities."""
    frames = [[1, 2]] * 3 + [[2]] * (after - 1) + [[1, 2]] * 3
    tracks = lives(run(tracker(right, window=6), detections(frames)))
    assert len(tracks) == count + 1
    assert tracks[1][-1].t_start == 0.0 and tracks[1][-1].t_end == (len(frames) - 1) / FPS
    back = max(tracks.values(), key=lambda events: (events[-1].t_start, events[0].event_no))[-1]
    assert (back.t_start == (2 + after) / FPS) == (count == 2)


def test_a_weak_detection_is_told_when_it_is_seen_again(right: Any) -> None:
    told = run(tracker(right), detections([[1], [], [1]], score=0.4))
    assert [(t, event.phase) for t, event in told] == [(1.0, "new"), (1.5, "end")]
    assert [point.t for point in told[0][1].data.boxes] == [0.0, 1.0]
    assert run(tracker(right), detections([[1]], score=0.4)) == []
    assert len(run(tracker(right, birth_score=0.4), detections([[1]], score=0.4))) == 2


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("delay", [0, 3])
def test_chunks_do_not_matter(random: Any, chunk: int, delay: int) -> None:
    packets = noise(40)
    settings = {"window": 8, "delay": delay, "captions_per_second": 2.0, "tracks": 6}
    whole = run(tracker(random, Teller(), **settings), packets, tokens(packets))
    assert as_lines(whole) == as_lines(run(tracker(random, Teller(), **settings), packets, tokens(packets), chunk))
    assert len(lives(whole)) > 5 and any(event.phase == "update" for _, event in whole)


def test_company_does_not_matter(random: Any) -> None:
    """Streams that share a call are told what they are told alone."""
    operator, streams = tracker(random), [noise(12, seed) for seed in range(3)]
    alone = [as_lines(run(operator, packets)) for packets in streams]
    states = [operator.initial_state("s") for _ in streams]
    results = operator.process_batch(states, [Inputs({"detections": packets}, 9.0, 9.0) for packets in streams])
    for (state, outputs), expected in zip(results, alone, strict=True):
        _, last = operator.flush(state, 6.0)
        told = [(p.t, e) for p in [*outputs.packets["events"], *last.packets["events"]] for e in p.events]
        assert as_lines(told) == expected


def test_a_clip_within_the_window_is_followed_as_offline(random: Any) -> None:
    """With the longest delay and every single detection told: the groups of the whole clip, no others."""
    packets = noise(10, seed=7)
    operator = tracker(random, window=20, delay=10, birth_score=0.0)
    order = [np.argsort(-packet.scores, kind="stable") for packet in packets]
    vectors = np.concatenate([operator._matcher.embed(p.features[own]) for p, own in zip(packets, order, strict=True)])
    frames = np.repeat(np.arange(10), [len(packet.scores) for packet in packets])
    offline = assign_identities(operator._matcher.relate(vectors), frames, operator._rules.threshold)
    boxes = np.concatenate([packet.boxes[own] for packet, own in zip(packets, order, strict=True)])
    expected = {
        frozenset(
            (frames[i] / FPS, *np.round(boxes[i].astype(float), 4).tolist())
            for i in np.flatnonzero(offline == identity)
        )
        for identity in range(1, offline.max() + 1)
    }
    tracks = lives(run(operator, packets))
    assert {frozenset(tuple(point) for point in events[-1].data.boxes) for events in tracks.values()} == expected
    assert len(expected) > 3
    at_once = lives(run(tracker(random, window=20, birth_score=0.0), packets))
    assert {frozenset(tuple(p) for p in events[-1].data.boxes) for events in at_once.values()} != expected


def test_no_identity_twice_in_a_frame(random: Any) -> None:
    for seed in range(3):
        for events in lives(run(tracker(random, window=5), noise(30, seed))).values():
            times = [point.t for point in events[-1].data.boxes]
            assert len(times) == len(set(times))


def test_memory_does_not_grow(right: Any) -> None:
    """Days of objects that come and go, and one that stays, take no more than a minute of them."""

    def size(frames: int) -> int:
        operator, state = tracker(right, Teller(2), window=6), None
        shown = [[0, 1 + (i // 2) % (KINDS - 1)] for i in range(frames)]
        packets = detections(shown)
        state = operator.initial_state("s")
        given = {"detections": packets, "tokens": tokens(packets)}
        state, outputs = operator.process(state, Inputs(given, packets[-1].t, packets[-1].t))
        ends = [e for p in outputs.packets["events"] for e in p.events if e.phase == "end"]
        assert len(ends) > frames / 2 - 6 and len(state.tracks) <= 5
        assert all(view.base is None for track in state.tracks.values() for view in track.views.items)
        return len(pickle.dumps(state))

    assert size(400) < 1.1 * size(120)  # both with a path and a bank that have been thinned


def test_a_long_way_is_thinned(right: Any) -> None:
    (events,) = lives(run(tracker(right), detections([[1]] * 301))).values()
    times = [point.t for point in events[-1].data.boxes]
    assert len(times) == POINTS and times[0] == 0.0 and times[-1] == 150.0
    assert max(np.diff(times)) <= 3 * min(np.diff(times)[:-1])
    told = [point.t for event in events[:-1] for point in event.data.boxes]
    assert told == [i / FPS for i in range(len(told))] and len(told) >= 300


def test_too_many_objects(right: Any) -> None:
    """The one that was unseen for longest ends, and is another one when it comes back."""
    told = run(tracker(right, tracks=3, window=8), detections([[1], [2], [3], [4], [1]]))
    tracks = lives(told)
    first = tracks[0][-1]
    assert len(tracks) == 5 and (first.t_end, first.data.t_seen) == (0.0, 1.5)
    live = 0
    for _, event in told:
        live += {"new": 1, "update": 0, "end": -1}[event.phase]
        assert live <= 4  # one more while an instant is told


def test_a_state_can_be_moved(random: Any) -> None:
    packets = noise(20)
    seen = tokens(packets)
    operator = tracker(random, Teller(), window=8)
    state = operator.initial_state("s")
    told = []
    for packet, view in zip(packets, seen, strict=True):
        state = pickle.loads(pickle.dumps(state))
        state, outputs = operator.process(state, Inputs({"detections": [packet], "tokens": [view]}, packet.t, packet.t))
        told += outputs.packets.get("events", [])
    _, outputs = operator.flush(pickle.loads(pickle.dumps(state)), packets[-1].t + 1 / FPS)
    told += outputs.packets["events"]
    expected = run(tracker(random, Teller(), window=8), packets, seen)
    assert as_lines([(p.t, e) for p in told for e in p.events]) == as_lines(expected)


def test_captions_come_at_once_and_are_refined(right: Any) -> None:
    """With the first view, then when there are twice as many, and with all when the track is over."""
    packets = detections([[1]] * 11)
    teller = Teller()
    told = run(tracker(right, teller, captions_per_second=10.0), packets, tokens(packets))
    assert [len(asked) for asked in teller.asked] == [1, 2, 4, 6, 6]
    assert teller.asked[-1] == pytest.approx([i * 11 // 6 / FPS for i in range(6)])
    texts = [(t, event.data.text) for t, event in told]
    assert [t for t, text in texts if text != dict(texts).get(t - 0.5)][:3] == [0.0, 0.5, 1.5]
    assert texts[0][1] == "seen 1 times from 0.0 to 0.0"
    assert texts[-1] == (5.5, "seen 6 times from 0.0 to 4.5")


def test_captions_keep_to_their_budget(right: Any) -> None:
    """Twelve objects at once: all of them are told at once, their captions come at the rate that is allowed."""
    packets = detections([list(range(12))] * 30)
    teller = Teller()
    operator = tracker(right, teller, captions_per_second=1.0)
    state, counts, described = operator.initial_state("s"), [], []
    for packet, view in zip(packets, tokens(packets), strict=True):
        state, outputs = operator.process(state, Inputs({"detections": [packet], "tokens": [view]}, packet.t, packet.t))
        counts.append(len(teller.asked))
        described.append(sum(track.text is not None for track in state.tracks.values()))
        if packet.t == 0:
            assert [event.data.text for event in outputs.packets["events"][0].events].count(None) == 10
    steps = np.diff([0, *counts])
    assert counts[0] == 2 and steps[1:].max() == 1 and counts[-1] == 2 + 14  # 14.5 seconds
    assert described == [min(count, 12) for count in counts]
    before = len(teller.asked)
    operator.flush(state, 15.0)
    assert len(teller.asked) == before + 12  # the last ones do not wait


@pytest.mark.parametrize("chunk", [1, 3, None])
def test_captions_of_cut_outs(right: Any, chunk: int | None) -> None:
    """Of the same object it is the same every time, wherever it is."""
    packets = detections([[1], [1, 2], [1, 2], [2], [2]])
    told = run(tracker(right, Watcher(), captions_per_second=10.0), packets, chunk=chunk, frames=pictures(packets))
    texts = [{event.data.text for event in events[1:]} for events in lives(told).values()]
    first = [str(np.random.default_rng(kind).integers(0, 255, (48, 64, 3), np.uint8)[0, 0].tolist()) for kind in (1, 2)]
    assert texts == [{f"{one} {one}"} for one in first]
    with pytest.raises(OnlookerError, match="connect its input `frames`"):
        run(tracker(right, Watcher()), packets, tokens(packets))


def test_who_is_gone_has_a_last_caption(right: Any) -> None:
    packets = detections([[1]] * 3 + [[]] * 8)
    teller = Teller()
    told = run(tracker(right, teller, window=8), packets, tokens(packets))
    assert told[-1][1].phase == "end" and told[-1][1].data.text == "seen 3 times from 0.0 to 1.0"
    changed = [t for t, event in told if event.data.text == told[-1][1].data.text]
    assert changed[0] == 2.5  # a quarter of the window after it was seen last, not at its end


def test_without_tokens_it_is_said_what_is_missing(right: Any) -> None:
    with pytest.raises(OnlookerError, match="connect its input `tokens`"):
        run(tracker(right, Teller()), detections([[1]] * 5))


@pytest.mark.parametrize("packets", [[], detections([[]]), detections([[], [], []])])
def test_nothing_to_tell(right: Any, packets: list[Detections]) -> None:
    assert run(tracker(right), packets) == []


def test_what_does_not_fit_is_told(right: Any, tmp_path: Any) -> None:
    bare = Detections("s", 0, 0.0, np.float32([[0, 0, 1, 1]]), np.float32([0.9]))
    with pytest.raises(OnlookerError, match="object_detector"):
        run(tracker(right), [bare])
    with pytest.raises(OnlookerError, match="no object model 'tinny'"):
        ObjectTracker(ObjectTrackerConfig(model="tinny")).open(Context())
    with pytest.raises(ValidationError, match="delay should be at most half of window"):
        ObjectTrackerConfig(window=4, delay=4)
    other = replace(bare, features=np.zeros((1, 9, CHANNELS), np.float32), looks=np.zeros((1, 3), np.float32))
    with pytest.raises(OnlookerError, match="the same model"):
        run(tracker(right), [other])
    blind = random_model()
    save(tmp_path, DenseVoc(replace(blind.config, association=None)))
    with pytest.raises(OnlookerError, match="follows nothing"):
        ObjectTracker(ObjectTrackerConfig(model=str(tmp_path), captioner=None)).open(Context())


@pytest.mark.parametrize("fps", [2.0, 25.0])
def test_every_detection_of_a_track_is_told(right: Any, fps: float) -> None:
    """Also those since the last update that the thinned way of the end does not hold."""
    packets = [replace(packet, t=i / fps) for i, packet in enumerate(detections([[1]] * 100))]
    told = {point.t for _, event in run(tracker(right), packets) for point in event.data.boxes}
    assert told == {round(packet.t, 6) for packet in packets}
