"""The report's part about tracked objects: which there were, what is said of them, and where they are on key frames.

A camera sees thousands of objects in a day. The report keeps those that stayed longest, and says how many there were.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from onlooker.operators.events import Event, TrackData

from .boxes import colour_of
from .paths import Seen
from .report_html import count, number, span_of, time_cell

__all__ = ["ObjectList", "Thing", "boxes_over", "objects_card"]

_MOST_WORDS = 300
_MOST_BOXES = 24
"""On one key frame."""


@dataclass(frozen=True)
class Thing:
    """A tracked object that was in view over [t_start, t_end), seconds; ``t_end`` is None if it still is."""

    number: int
    name: str
    text: str
    t_start: float
    t_end: float | None


class ObjectList:
    """The objects of a stream in bounded space."""

    def __init__(self, most: int = 400) -> None:
        """Keep the ``most`` that stayed longest."""
        self._most = most
        self._open: dict[str, Thing] = {}
        self._latest: dict[str, float] = {}
        """Of each open track the time of its last point, seconds."""
        self._kept: list[tuple[float, int, Thing]] = []
        """A heap: how long it stayed, how many ended later (negative), what."""
        self._ended = 0

    def add(self, event: Event, zero: float, boxes_at: Callable[[float], list[Seen] | None]) -> None:
        """Take in what a track event says.

        Args:
            event: of any kind; others are passed over.
            zero: seconds that are added to its times.
            boxes_at: gives the list of boxes of the key frame at a time, None where there is no key frame.
        """
        data = event.data
        if not isinstance(data, TrackData):
            return
        key, t_end = data.event_id, None if data.t_end is None else zero + data.t_end
        thing = Thing(event.event_no, _words(data.name), _words(data.text), zero + data.t_start, t_end)
        for point in data.points_after(self._latest.get(key)):
            boxes = boxes_at(zero + point.t)
            if boxes is not None and len(boxes) < _MOST_BOXES:
                boxes.append(Seen(thing.number, (point.x0, point.y0, point.x1, point.y1), thing.name))
            self._latest[key] = max(self._latest.get(key, point.t), point.t)
        self._open[key] = thing
        if t_end is not None:
            del self._open[key]
            self._latest.pop(key, None)
            self._ended += 1
            heapq.heappush(self._kept, (t_end - thing.t_start, -self._ended, thing))
            if len(self._kept) > self._most:
                heapq.heappop(self._kept)

    def __len__(self) -> int:
        """Return how many objects there were."""
        return self._ended + len(self._open)

    def items(self) -> list[Thing]:
        """Those that are kept and those still in view, in the order of their appearance."""
        things = [thing for _, _, thing in self._kept] + list(self._open.values())
        return sorted(things, key=lambda thing: (thing.t_start, thing.number))


def objects_card(objects: Sequence[Thing], total: int) -> Iterator[str]:
    """The table of objects; nothing where there are none."""
    if not objects:
        return
    hint = f"the {len(objects)} longest of {count(total, 'object')}" if total > len(objects) else str(total)
    yield '<section class="card"><div class="bar"><h2>Objects</h2>'
    yield f'<span class="hint">{hint}</span></div><div class="scroll"><table id="objects"><thead><tr>'
    yield '<th scope="col">Time</th><th scope="col">Object</th><th scope="col">What is seen of it</th>'
    yield "</tr></thead><tbody>"
    for thing in objects:
        yield f'<tr style="--q:{_hex(thing.number)}" {span_of(thing.t_start, thing.t_end)}>'
        yield time_cell(thing.t_start, thing.t_end)
        yield f'<td class="object"><i class="dot"></i>{escape(_title(thing.number, thing.name))}</td>'
        yield f"<td>{escape(thing.text)}</td></tr>"
    yield "</tbody></table></div></section>"


def boxes_over(width: int, height: int, objects: Iterable[Seen]) -> str:
    """Frames of the objects, to be laid over a picture of this size (pixels); empty without objects."""
    shapes = []
    for seen in sorted(objects, key=lambda seen: seen.number):
        x0, y0, x1, y1 = seen.box
        place = f'x="{number(x0 * width)}" y="{number(y0 * height)}"'
        size = f'width="{number(max(0.0, x1 - x0) * width)}" height="{number(max(0.0, y1 - y0) * height)}"'
        title = escape(_title(seen.number, seen.name))
        shapes.append(f'<rect {place} {size} style="--q:{_hex(seen.number)}"><title>{title}</title></rect>')
    return f'<svg class="boxes" viewBox="0 0 {width} {height}">{"".join(shapes)}</svg>' if shapes else ""


def _title(no: int, name: str) -> str:
    return f"{no} {name}".strip()


def _hex(no: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour_of(no))


def _words(text: str | None) -> str:
    return " ".join((text or "").split())[:_MOST_WORDS]
