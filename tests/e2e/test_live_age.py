"""A consumer far slower than the camera: events stay young, and every frame is accounted for."""

from __future__ import annotations

from typing import Any

from .live_runs import LiveRun, check_stream, live_graph

PATTERN = "lavfi:testsrc2=size=64x48:rate=25"
SLOW = 0.1
"""Seconds of work for each frame: the camera is more than twice as fast."""
TARGET = 0.6
FRAMES = 100
# Two seconds of the camera.
DEEP: dict[str, Any] = {"fps": None, "policy": "drop_oldest", "queue": 50}


def settled_age(**source: Any) -> float:
    """Median age of the events in the last third of a run, seconds."""
    with LiveRun(live_graph(source=source, slow=SLOW), {"cam": PATTERN}) as run:
        run.more_captions("cam", FRAMES)
        assert run.session.progress.streams["cam"].age is not None
    counters = check_stream(run, "cam")
    assert counters["frames_in"] > 1.5 * counters["frames_processed"], "the consumer was slow indeed"
    ages = [e.data.side.age_ms / 1e3 for e in run.captions("cam") if e.data.side.age_ms is not None]
    last = sorted(ages[-len(ages) // 3 :])
    return last[len(last) // 2]


def test_events_stay_young_by_taking_the_newest_frame_or_by_sampling_less() -> None:
    """Against its twin, in which the loop is open: the same queue without control."""
    uncontrolled = settled_age(**DEEP, target_latency=None)
    assert uncontrolled > TARGET
    assert settled_age(**DEEP, target_latency=TARGET) < uncontrolled / 2
    assert settled_age(fps=None, policy="latest", target_latency=None) < uncontrolled / 2
