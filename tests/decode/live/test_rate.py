"""The sampling rate follows the age of frames: down fast, up slowly, and not where it would be of no use."""

from __future__ import annotations

from collections import deque

import pytest

from onlooker.operators.decode.live.rate import RateControl


def play(control: RateControl, service: float, seconds: float, depth: int = 64, camera: float = 25.0) -> list[float]:
    """Frames of a camera wait in a queue of `depth`, the oldest giving way, for a consumer; returns their ages."""
    queue: deque[float] = deque(maxlen=depth)
    ages, free_at, due = [], 0.0, 0.0
    for number in range(int(seconds * camera)):
        now = number / camera
        while queue and free_at <= now:
            arrived = queue.popleft()
            free_at = max(free_at, arrived) + service
            ages.append(free_at - arrived)
            control.observe(ages[-1], free_at)
        if now >= due:
            queue.append(now)
            due = now if control.fps is None else now + 1 / control.fps
    return ages


@pytest.mark.parametrize("wanted", [5.0, 25.0, None])
def test_a_slow_consumer_gets_young_frames(wanted: float | None) -> None:
    ages = play(RateControl(wanted, 2.0), service=0.5, seconds=240)
    late = sorted(ages[len(ages) // 2 :])
    assert late[int(0.9 * len(late))] <= 2.0


def test_without_control_the_same_frames_grow_old() -> None:
    """The twin: the queue alone bounds the age by its own length only."""
    ages = play(RateControl(5.0, None), service=0.5, seconds=240)
    assert min(ages[len(ages) // 2 :]) > 3.0


def test_the_full_rate_comes_back_step_by_step() -> None:
    control = RateControl(5.0, 1.0)
    for i in range(10):
        control.observe(3.0, i * 0.2)
    lowered = control.fps
    assert lowered is not None and lowered < 3.5
    rates = []
    for i in range(300):
        if control.observe(0.1, 10 + i * 0.2):
            rates.append(control.fps)
    assert rates == sorted(rates) and len(rates) >= 4
    assert control.fps == 5.0


def test_every_frame_comes_back_where_every_frame_was_wanted() -> None:
    control = RateControl(None, 1.0)
    for i in range(10):
        control.observe(3.0, i * 0.1)
    assert control.fps is not None
    for i in range(600):
        control.observe(0.1, 10 + i * 0.1)
    assert control.fps is None


def test_a_single_old_frame_changes_nothing() -> None:
    control = RateControl(5.0, 1.0)
    for i in range(100):
        assert not control.observe(30.0 if i == 55 else 0.7, i * 0.2)
    assert control.fps == 5.0


def test_a_rate_that_makes_nothing_younger_is_not_lowered_further() -> None:
    """One frame takes longer than the target: sampling less often only sees less."""
    control = RateControl(2.0, 1.0)
    for i in range(400):
        control.observe(4.0, i * 4.0)
    assert control.fps is not None and control.fps >= 0.07
