"""Track events made by hand, as a tracker tells them: revisions with the points since the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onlooker.operators.events import Event, make_event

Point = tuple[float, float, float, float, float]


def track(
    no: int,
    rev: int,
    phase: str,
    points: Sequence[Point],
    seen: float,
    *,
    text: str | None = None,
    name: str | None = None,
    start: float | None = None,
) -> Event:
    told: Any = phase
    return make_event(
        "track",
        stream="clip",
        epoch=0,
        event_no=no,
        rev=rev,
        phase=told,
        t_start=points[0][0] if start is None else start,
        t_end=points[-1][0] if phase == "end" else None,
        t_seen=seen,
        score=0.75,
        text=text,
        name=name,
        boxes=tuple(points),
    )


def told(no: int, points: Sequence[Point], *, every: float = 1.0, late: float = 0.5, **words: Any) -> list[Event]:
    """One track's events: revisions `every` seconds, each `late`, and an end that repeats all the way."""
    events: list[Event] = []
    waiting = list(points)
    while waiting:
        until = waiting[0][0] + every
        told_now = [point for point in waiting if point[0] < until]
        waiting = waiting[len(told_now) :]
        phase = "update" if events else "new"
        start = points[0][0]
        events.append(track(no, len(events), phase, told_now, told_now[-1][0] + late, start=start, **words))
    events.append(track(no, len(events), "end", points, points[-1][0] + 8 * late, **words))
    return events
