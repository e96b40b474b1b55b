"""Tracks out of an event log, on the frames of a truth file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onlooker.operators.events import Event, TrackData, TrackEvent, TrackPoint, parse_event

from .frames import Frames, ObjectFileError
from .world import Boxes

__all__ = ["ToldTrack", "read_tracks", "told_tracks"]


@dataclass
class ToldTrack:
    """One object of one stream, as its events tell it."""

    stream: str
    caption: str = ""
    """The last one; stands for the whole track."""
    score: float = 1.0
    """The last one."""
    points: list[TrackPoint] = field(default_factory=list)
    """Where it was seen."""

    def tell(self, data: TrackData) -> None:
        """Take in a revision."""
        self.caption = data.text or data.name or self.caption
        self.score = self.score if data.score is None else data.score
        self.points += data.points_after(max((point.t for point in self.points), default=None))


def told_tracks(events: Iterable[Event]) -> dict[str, ToldTrack]:
    """The tracks that events tell of, by event id, in the order of their appearance."""
    tracks: dict[str, ToldTrack] = {}
    for event in events:
        data = event.data
        if isinstance(data, TrackData):
            tracks.setdefault(data.event_id, ToldTrack(data.stream)).tell(data)
    return tracks


def read_tracks(path: str | Path, text: str, frames: Frames) -> Boxes:
    """Boxes of the tracks of a log; each is put on the frame of its video that is nearest in time.

    Args:
        path: names the file in errors.
        text: its lines.
        frames: of the truth. Videos are streams by name; a single stream is the single video whatever its name.

    Raises:
        ObjectFileError: a line is no event, a stream has no truth, or has several epochs, whose times do not compare.
    """
    events = list(_events(path, text))
    epochs: defaultdict[str, set[int]] = defaultdict(set)
    for event in events:
        epochs[event.data.stream].add(event.data.media_epoch)
    broken = [stream for stream, found in epochs.items() if len(found) > 1]
    if broken:
        raise ObjectFileError(
            f"{str(path)!r}: stream {broken[0]!r} began anew in the log, so its times do not compare."
        )
    videos = _videos(frames, sorted(epochs))
    unknown = [stream for stream in epochs if stream not in videos]
    if unknown:
        raise ObjectFileError(f"{str(path)!r}: the truth has no video {unknown[0]!r}, of which the log tells.")
    tracks = told_tracks(events).values()
    rows = [row for number, track in enumerate(tracks) for row in _rows(number, track, *videos[track.stream])]
    return Boxes.make(
        [row.frame for row in rows],
        [(p.x0, p.y0, p.x1 - p.x0, p.y1 - p.y0) for p in (row.point for row in rows)],
        [row.number for row in rows],
        [row.track.score for row in rows],
        [row.track.caption for row in rows],
    )


def _events(path: str | Path, text: str) -> Iterator[TrackEvent]:
    """The events of tracks among the lines."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            event = parse_event(line)
        except ValueError as error:
            raise ObjectFileError(f"{str(path)!r}, line {number}: no event of onlooker.") from error
        if isinstance(event, TrackEvent):
            yield event


@dataclass(frozen=True)
class _Row:
    """A track in a frame."""

    frame: int
    number: int
    track: ToldTrack
    point: TrackPoint


def _rows(number: int, track: ToldTrack, places: NDArray[np.int64], times: NDArray[np.float64]) -> Iterator[_Row]:
    """The track in each frame at which it was seen; of several boxes in one frame the last."""
    found: dict[int, TrackPoint] = {}
    reach = np.median(np.diff(times)) / 2 if len(times) > 1 else np.inf
    for point in track.points:
        nearest = int(np.abs(times - point.t).argmin())
        if abs(times[nearest] - point.t) <= reach:
            found[int(places[nearest])] = point
    return (_Row(frame, number, track, point) for frame, point in found.items())


def _videos(frames: Frames, streams: Sequence[str]) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Stream -> its frames and their times, in order of time."""
    found: defaultdict[Any, list[int]] = defaultdict(list)
    for place, video in enumerate(frames.videos):
        found[str(video)].append(place)
    if len(found) == 1 == len(streams):
        found = defaultdict(list, {streams[0]: next(iter(found.values()))})
    result = {}
    for name, places in found.items():
        times = np.array([float(frames.images[place]["t"]) for place in places])
        order = np.argsort(times, kind="stable")
        result[name] = (np.array(places, np.int64)[order], times[order])
    return result
