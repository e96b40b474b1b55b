"""Cameras and other live sources as a source of the graph."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, model_validator

from ..contract import Clip, ClipRequest, Config, Context, End, Source, SourceInfo, SourceOutputs, StreamState, WallTime
from ..packets import Frame, Packet
from .live.address import LiveAddress, parse_source
from .live.items import ClipCut, EpochStart, Item, LiveFrame, Notice, StateChange
from .live.options import LARGEST_RECORD, HardwareDecoding, LiveOptions
from .live.rate import RateControl
from .live.reader import LiveReader

__all__ = ["LiveCursor", "LiveSource", "LiveSourceConfig"]

_WAIT = 1.0
"""Seconds after which a waiting source looks around."""
_CLIP_PATIENCE = 2.0
"""Seconds that a clip may take; an event waits for it."""
_SHORTEST_FRAME = 0.001
"""Seconds that a frame is taken to last where its source tells no rate."""


class LiveSourceConfig(Config):
    """How a camera is read. Times in seconds."""

    fps: float | None = Field(2.0, gt=0, description="samples per second; null for every frame")
    width: int = Field(224, ge=1, description="width of `frames` in pixels; the picture is squashed to it")
    height: int = Field(224, ge=1, description="height of `frames` in pixels")
    preview: int = Field(180, ge=2, description="short side of `previews`, which keep the aspect ratio")
    policy: Literal["latest", "drop_oldest", "block"] | None = Field(
        None,
        description="what gives way where the graph is too slow: latest keeps the newest frame, drop_oldest the "
        "newest `queue`; block lets the source wait, which only files and test patterns can; "
        "null: block for files, else latest",
    )
    queue: int = Field(8, ge=1, description="frames that drop_oldest and block keep")
    target_latency: float | None = Field(
        2.0,
        gt=0,
        description="nine frames of ten should leave the graph at most this old, else fewer samples are taken; "
        "null leaves the rate alone, and so does policy block",
    )
    transport: Literal["tcp", "udp", "multicast", "http"] | None = Field(
        None, description="how RTSP carries pictures; null: as the address says, else tcp"
    )
    hwaccel: HardwareDecoding = Field("none", description="where pictures are decoded; falls back to the CPU")
    threads: int = Field(0, ge=0, description="decoder threads; 0 for one per core")
    connect_timeout: float = Field(10.0, gt=0, description="opening may take this long")
    stall_after: float = Field(3.0, gt=0, description="without a frame for this long the stream counts as stalled")
    reconnect_after: float = Field(8.0, gt=0, description="without a frame for this long it is connected anew")
    record: float = Field(0.0, ge=0, description="keep the last seconds for clips of events; 0 for none")
    record_bytes: int = Field(
        64 << 20, ge=1, le=LARGEST_RECORD, description="largest size of what is kept for clips, in memory"
    )
    backoff_first: float = Field(0.5, ge=0, description="longest wait before the first new attempt")
    backoff_cap: float = Field(30.0, ge=0, description="longest wait before any attempt")
    refused_wait: float = Field(60.0, ge=0, description="longest wait after a wrong password or path")

    @model_validator(mode="after")
    def _check(self) -> LiveSourceConfig:
        if self.stall_after > self.reconnect_after:
            raise ValueError("stall_after must not be larger than reconnect_after")
        return self

    def options(self, address: LiveAddress, *, previews: bool) -> LiveOptions:
        """What the reader of this source is told."""
        shared = {name: getattr(self, name) for name in LiveOptions.__slots__ if name in type(self).model_fields}
        shared["policy"] = self.policy or ("block" if address.kind == "file" else "latest")
        shared["preview"] = self.preview if previews else None
        shared["longest_wait"] = None if shared["policy"] == "block" else self.target_latency
        return LiveOptions(**shared, size=(self.height, self.width))


@dataclass(frozen=True)
class LiveCursor:
    """A live source cannot be read again. What goes on elsewhere is the count of its frames."""

    counters: dict[str, int] = field(default_factory=dict)


class LiveSource(Source[LiveCursor]):
    """Reads a camera for ever; tells states at once, and frames where the engine has room for them.

    A frame is taken out of the decoding process only when there is credit, so that it is the newest one then. The age
    at which frames leave the graph sets the sampling rate, see `RateControl`.
    """

    Config = LiveSourceConfig
    outputs = {"frames": Frame, "previews": Frame}
    live = True

    config: LiveSourceConfig
    _reader: LiveReader | None = None

    def __init__(self, config: LiveSourceConfig, uri: str, stream: str) -> None:
        """Read the address.

        Raises:
            AddressError: it is none.
        """
        super().__init__(config, "", stream)  # the text of the address may be a secret, so only its parsed form is kept
        self._address = parse_source(uri, transport=config.transport if _is_rtsp(uri) else None)
        self._lock = threading.Lock()
        self._room = 0
        self._interrupted = False
        self._may_begin = threading.Event()
        self._wishes: deque[ClipRequest] = deque()
        self._asked: dict[int, float] = {}
        """Numbers of the clips that are being cut, and when they will be late."""
        self._ended = self._released = False
        self._waiting: deque[SourceOutputs] = deque()
        self._epoch: int | None = None
        """The open epoch."""
        self._epochs = 0
        self._t = 0.0
        self._past: dict[str, int] | None = None

    def open(self, context: Context) -> SourceInfo:
        """Prepare to connect; the first `read` does.

        Raises:
            OnlookerError: the source cannot wait, as `policy: block` has it.
        """
        options = self.config.options(self._address, previews=context.wants("previews"))
        self._rate = RateControl(options.fps, None if options.policy == "block" else self.config.target_latency)
        reader = LiveReader(self._address, options)
        with self._lock:
            self._reader = reader
            if self._interrupted:
                reader.interrupt()
        return SourceInfo(self.stream, round(time.time() * 1000), 0, 0, time_source="host", live=True)

    def initial_cursor(self) -> LiveCursor:
        """Return a cursor without counts."""
        return LiveCursor()

    def read(self, cursor: LiveCursor) -> tuple[LiveCursor, SourceOutputs]:
        """Deliver what comes next: news, one frame if there is credit, a clip, or the end of an epoch.

        After the end of the stream only clips come, and nothing once it is released.
        """
        reader = self._reader
        assert reader is not None, "read before open"
        if self._past is None:
            self._past = _settled(cursor.counters)
        if not self._address.live:
            self._may_begin.wait()  # what has an end waits until somebody is there to see it
        while not self._waiting and not (self._ended and self._released):
            reader.fps = self._rate.fps
            wait = self._ask_for_clips(reader)
            self._collect(reader, reader.read(wait, frames=self._room > 0))
        outputs = self._waiting.popleft() if self._waiting else SourceOutputs()
        outputs.counters = self._counters(reader)
        return LiveCursor(outputs.counters), outputs

    def credit(self, batches: int, arrival: float | None = None) -> None:
        """Allow more frames. See `Source.credit`."""
        self._may_begin.set()
        with self._lock:
            self._room += batches
            if arrival is not None:
                now = time.monotonic()
                self._rate.observe(now - arrival, now)
            if self._reader is not None:
                self._reader.wake()

    def clip(self, request: ClipRequest) -> None:
        """Ask for a clip. See `Source.clip`."""
        self._wishes.append(request)
        self._wake()

    @property
    def lingers(self) -> bool:
        """Whether clips may still be asked for. See `Source.lingers`."""
        return self.config.record > 0 and not self._released

    def release(self) -> None:
        """No clip will be asked for any more. See `Source.release`."""
        self._released = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            if self._reader is not None:
                self._reader.wake()

    def interrupt(self) -> None:
        """End the stream soon. See `Source.interrupt`."""
        self._interrupted = True
        self._may_begin.set()
        reader = self._reader  # which the reading thread may take away; a signal handler must not wait for a lock
        if reader is not None:
            reader.interrupt()

    def close(self) -> None:
        """Leave no process and no socket behind."""
        with self._lock:
            reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _ask_for_clips(self, reader: LiveReader) -> float:
        """Pass on what is wished for, and give up what takes too long; returns how long the reader may wait."""
        now = time.monotonic()
        while self._wishes:
            wish = self._wishes.popleft()
            self._asked[wish.number] = now + _CLIP_PATIENCE
            reader.clip(wish.number, wish.epoch, wish.t_start, wish.t_end)
        for number in [number for number, until in self._asked.items() if until <= now]:
            self._answer(ClipCut(number, None, "the clip was not cut in time"))
        return max(0.0, min([_WAIT, *(until - now for until in self._asked.values())]))

    def _answer(self, cut: ClipCut) -> None:
        if self._asked.pop(cut.number, None) is None:
            return  # it has been given up
        clip = Clip(cut.number, error=cut.error)
        if cut.clip is not None:
            found = cut.clip
            clip = Clip(cut.number, found.video, found.suffix, found.picture, found.t_start)
        self._waiting.append(SourceOutputs(clips=(clip,)))

    def _collect(self, reader: LiveReader, items: Iterable[Item]) -> None:
        """Put what the reader told into outputs, each of one kind."""
        came_alive = False
        for item in items:
            match item:
                case StateChange(state="live"):
                    came_alive = True
                case StateChange(state="ended"):
                    self._end(reader, item.reason, item.problem.message if item.problem else None)
                case StateChange():
                    self._change(reader, item)
                case EpochStart():
                    self._begin(reader, item)
                    came_alive = False
                case LiveFrame():
                    if came_alive:
                        self._tell(StreamState("live", "frames", time.time(), epoch=self._epoch))
                    self._deliver(item)
                case ClipCut():
                    self._answer(item)
                case Notice():
                    self._waiting.append(SourceOutputs(notices=(item.message,)))

    def _tell(self, state: StreamState) -> None:
        self._waiting.append(SourceOutputs(states=(state,)))

    def _change(self, reader: LiveReader, change: StateChange) -> None:
        """Tell a state; what was seen before a connection was lost is over at once."""
        assert change.state in ("connecting", "stalled", "reconnecting")
        message = change.problem.message if change.problem else None
        self._tell(StreamState(change.state, change.reason, time.time(), message, change.retry_in))
        if change.state == "reconnecting":
            self._end_epoch(reader, change.reason)

    def _begin(self, reader: LiveReader, start: EpochStart) -> None:
        self._end_epoch(reader, start.why)
        self._epoch, self._t = start.epoch, 0.0
        self._epochs += 1
        self._tell(StreamState("live", start.why, time.time(), epoch=start.epoch))

    def _end_epoch(self, reader: LiveReader, reason: str) -> None:
        if self._epoch is not None:
            end = End(reason, self._t + _frame_duration(reader), final=False)
            self._waiting.append(SourceOutputs(end=end, watermark=end.t, epoch=self._epoch))
            self._epoch = None

    def _end(self, reader: LiveReader, reason: str, message: str | None) -> None:
        """End the stream, and with it the epoch that is open, if one is."""
        self._ended = True
        if self._epoch is None:
            self._waiting.append(SourceOutputs(end=End(reason, 0.0, message=message)))
            return
        end = End(reason, self._t + _frame_duration(reader), message=message)
        self._waiting.append(SourceOutputs(end=end, watermark=end.t, epoch=self._epoch))
        self._epoch = None

    def _deliver(self, frame: LiveFrame) -> None:
        with self._lock:
            self._room -= 1
        self._t = frame.t

        def packet(pixels: object) -> Packet:
            return Frame(self.stream, frame.epoch, frame.t, pixels, frame.index, frame.source_size)  # type: ignore[arg-type]

        packets: dict[str, list[Packet]] = {"frames": [packet(frame.pixels)]}
        if frame.preview is not None:
            packets["previews"] = [packet(frame.preview)]
        self._waiting.append(
            SourceOutputs(
                packets,
                watermark=frame.t,
                epoch=frame.epoch,
                arrival=frame.arrival,
                wall=WallTime(frame.t, frame.wall.unix, frame.wall.source, frame.wall.error),
            )
        )

    def _counters(self, reader: LiveReader) -> dict[str, int]:
        counts = {**reader.counters(), "epochs": self._epochs}
        for name, value in (self._past or {}).items():
            counts[name] = counts.get(name, 0) + value
        return counts


def _is_rtsp(uri: str) -> bool:
    return uri.lstrip()[:4].lower() == "rtsp"


def _frame_duration(reader: LiveReader) -> float:
    return max(_SHORTEST_FRAME, reader.seen.get("frame_interval") or 0.0)


def _settled(counters: dict[str, int]) -> dict[str, int]:
    """Counts of a source whose process died: what waited in it is lost."""
    settled = dict(counters)
    waiting = settled.pop("frames_waiting", 0)
    if waiting:
        settled["frames_dropped_lost"] = settled.get("frames_dropped_lost", 0) + waiting
    return settled
