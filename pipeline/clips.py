"""Clips on events: what an event that ends showed is written beside the log before anybody is told of it.

An event waits here for its clip, and what its stream brings next waits behind it; other streams do not notice. The
source bounds the time: it answers within some seconds, if only to say that there is no clip.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike, fspath

from onlooker.operators.contract import Clip, ClipRequest
from onlooker.operators.events import Event, Side

from .errors import UsageError
from .graph import Graph
from .sinks.clips import ClipFolder
from .stream_log import StreamLog

__all__ = ["CLIP_KINDS", "CLIP_SECONDS", "ClipSettings", "Clips"]

CLIP_KINDS = ("query", "caption")
"""Kinds of events that may have clips."""
CLIP_SECONDS = 60.0
"""How much of a live source is kept, and the most that is cut out of a file for one event."""
# Longer than a source takes to answer; only a source that was lost does not.
_PATIENCE = 4.0
# Batches of one stream that may wait behind its events; beyond it events do without clips until that is made up for.
_MOST_WAITING = 300


@dataclass(frozen=True)
class ClipSettings:
    """Which events get clips, and where these go."""

    folder: str | PathLike[str]
    kinds: tuple[str, ...] = CLIP_KINDS
    keep: int = 2_000_000_000
    """Bytes; the oldest clips give way."""

    def __post_init__(self) -> None:
        """Check the kinds; raises UsageError."""
        for kind in self.kinds:
            if kind not in CLIP_KINDS:
                raise UsageError(f"there are no clips of {kind!r}; there are: {', '.join(CLIP_KINDS)}.")


@dataclass(eq=False)
class _Lane:
    """What is still to be done for one stream, in its order."""

    work: deque[Iterator[Event]] = field(default_factory=deque)
    """Each what one batch gives; nothing of a batch happens before it is its turn."""
    event: Event | None = None
    """Waits for its clip, and all work behind it."""
    number: int = 0
    """Of that clip."""
    since: float = 0.0
    """Monotonic seconds."""


class Clips:
    """Gives events that end their clips. Use from one thread."""

    def __init__(
        self,
        settings: ClipSettings,
        graph: Graph,
        ask: Callable[[str, ClipRequest], None],
        note: Callable[[str], None],
    ) -> None:
        """Put the parts together.

        Args:
            settings: see there.
            graph: what runs.
            ask: passes a wish on to the live source of a stream, whose answers come with its batches.
            note: called with what the user should know, one line each.
        """
        self._kinds = frozenset(settings.kinds)
        self._folder = ClipFolder(fspath(settings.folder), settings.keep, CLIP_KINDS)
        self._recorded = bool(getattr(graph.source.config, "record", 0.0))
        self._video_stream: int | None = getattr(graph.source.config, "video_stream", None)
        self._ask, self._note = ask, note
        self._lanes: dict[str, _Lane] = {}
        self._asked = 0
        self._written = 0
        self._missed: dict[str, int] = {}
        """Why there is no clip -> number of events."""
        self.failures: list[str] = []
        """One line if clips could not be written."""

    def open(self) -> None:
        """Make sure that clips can be written.

        Raises:
            OutputError: they cannot.
        """
        self._folder.open()

    def through(
        self, streams: Mapping[str, StreamLog], stream: str, clips: Iterable[Clip], work: Iterator[Event]
    ) -> Iterator[Event]:
        """Go on with a stream, and with those whose clips have come; yields the events that may be told.

        Args:
            streams: all of them.
            stream: which one brings something.
            clips: answers that it brings.
            work: what else it brings; done in its turn.
        """
        lane = self._lanes.setdefault(stream, _Lane())
        for clip in clips:
            if lane.event is not None and clip.number == lane.number:  # else it comes too late
                event, lane.event = self._with_clip(lane.event, clip), None
                yield _aged(event, lane.since)
        lane.work.append(work)
        for one in list(self._lanes.values()):
            yield from self._go_on(one, streams)

    def rest(self, streams: Mapping[str, StreamLog]) -> Iterator[Event]:
        """The run is over, and no clip will come any more: what still waits."""
        self._recorded = False
        for lane in self._lanes.values():
            lane.since = -math.inf
            yield from self._go_on(lane, streams)

    def told(self) -> str | None:
        """What became of the events, for the end of a run; None where there was none."""
        if not self._written and not self._missed:
            return None
        without = (f"{number} events without: {why}" for why, number in self._missed.items())
        return "; ".join([f"clips: {self._written} written", *without])

    def _go_on(self, lane: _Lane, streams: Mapping[str, StreamLog]) -> Iterator[Event]:
        """Work on a stream until it has to wait."""
        while lane.event is None or time.monotonic() - lane.since > _PATIENCE:
            if lane.event is not None:
                event, lane.event = self._miss(lane.event, "its source was lost, or the run over"), None
                yield event
                continue
            if not lane.work:
                return
            due = next(lane.work[0], None)
            if due is None:
                lane.work.popleft()
            elif due.kind not in self._kinds or due.phase != "end" or due.t_end is None:
                yield due
            elif len(lane.work) > _MOST_WAITING:
                yield self._miss(due, "events end faster than clips can be cut; ask for those of fewer (--clip-of)")
            elif streams[due.data.stream].live and self._recorded:
                self._ask_for_clip(lane, due, due.t_end)
            else:
                yield self._cut_file(due, streams[due.data.stream], due.t_end)

    def _ask_for_clip(self, lane: _Lane, event: Event, t_end: float) -> None:
        self._asked += 1
        lane.event, lane.number, lane.since = event, self._asked, time.monotonic()
        t_start = max(event.t_start, t_end - CLIP_SECONDS)
        self._ask(event.data.stream, ClipRequest(self._asked, event.data.media_epoch, t_start, t_end))

    def _cut_file(self, event: Event, stream: StreamLog, t_end: float) -> Event:
        if stream.live:
            return self._miss(event, "this source keeps nothing, or is over")
        if stream.counters.get("clock_jumps"):
            return self._miss(event, "the clock of this file jumps, so that no time can be found in it again")
        # libav is loaded where clips are cut, not whenever the command line starts.
        from onlooker.operators.decode.clip import CLIP_TAIL, ClipError
        from onlooker.operators.decode.clip_file import cut_file

        t_start = max(event.t_start, t_end - CLIP_SECONDS)
        try:
            cut = cut_file(stream.uri, t_start, t_end, tail=CLIP_TAIL, video_stream=self._video_stream)
        except ClipError as error:
            return self._miss(event, str(error))
        return self._with_clip(event, Clip(0, cut.video, cut.suffix, cut.picture, cut.t_start))

    def _with_clip(self, event: Event, clip: Clip) -> Event:
        """Write a clip; the event that names it."""
        side = event.data.side
        if not clip.video or side is None:
            return self._miss(event, clip.error or "the source gave none")
        try:
            video, picture = self._folder.write(event.data.event_id, clip.video, clip.suffix, clip.picture)
        except OSError as error:
            why = f"not written to {str(self._folder.path)!r}, {(error.strerror or str(error)).lower()}"
            self.failures = self.failures or [f"clips of some events are missing: {why}."]
            return self._miss(event, why)
        self._written += 1
        start = round(clip.t_start, 6)
        return event.with_side(side.model_copy(update={"clip": video, "clip_start": start, "key_frame": picture}))

    def _miss(self, event: Event, why: str) -> Event:
        if why not in self._missed:
            self._note(f"{event.data.event_id} has no clip: {why}")
        self._missed[why] = self._missed.get(why, 0) + 1
        return event


def _aged(event: Event, since: float) -> Event:
    """The event, older by the time that it has waited."""
    side: Side | None = event.data.side
    if side is None or side.age_ms is None:
        return event
    waited = (time.monotonic() - since) * 1e3
    return event.with_side(side.model_copy(update={"age_ms": round(side.age_ms + waited, 3)}))
