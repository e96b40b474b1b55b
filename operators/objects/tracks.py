"""What is known of one object that is followed, and what is told of it."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from ..events import Event, Phase, make_event
from ..packets import FloatArray
from .bank import Bank
from .views import View
from .window import Sighting

__all__ = ["POINTS", "Track"]

POINTS = 64
"""Places that the `end` of a track tells, at most."""
_NAMES = 8
"""Names that are counted, at most, for each track."""

Point = tuple[float, float, float, float, float]
"""t, x0, y0, x1, y1."""


@dataclass(slots=True)
class Track:
    """One object. Its size is bounded, however long it stays."""

    identity: int
    views: Bank[View]
    """What its caption is made from."""
    t_first: float = 0.0
    t_last: float = 0.0
    """When it was seen last."""
    count: int = 0
    """Detections."""
    score_sum: float = 0.0
    path: list[Point] = field(default_factory=list)
    """Where it was: in the order of time, and thinned."""
    stride: int = 1
    """Of the path: of so many detections one is kept."""
    untold: list[Point] = field(default_factory=list)
    """Where it was since the last revision."""
    latest: Point = (0.0, 0.0, 0.0, 0.0, 0.0)
    names: dict[str, float] = field(default_factory=dict)
    """What detectors call it, and the scores of those detections together."""
    given_name: str | None = None
    """The name found for it among the user's; goes before what detectors say."""
    looks: FloatArray | None = None
    """(E,) sum of the features of its cut-outs, of unit norm."""
    looked_at: int = 0
    """Detections that there were when it was looked at last."""
    text: str | None = None
    captioned_at: int = 0
    """Views that there were when its caption was made."""
    told: tuple[str | None, str | None] = (None, None)
    """Caption and name as last told."""
    told_at: float = 0.0
    next_rev: int = 0

    def see(self, sighting: Sighting) -> None:
        """Take in a detection; one may be older than others that came before it."""
        point: Point = (sighting.t, *sighting.box)
        if not self.count:
            self.t_first = self.t_last = sighting.t
            self.latest = point
        elif sighting.t > self.t_last:
            self.t_last, self.latest = sighting.t, point
        self.t_first = min(self.t_first, sighting.t)
        if self.count % self.stride == 0:
            if len(self.path) == 2 * POINTS:
                self.path, self.stride = self.path[::2], 2 * self.stride
            insort(self.path, point)
        insort(self.untold, point)
        self.count += 1
        self.score_sum += sighting.score
        if sighting.name is not None and (sighting.name in self.names or len(self.names) < _NAMES):
            self.names[sighting.name] = self.names.get(sighting.name, 0.0) + sighting.score
        if sighting.view is not None:
            self.views.add(sighting.view)

    @property
    def name(self) -> str | None:
        """What kind of thing it is, if anybody knows."""
        return self.given_name or max(self.names, key=lambda name: self.names[name], default=None)

    def is_due(self, t: float, every: float) -> bool:
        """Whether to tell of it at media time `t`: what is said of it changed, or it moved and enough time has gone."""
        if not self.next_rev or self.told != (self.text, self.name):
            return True
        # The small number absorbs the rounding of timestamps.
        return bool(self.untold) and t - self.told_at >= every - 1e-6

    def tell(self, stream: str, epoch: int, t: float) -> Event:
        """The next revision, at media time `t`, while it is followed."""
        return self._event(stream, epoch, t, "update" if self.next_rev else "new", self.untold, None)

    def end(self, stream: str, epoch: int, t: float) -> Event:
        """The last revision: all its way, thinned, and where it was since the revision before."""
        path = self.path if self.path[-1] == self.latest else [*self.path, self.latest]
        steps = [i * (len(path) - 1) // max(1, POINTS - 1) for i in range(POINTS)] if len(path) > POINTS else None
        chosen = path if steps is None else [path[i] for i in steps]
        return self._event(stream, epoch, t, "end", sorted({*chosen, *self.untold}), self.t_last)

    def _event(self, stream: str, epoch: int, t: float, phase: Phase, boxes: list[Point], t_end: float | None) -> Event:
        self.told, self.told_at, self.untold = (self.text, self.name), t, []
        self.next_rev += 1
        return make_event(
            "track",
            stream=stream,
            epoch=epoch,
            event_no=self.identity,
            rev=self.next_rev - 1,
            phase=phase,
            t_start=self.t_first,
            t_end=t_end,
            t_seen=t,
            score=self.score_sum / self.count,
            text=self.text,
            name=self.name,
            boxes=tuple(boxes),
        )
