"""The decoding side of a live source: one thread opens the container, reads, decodes and tells the time of frames.

Runs in the decoding process only (`worker.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..clip import ClipError, Entry
from ..pixels import Orientation
from ..timeline import SampleGrid
from .address import LiveAddress, OpenArguments
from .clock import EpochReason, EventClock, PacketWall, RateWatch, Wall, WallClock
from .handoff import Handoff
from .options import LiveOptions
from .problems import Problem, ProblemKind, explain, problem
from .ring import PacketRing

__all__ = ["Capture", "Decoded", "Statistics"]

_TICK = Fraction(1, 1_000_000)
# libav would draw any text, a web page for example, as a picture of a terminal.
_TEXT_FORMATS = {"tty", "bin", "xbin", "adf", "idf"}
# MJPEG over HTTP carries no times: libav counts 25 pictures a second, however many the camera sends.
_UNTIMED_FORMATS = {"mpjpeg"}
# Damaged packets in a row after which a source counts as no video.
_MOST_DAMAGED = 500
# A paced source that is later than this is not hurried: its clock is set back.
_LATE = 0.5
_LOW_DELAY = av.codec.context.Flags.low_delay
# How long the fastest frame may have been on its way, by kind of source; HLS is segments of seconds, three of them.
_UNSEEN_DELAY = {"device": 0.3, "pattern": 0.0, "file": 0.0}
_UNSEEN_NETWORK, _UNSEEN_HLS = 1.0, 30.0


class Failed(Exception):
    """The source cannot be read; carries the problem."""

    def __init__(self, found: Problem) -> None:
        super().__init__(found.kind)
        self.problem = found


class _Arrived(NamedTuple):
    """What travels with a packet through the decoder to its frame."""

    monotonic: float
    unix: float
    wall: float | None
    report: bool
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is known when an epoch begins."""

    number: int
    """1, 2, 3 ... within the connection."""
    why: EpochReason
    wall: Wall
    width: int
    height: int
    pixel_aspect: float
    """Width of a shown pixel over its height."""
    turn: Orientation
    """How stored pixels are turned to be shown."""


@dataclass(slots=True)
class Decoded:
    """A frame on its way to the sender, still as libav's."""

    frame: VideoFrame
    epoch: Epoch
    t: float
    pts: float | None
    arrival: float
    arrival_unix: float
    wall: Wall


@dataclass(slots=True)
class Statistics:
    """What was seen of the stream so far."""

    bytes: int = 0
    packets: int = 0
    corrupt: int = 0
    """Packets that libav flagged as damaged or refused."""
    keys: int = 0
    key_interval: float | None = None
    """Seconds of media time between the last two key frames."""
    frame_interval: float | None = None
    """Seconds between frames while their rate is steady."""
    reports: int = 0
    """Sender reports."""
    nudged: int = 0
    """Frames whose PTS did not increase."""
    last_key: float | None = field(default=None, repr=False)


