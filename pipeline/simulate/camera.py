"""The simulated camera itself: plays the file in real time to everybody who watches, whatever protocol they speak."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from .clock import CameraClock
from .faults import Effects, Fault
from .formats import Codec, Format, Wish, parse_size
from .jpeg import jpeg_payloads
from .media import AccessUnit, Media
from .rtp import CLOCK_RATE, nal_payloads

__all__ = ["Camera", "Counters", "Picture", "Viewer"]

T = TypeVar("T")
# A camera that cannot encode in time lowers its rate; it does not lag behind for ever.
_MOST_LATE = 0.5  # seconds
_LOOK = 0.05  # seconds between looks at the faults while waiting
_SILENT = ("stall", "hang")


@dataclass
class Counters:
    """What happened since the start. Packets and frames count once for each client."""

    connections: int = 0
    sessions: int = 0
    frames_sent: int = 0
    frames_skipped: int = 0  # a client did not take its data, or could not start at this frame
    packets_sent: int = 0
    packets_dropped: int = 0  # by the fault `loss`
    reports_sent: int = 0


@dataclass(frozen=True)
class Picture:
    """One coded picture on its way; `ticks` is its time on the camera's RTP clock."""

    codec: Codec
    unit: AccessUnit
    ticks: int

    @cached_property
    def payloads(self) -> list[bytes]:
        """The picture as RTP payloads."""
        if self.codec == "mjpeg":
            return jpeg_payloads(self.unit.parts[0])
        return nal_payloads(self.codec, self.unit.parts)


class Viewer(Protocol):
    """Somebody who watches."""

    def deliver(self, picture: Picture) -> None:
        """Take the next picture; never blocks."""

    def end(self) -> None:
        """Learn that no picture follows."""


class Camera:
    """Reads the file while somebody watches, and hands each picture out when it is due.

    Belongs to one event loop; reading and encoding happen in one thread of its own.
    """

    def __init__(
        self, file: str | Path, wish: Wish, clock: CameraClock, effects: Effects, *, loop: bool = True
    ) -> None:
        """Keep the settings; `start` opens the file."""
        self.clock, self.effects, self.counters = clock, effects, Counters()
        self._file, self._wish, self._loop = file, wish, loop
        self._thread = ThreadPoolExecutor(1, "camera")
        self._media: Media | None = None
        self._viewers: set[Viewer] = set()
        self._watched = asyncio.Event()
        self._jump = 0
        self._frozen: int | None = None

    async def start(self) -> None:
        """Open the file; raises what `Media` raises."""
        self._media = await self._in_thread(lambda: Media(self._file, self._wish, loop=self._loop))

    async def close(self) -> None:
        """Close the file and end the thread."""
        if self._media:
            await self._in_thread(self._media.close)
        self._thread.shutdown()

    @property
    def format(self) -> Format:
        """What the pictures are at present."""
        assert self._media
        return self._media.format

    def ticks(self, instant: float) -> int:
        """Return what the camera's RTP clock shows."""
        return self.clock.ticks(instant) + self._jump

    def jump(self, seconds: float) -> None:
        """Let the RTP timestamps jump, so that they no longer fit the time that passed."""
        self._jump += round(seconds * CLOCK_RATE)

    def watch(self, viewer: Viewer) -> None:
        """Let a viewer have all pictures from now on."""
        self._viewers.add(viewer)
        self._watched.set()
        if self._media:
            self._media.want_key()

    def leave(self, viewer: Viewer) -> None:
        """Give a viewer no more pictures; harmless when repeated."""
        self._viewers.discard(viewer)
        if not self._viewers:
            self._watched.clear()

    async def change(self, fault: Fault) -> None:
        """Make another codec, size or rate of the same file, and give up all viewers: they were promised the old one.

        Raises what `Media` raises, and then changes nothing.
        """
        wish = self._wish
        if fault.kind == "codec":
            wish = replace(wish, codec=cast(Codec, fault.value))
        elif fault.kind == "size":
            wish = replace(wish, size=parse_size(str(fault.value)))
        else:
            wish = replace(wish, rate=float(fault.value or 0))
        media = await self._in_thread(lambda: Media(self._file, wish, loop=self._loop))
        before, self._media, self._wish = self._media, media, wish
        for viewer in [*self._viewers]:
            self.leave(viewer)
        if before:
            await self._in_thread(before.close)

    def status(self) -> dict[str, Any]:
        """Return the counters and the present state, ready for JSON."""
        form = self.format
        return {
            **asdict(self.counters),
            "playing": len(self._viewers),
            "codec": form.codec,
            "size": f"{form.width}x{form.height}",
            "fps": form.rate,
            "wall": self.clock.wall(time.monotonic()),
            "faults": self.effects.names(),
        }

    async def run(self) -> None:
        """Play until the file is over (for ever where it loops)."""
        while True:
            await self._watched.wait()
            if await self._play():
                for viewer in [*self._viewers]:
                    viewer.end()
                return

    async def _play(self) -> bool:
        """Play until nobody watches or the format changes; True when the file is over.

        `shift` puts the file's times onto the camera's clock. It is set at the first key frame, and again when reading
        or encoding cannot keep up. `hold` is how long reordered pictures wait, `backlog` whether the fault `slow` left
        something to catch up with, and after a `gap` in what was sent only a key frame makes sense.
        """
        media = self._media
        assert media
        media.want_key()
        shift: int | None = None
        hold, backlog, gap = 0, False, False
        upcoming = self._in_thread(media.next)
        while self._viewers and media is self._media:
            unit = await upcoming
            if unit is None:
                return media is self._media
            upcoming = self._in_thread(media.next)
            now = time.monotonic()
            late = 0.0 if shift is None else now - self.clock.instant(unit.dts + hold + shift)
            backlog = self.effects.active("slow") is not None or (backlog and late > _MOST_LATE / 2)
            in_order = unit.key or not hold  # elsewhere a new shift would mix up reordered pictures
            if (shift is None and unit.key) or (late > _MOST_LATE and in_order and not backlog):
                shift = self.clock.ticks(now) - unit.pts
            if shift is None:
                continue
            hold = max(hold, unit.pts - unit.dts)  # pictures that others refer to are sent before their time
            await self._until(unit.dts + hold + shift)
            if media is not self._media:  # who watches by now was promised something else
                return False
            if any(self.effects.active(kind) for kind in _SILENT):
                gap = True
                media.want_key()
            elif not gap or unit.key:
                gap = False
                self._send(Picture(media.format.codec, unit, self._stamp(unit.pts + shift)))
        return False

    async def _until(self, ticks: int) -> None:
        """Wait until the camera's clock shows `ticks`, longer while it is slowed."""
        while (left := self.effects.delayed(self.clock.instant(ticks)) - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _LOOK))

    def _stamp(self, ticks: int) -> int:
        if self.effects.active("pts-freeze") is None:
            self._frozen = None
            return ticks + self._jump
        if self._frozen is None:
            self._frozen = ticks + self._jump
        return self._frozen

    def _send(self, picture: Picture) -> None:
        for viewer in [*self._viewers]:
            viewer.deliver(picture)

    def _in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)
