"""Where the objects of track events are at any instant, for pictures they are to be drawn on.

Tracks are told as points, up to a second or two after the fact; between two points an object moves on a straight line.
Where it was not seen for longer than a frame or two, it is nowhere.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from onlooker.operators.events import Event, TrackData

__all__ = ["Box", "Seen", "TrackPaths"]

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 as parts of the picture, from 0 to 1."""


@dataclass(frozen=True)
class Seen:
    """An object at one instant, as it is drawn."""

    number: int
    """Identity, which is also its colour."""
    box: Box
    name: str = ""
    text: str = ""
    """Its caption, as far as known."""


@dataclass
class _Path:
    number: int
    name: str = ""
    text: str = ""
    times: list[float] = field(default_factory=list)
    """Strictly increasing."""
    boxes: list[Box] = field(default_factory=list)

    def put(self, t: float, box: Box) -> None:
        """Add a point, which may be older than others."""
        i = bisect_right(self.times, t - 1e-6)
        known = i < len(self.times) and self.times[i] < t + 1e-6
        self.times[i : i + known], self.boxes[i : i + known] = [t], [box]

    def at(self, t: float, join: float, hold: float) -> Box | None:
        i = bisect_right(self.times, t) - 1
        if i < 0:
            return None
        since = t - self.times[i]
        if i + 1 < len(self.times) and (gap := self.times[i + 1] - self.times[i]) <= join:
            part = since / gap
            x0, y0, x1, y1 = ((1 - part) * a + part * b for a, b in zip(self.boxes[i], self.boxes[i + 1], strict=True))
            return x0, y0, x1, y1
        return self.boxes[i] if since < hold else None


class TrackPaths:
    """The part of all tracks that may still have to be drawn."""

    def __init__(self, period: float = 0.5) -> None:
        """Begin without any.

        Args:
            period: seconds from one frame that is looked at to the next. A point stands for that long; points up to two
                and a half periods apart are joined, so that one frame in which an object was missed leaves no gap.
        """
        self._join, self._hold = 2.5 * period, period
        self._paths: dict[str, _Path] = {}

    def add(self, event: Event, zero: float = 0.0) -> None:
        """Note what a track event says; ``zero`` seconds are added to its times."""
        data = event.data
        if not isinstance(data, TrackData):
            return
        path = self._paths.setdefault(data.event_id, _Path(event.event_no))
        path.name, path.text = _line(data.name), _line(data.text)
        for point in data.points_after(path.times[-1] - zero if path.times else None):
            path.put(zero + point.t, (point.x0, point.y0, point.x1, point.y1))

    def at(self, t: float) -> tuple[Seen, ...]:
        """The objects seen at ``t``, by their numbers."""
        found = [
            Seen(path.number, box, path.name, path.text)
            for path in self._paths.values()
            if (box := path.at(t, self._join, self._hold)) is not None
        ]
        return tuple(sorted(found, key=lambda seen: seen.number))

    def forget(self, t: float) -> None:
        """Drop what is not needed from ``t`` on. A track that is seen again later comes back with what is told then."""
        for key, path in list(self._paths.items()):
            needed = max(0, bisect_right(path.times, t) - 1)
            del path.times[:needed], path.boxes[:needed]
            if not path.times or path.times[-1] + self._join < t:
                del self._paths[key]


def _line(text: str | None) -> str:
    return " ".join((text or "").split())
