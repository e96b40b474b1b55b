"""From the segments that each window finds to events that begin, change and end once.

Every hop brings the segments of a query as they look now. Those that are about the same moment get one number for life:

* A segment opens when its score reaches `on`, and goes on as long as something of at least `off` overlaps it.
* Its end is told by the first window that sees it `settle` seconds back: by then the model has seen what came after.
  Windows are `reach` seconds apart, so that is at most `settle` + `reach` seconds after the end, or, where windows
  before took the end to be later, after what they took it for. What can only be found later than that is not told.
* A segment that is cut by the left edge of a window keeps the start that was found when it could be seen.
* What lies within a segment that has ended is no news, and of what goes on beyond it the rest is. Segments that ended
  with a far lower score do not count.

All times are seconds of media time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..events import Phase

__all__ = ["Found", "LiveSegment", "QuerySegments", "SegmentRules", "Told"]

# Two segments that share this part of the shorter one are about the same moment.
_SAME = 0.5
# An ended segment with less than this part of a new one's score was a guess, which does not stand in its way.
_FAR_BELOW = 0.5


@dataclass(frozen=True, slots=True)
class Found:
    """A segment as one window sees it."""

    start: float
    end: float
    score: float


@dataclass(slots=True)
class LiveSegment:
    """A segment that was told and is not final."""

    number: int
    start: float
    end: float
    """The end as it looks now; the event itself has none yet."""
    score: float
    rev: int = 0
    told_start: float = 0.0
    told_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Told:
    """A revision to publish."""

    phase: Phase
    number: int
    rev: int
    start: float
    end: float | None
    score: float


@dataclass(slots=True)
class QuerySegments:
    """The segments of one query that can still change, or be found again."""

    live: list[LiveSegment] = field(default_factory=list)
    closed: list[Found] = field(default_factory=list)
    """Those that are final and that a window still reaches."""


@dataclass(frozen=True)
class SegmentRules:
    """How segments become events.

    Attributes:
        on: score at which a segment opens.
        off: score down to which it goes on; segments below are not to be handed in.
        settle: seconds that an end must lie back to be final.
        reach: seconds between windows.
        edge: seconds at the left of a window in which starts are not trusted.
        revise: seconds by which a start has to move to be told again.
        update_every: seconds after which an open segment is told again in any case.
        shortest: seconds; what is shorter is not told.
    """

    on: float
    off: float
    settle: float
    reach: float
    edge: float = 0.0
    revise: float = 1.0
    update_every: float = 10.0
    shortest: float = 0.0

    def step(
        self, state: QuerySegments, found: Sequence[Found], left: float, now: float, next_number: int, *, last: bool
    ) -> list[Told]:
        """Take in what a window found.

        Args:
            state: of the query; changed.
            found: by descending score, all at least `off`.
            left: where the window begins; -inf for the beginning of the stream, where starts are whole.
            now: up to where it reaches.
            next_number: number of the next new segment.
            last: no window follows, so that everything is final.

        Returns:
            What is to be told, in the order of numbers and revisions for each of them.
        """
        told: list[Told] = []
        matched: dict[int, Found] = {}
        accepted: list[Found] = []
        for each in found:
            segment = self._news(state, replace(each, end=min(each.end, now)))
            if segment is None or any(_share(segment, other) >= _SAME for other in accepted):
                continue
            live = _most_shared(state.live, segment, matched)
            if live is not None:
                matched[live.number] = segment
                self._follow(live, segment, left)
            elif segment.score >= self.on and segment.end > now - self.settle - self.reach:
                live = LiveSegment(next_number, segment.start, segment.end, segment.score)
                live.told_start, live.told_at = live.start, now
                next_number += 1
                matched[live.number] = segment
                state.live.append(live)
                told.append(Told("new", live.number, 0, live.start, None, live.score))
            else:
                continue
            accepted.append(segment)
        for live in list(state.live):
            lost = live.number not in matched
            if last or lost or live.end <= now - self.settle:
                told.append(self.close(state, live, now))
            elif self._changed(live, now):
                told.append(self._tell(live, "update", now))
        state.closed = [one for one in state.closed if one.end > left]
        return told

    def close(self, state: QuerySegments, live: LiveSegment, now: float) -> Told:
        """End a segment; it cannot be found again."""
        live.end = max(min(live.end, now), live.start)
        state.live.remove(live)
        state.closed.append(Found(live.start, live.end, live.score))
        return self._tell(live, "end", now)

    def _news(self, state: QuerySegments, found: Found) -> Found | None:
        """What of a segment no ended one has told; None if that is the smaller part, or too short."""
        rest = found
        for one in state.closed:
            if one.score >= _FAR_BELOW * found.score and one.start < rest.end and rest.start < one.end:
                after = replace(rest, start=max(rest.start, one.end))
                before = replace(rest, end=min(rest.end, one.start))
                rest = after if after.end - after.start >= before.end - before.start else before
        length = rest.end - rest.start
        if length <= 0 or length < self.shortest or length <= (1 - _SAME) * (found.end - found.start):
            return None
        return rest

    def _follow(self, live: LiveSegment, now: Found, left: float) -> None:
        """Take over new bounds, but for a start that the window hardly sees or does not see at all."""
        if live.start >= left + self.edge:
            live.start = now.start
        live.end, live.score = max(now.end, live.start), now.score

    def _changed(self, live: LiveSegment, now: float) -> bool:
        return abs(live.start - live.told_start) >= self.revise or now - live.told_at >= self.update_every

    def _tell(self, live: LiveSegment, phase: Phase, now: float) -> Told:
        live.rev += 1
        live.told_start, live.told_at = live.start, now
        return Told(phase, live.number, live.rev, live.start, live.end if phase == "end" else None, live.score)


def _share(one: Found | LiveSegment, other: Found | LiveSegment) -> float:
    """How much of the shorter one both cover, 0 to 1."""
    shorter = min(one.end - one.start, other.end - other.start)
    overlap = min(one.end, other.end) - max(one.start, other.start)
    return overlap / shorter if shorter > 0 and overlap > 0 else 0.0


def _most_shared(live: Sequence[LiveSegment], segment: Found, taken: dict[int, Found]) -> LiveSegment | None:
    """The open segment that is about the same moment, if there is one that nothing better has taken."""
    near = [one for one in live if one.number not in taken and _share(one, segment) >= _SAME]
    return max(near, key=lambda one: _share(one, segment), default=None)