class Capture:
    """Reads one connection to its end. Everything but `fps` belongs to the thread that calls `run`."""

    def __init__(
        self,
        address: LiveAddress,
        options: LiveOptions,
        handoff: Handoff[Decoded],
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        """Prepare; `tell` is called with messages for the reader."""
        self._address, self._options, self._handoff, self._tell = address, options, handoff, tell
        self.fps = options.fps
        """Samples per second of media time; may be set at any time from another thread."""
        self.codec = ""
        self.phase = "opening"
        self.last_frame = time.monotonic()
        """When a frame was last decoded; when opening began, before the first one. Monotonic seconds."""
        self.statistics = Statistics()
        self.ring: PacketRing | None = None
        """What is kept for clips, None where nothing is."""
        self._clock, self._rates, self._packet_wall = EventClock(), RateWatch(), PacketWall()
        self._epoch: Epoch | None = None
        self._grid_of: tuple[float | None, int] | None = None
        self._paced, self._anchor = not address.live, 0.0
        self._untimed = self._stopped = False

    def run(self) -> Problem | None:
        """Read to the end; return why it ended, None for the regular end of a source that has one."""
        try:
            began = time.monotonic()
            container = self._open()
            try:
                stream = self._choose(container)
                self._opening = time.monotonic() - began
                finite = self._describe(container, stream)
                self.ring = self._make_ring(stream)
                self.last_frame, self.phase = time.monotonic(), "reading"
                for packet in self._packets(container, stream):
                    self._decode(stream, packet)
            finally:
                container.close()
            return None if finite else problem(self._address, "closed")
        except Failed as failed:
            return failed.problem

    def stop(self) -> None:
        """Let `run` return with the next packet; from any thread."""
        self._stopped = True

    def _open(self) -> InputContainer:
        options = self._options
        self._accelerator = self._hardware()
        given, began = self._address.open_arguments(options.connect_timeout), time.monotonic()
        try:
            return av.open(
                given.file,
                mode="r",
                format=given.format,
                options=given.options,
                timeout=(options.connect_timeout, options.reconnect_after),
                hwaccel=self._accelerator,
                metadata_errors="replace",
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            waited = time.monotonic() - began >= 0.9 * options.connect_timeout
            found = explain(error, self._address, waited=waited)
        if found.kind == "bad_request" and self._has_only_sound(given):
            self._fail("no_video")
        raise Failed(found)

    def _has_only_sound(self, given: OpenArguments) -> bool:
        """Say whether an RTSP source refused to play because we asked for none of its streams."""
        options = {**given.options, "allowed_media_types": "video+audio"}
        patience = self._options.connect_timeout
        try:
            with av.open(given.file, mode="r", options=options, timeout=patience) as container:
                return self._address.kind == "rtsp" and not container.streams.video
        except (av.error.FFmpegError, OSError, ValueError):
            return False

    def _hardware(self) -> HWAccel | None:
        """Return the device to decode on, None for the CPU; says once where the wish cannot be met."""
        wish = self._options.hwaccel
        if wish == "none":
            return None
        have = hwdevices_available()
        for device in [wish] if wish != "auto" else [d for d in ("cuda", "vaapi", "videotoolbox") if d in have]:
            try:
                accelerator = HWAccel(device, allow_software_fallback=True)
                accelerator.create(av.Codec("h264", "r"))  # opens the device
                return accelerator
            except (av.error.FFmpegError, OSError, ValueError, RuntimeError):
                continue
        self._warn(f"{wish}: no such hardware decoder works here; decoding on the CPU", hwaccel="none")
        return None

    def _warn(self, text: str, **without: Any) -> None:
        """Tell of something that does not work here, and the option by which it is not tried again."""
        self._tell({"is": "warning", "text": text, "without": without})

    def _choose(self, container: InputContainer) -> VideoStream:
        """Return the video stream, ready to decode."""
        videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if container.format.name in _TEXT_FORMATS:
            self._fail("not_video")
        if not videos:
            self._fail("no_video")
        best = container.streams.best("video")
        stream = best if best in videos else videos[0]
        codec: Any = stream.codec_context
        if codec is None or codec.codec is None:
            self._fail("unsupported_codec")
        codec.thread_type, codec.thread_count = "SLICE", self._options.threads
        codec.flags |= _LOW_DELAY
        codec.copy_opaque = True
        self.codec = codec.name
        for other in container.streams:
            if other is not stream:
                other.discard = Discard.all  # an HLS playlist with several qualities would be downloaded in all of them
        return stream

    def _describe(self, container: InputContainer, stream: VideoStream) -> bool:
        """Tell what was opened; return whether it has an end."""
        names = container.format.name
        finite = not self._address.live or (self._address.kind == "http" and container.duration is not None)
        hls = "hls" in names.split(",")
        self._paced = finite or hls
        self._untimed = not finite and names in _UNTIMED_FORMATS
        if finite:  # read ahead of its time, so that nothing can be told from when frames arrive
            self._clock = EventClock(jump_forward=math.inf)
        self._unseen = _UNSEEN_HLS if hls else _UNSEEN_DELAY.get(self._address.kind, _UNSEEN_NETWORK)
        self._time_base = stream.time_base or _TICK
        self._pixel_aspect = float(stream.sample_aspect_ratio or 1)
        rate, codec = stream.average_rate, stream.codec_context
        if self._accelerator is not None and not codec.is_hwaccel:
            self._warn(f"{self.codec} is not decoded by this hardware; decoding on the CPU", hwaccel="none")
        self._tell(
            {
                "is": "opened",
                "codec": self.codec,
                "format": names,
                "size": [codec.width, codec.height],
                "claimed_rate": float(rate) if rate else None,
                "finite": finite,
                "hardware": bool(codec.is_hwaccel),
                "seconds": self._opening,
            }
        )
        return finite

    def _make_ring(self, stream: VideoStream) -> PacketRing | None:
        if not self._options.record:
            return None
        try:
            return PacketRing(stream, self._options.record, self._options.record_bytes)
        except (ClipError, av.error.FFmpegError, ValueError):
            self._warn("nothing of this kind of video can be kept for clips", record=0.0)
            return None

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Any]:
        """Packets of the stream up to its end; damaged ones that libav reports instead of them are counted."""
        in_a_row = 0
        while True:
            try:
                for packet in container.demux(stream):
                    if self._stopped:
                        return
                    yield packet
                    in_a_row = 0
                return
            except BlockingIOError:
                time.sleep(0.005)
            except av.error.InvalidDataError as error:
                in_a_row += 1
                self.statistics.corrupt += 1
                if in_a_row > _MOST_DAMAGED:
                    raise Failed(explain(error, self._address, opened=True)) from None
            except av.error.EOFError:
                return
            except (av.error.FFmpegError, OSError) as error:
                raise Failed(explain(error, self._address, opened=True)) from None

    def _decode(self, stream: VideoStream, packet: Any) -> None:
        self._count(packet)
        wall, report = self._packet_wall.read(packet)
        now = time.monotonic()
        if self._untimed:
            packet.pts = packet.dts = None
        entry = self.ring.add(packet, now) if self.ring is not None and packet.size else None
        packet.opaque = _Arrived(now, time.time(), wall, report, entry)
        try:
            frames = stream.decode(packet)
        except av.error.FFmpegError:
            self.statistics.corrupt += not packet.is_corrupt
            return
        for frame in frames:
            self._place(frame)

    def _count(self, packet: Any) -> None:
        seen = self.statistics
        if not packet.size:
            return
        seen.packets += 1
        seen.bytes += packet.size
        seen.corrupt += bool(packet.is_corrupt)
        seen.reports = self._packet_wall.reports
        if packet.is_keyframe:
            seen.keys += 1
            if packet.pts is not None:
                now = float(packet.pts * self._time_base)
                if seen.last_key is not None and now > seen.last_key:  # else the time stamps jumped back
                    seen.key_interval = now - seen.last_key
                seen.last_key = now

    def _place(self, frame: VideoFrame) -> None:
        """Give a decoded frame its times and hand it on, or count why not."""
        came = frame.opaque if isinstance(frame.opaque, _Arrived) and not self._paced else None
        came = came or _Arrived(time.monotonic(), time.time(), None, False)
        pts = None if frame.pts is None else float(frame.pts * (frame.time_base or self._time_base))
        t, why = self._clock.place(pts, came.monotonic, self._change(frame, pts))
        if self._paced:
            came = self._pace(t, why, came)
        if why is not None:
            self._walls = WallClock(self._unseen, self._opening if self._epoch is None else 0.0)
        wall = self._walls.place(t, came.monotonic, came.unix, came.wall, came.report)
        if why is not None:
            self._begin(frame, why, wall)
        self._keep(frame, t)
        self.last_frame = time.monotonic()
        self.statistics.nudged = self._clock.nudged
        self.statistics.frame_interval = self._rates.interval
        if self._sampled(t):
            assert self._epoch is not None
            self._handoff.put(Decoded(frame, self._epoch, t, pts, came.monotonic, came.unix, wall))
        else:
            self._handoff.refuse("unsampled")

    def _keep(self, frame: VideoFrame, t: float) -> None:
        """Tell the ring where the frame of its packet stands."""
        entry = frame.opaque.entry if isinstance(frame.opaque, _Arrived) else None
        if self.ring is not None and entry is not None and self._epoch is not None:
            self.ring.mark(entry, self._epoch.number, t)

    def _change(self, frame: VideoFrame, pts: float | None) -> EpochReason | None:
        """Say whether this frame differs from the ones before so much that a new epoch must begin."""
        faster = pts is not None and self._rates.changed(pts)
        if self._epoch is not None and (frame.width, frame.height, frame.rotation) != self._stored:
            self._rates.restart()
            return "format"
        return "rate" if faster else None

    def _begin(self, frame: VideoFrame, why: EpochReason, wall: Wall) -> None:
        if why != "rate":
            self._rates.restart()
        self._stored = (frame.width, frame.height, frame.rotation)
        # Once an epoch only: a frame asked for its side data is held by a cycle until the garbage is collected.
        turn = Orientation.of(frame)
        height, width = turn.shown_size(frame.height, frame.width)
        aspect = 1 / self._pixel_aspect if turn.transpose else self._pixel_aspect
        number = self._epoch.number + 1 if self._epoch is not None else 1
        self._epoch = Epoch(number, why, wall, width, height, aspect, turn)

    def _sampled(self, t: float) -> bool:
        assert self._epoch is not None
        wanted, ticks = (self.fps, self._epoch.number), round(t / _TICK)
        if wanted != self._grid_of:
            same_epoch = self._grid_of is not None and self._grid_of[1] == wanted[1]
            self._grid = SampleGrid(wanted[0], _TICK, ticks - 1 if same_epoch and wanted[0] else None)
            self._grid_of = wanted
        return self._grid.take(ticks)

    def _pace(self, t: float, why: EpochReason | None, came: _Arrived) -> _Arrived:
        """Wait until a frame of a source that has no pace of its own is due."""
        now = time.monotonic()
        if why is not None or now > self._anchor + t + _LATE:
            self._anchor = now - t
        self.last_frame = self._anchor + t  # waiting for it is no stall
        time.sleep(max(0.0, self.last_frame - now))
        return came._replace(monotonic=time.monotonic(), unix=time.time())

    def _fail(self, kind: ProblemKind) -> None:
        raise Failed(problem(self._address, kind))
