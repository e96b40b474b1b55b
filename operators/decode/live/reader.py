"""Keeps one live source going for ever.

Example::

    with LiveReader(parse_source("rtsp://camera/stream"), LiveOptions(fps=2)) as reader:
        while not reader.ended:
            for item in reader.read(1.0):
                ...

Everything happens inside `read`: there is no thread here that could die or be left behind. A frame leaves the decoding
process only when `read` asks for it, so that under `latest` it is the newest one at that moment, however long the
caller was away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import time
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any

import numpy as np

from ...backoff import Backoff
from ...errors import OnlookerError
from .address import LiveAddress
from .clock import Wall
from .items import ClipCut, EpochStart, Item, LiveFrame, LiveState, Notice, StateChange
from .options import LiveOptions
from .problems import Problem, problem
from .process import DecoderProcess
from .retired import Retired, clip_cut
from .wire import ChannelClosed, Header

__all__ = ["LiveReader"]

# Seconds for the child to start on a busy machine, and for its sign of life, which comes twice a second, to be late.
_START_PATIENCE, _PULSE_PATIENCE = 60.0, 15.0
_NOTHING_KEPT = "nothing is kept for clips of this source"
# libav's own time-outs last up to twice the set value, and say better than ours what is wrong.
_OPEN_PATIENCE = 2.5


class LiveReader:
    """One live source: connects, reads, notices stalls, kills, waits and reconnects.

    Use from one thread; only `interrupt` and `wake` may be called from others. Frames are conserved: at any moment
    `frames_in = frames_delivered + frames_waiting + the sum of frames_dropped_*`.
    """

    def __init__(self, address: LiveAddress, options: LiveOptions | None = None) -> None:
        """Prepare; the first `read` connects.

        Raises:
            OnlookerError: `policy="block"` for a source that cannot wait.
        """
        self.address, self.options = address, options or LiveOptions()
        if self.options.policy == "block" and address.live:
            raise OnlookerError(f"{address.shown}: a live source cannot wait; use policy latest or drop_oldest")
        self.state: LiveState | None = None
        """Where the stream stands; None before the first `read`."""
        self.fps = self.options.fps
        """Samples per second of media time, None for every frame; may be changed between calls of `read`."""
        self.seen: Header = {}
        """Statistics of the current connection, see `capture.Statistics`."""
        self.opened: Header = {}
        """What the current connection was opened as: codec, format, claimed_rate, finite, hardware."""
        self._current_options = self.options  # less what turned out not to work here
        told = self.options
        self._backoff = Backoff(
            told.backoff_first,
            max(told.backoff_first, told.backoff_cap),
            refused=told.refused_wait,
            settled=told.settled,
            seed=told.seed,
        )
        self._child: DecoderProcess | None = None
        self._retry_at = 0.0
        self._epoch, self._epoch_number, self._index = 0, 0, 0
        self._past: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._delivered = 0  # by the current child
        self._connections = 0
        self._numbers: dict[int, int] = {}  # our epochs of this connection by the child's numbers
        self._retired = Retired()
        self._refused: list[ClipCut] = []
        self._wake, self._wakes = socket.socketpair()
        self._wake.setblocking(False)
        self._interrupted = self._woken = False

    def __enter__(self) -> LiveReader:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more."""
        return self.state == "ended"

    @property
    def worker_pid(self) -> int | None:
        """Process id of the decoding process, None while there is none."""
        return None if self._child is None else self._child.pid

    def read(self, timeout: float, *, frames: bool = True) -> list[Item]:
        """Return the next items in order, [] where none came within `timeout` seconds or the stream has ended.

        After its end, what records goes on waiting for `clip`.

        At most one frame, as the last item. A frame that waits comes however small the time-out is.

        Args:
            timeout: Seconds.
            frames: Whether a frame is wanted. Else only states are told, those that can be known without one: the
                policy decides meanwhile what becomes of the frames. One that was on its way already still comes.
        """
        deadline = time.monotonic() + timeout
        items: list[Item] = [*self._refused]
        self._refused.clear()
        if self.state is None:
            items.append(self._change("connecting", "start"))
        lingers = bool(self.options.record) and self._wake.fileno() >= 0
        while not items and (lingers or not self.ended):
            left = deadline - time.monotonic()
            if self.ended:
                self._pause(left)
            elif self._interrupted:
                items.append(self._finish("interrupted", None))
            elif self._child is None:
                items += self._wait_or_connect(left)
            else:
                items += self._serve(self._child, left, frames)
            items += self._retired.hear()
            if (self._woken and (self.ended or not self._interrupted)) or time.monotonic() >= deadline:
                break
        self._woken = False
        return items

    def wake(self) -> None:
        """Make a `read` that is waiting return. From any thread; harmless when repeated."""
        self._woken = True
        with contextlib.suppress(OSError):  # closed meanwhile, or woken often already
            self._wakes.send(b"!", socket.MSG_DONTWAIT)

    def interrupt(self) -> None:
        """Make `read` end the stream soon, whatever it is waiting for. From any thread; harmless when repeated."""
        self._interrupted = True
        self.wake()

    def close(self) -> None:
        """Leave no process, socket or memory behind; harmless when repeated. From the reading thread."""
        self._drop_child(keep=False)
        self._retired.drop()
        self.state = "ended"
        self._wake.close()
        self._wakes.close()

    def clip(self, number: int, epoch: int, t_start: float, t_end: float) -> None:
        """Ask for a clip of [t_start, t_end) of an epoch, seconds of event time; a later `read` gives a `ClipCut`.

        Needs `LiveOptions.record`. What a connection has kept can be had for some seconds after it was lost, unless its
        process crashed. A process that hangs may never answer. From the reading thread.

        Args:
            number: By which the answer is known.
            epoch: `EpochStart.epoch`.
            t_start: Seconds; the clip begins with the key frame before.
            t_end: Seconds; the clip ends `CLIP_TAIL` later, or earlier where that has not been seen yet.
        """
        if self._child is not None and epoch in self._numbers:
            self._child.clip(number, self._numbers[epoch], t_start, t_end)
        elif not self._retired.clip(number, epoch, t_start, t_end):
            kept = bool(self._current_options.record)
            why = "that connection is over, and what was kept of it is gone" if kept else _NOTHING_KEPT
            self._refused.append(ClipCut(number, None, why))

    def counters(self) -> dict[str, int]:
        """Return frame counts over all connections, and how many connections there were.

        `frames_dropped_lost` were decoded in a process that ended before they were asked for, as far as it had told.
        """
        counts = dict(self._past)
        for name, value in self._current().items():
            counts[name] = counts.get(name, 0) + value
        for name in ("frames_in", "frames_delivered", "frames_waiting"):
            counts.setdefault(name, 0)
        return {**counts, "connections": self._connections}

    def _current(self) -> dict[str, int]:
        """Counts of the running child by its last message."""
        told = dict(self._counts)
        decoded = told.pop("decoded", 0)
        told.pop("taken", None)
        waiting = decoded - self._delivered - sum(told.values())
        dropped = {f"frames_dropped_{reason}": number for reason, number in told.items()}
        return {"frames_in": decoded, "frames_delivered": self._delivered, "frames_waiting": waiting, **dropped}

    def _wait_or_connect(self, left: float) -> list[Item]:
        pause = min(left, self._retry_at - time.monotonic())
        if pause > 0:
            self._pause(pause)
            return []
        self._heard = time.monotonic()
        self._phase, self._first_frame, self._epoch_number = "starting", 0.0, 0
        self._told_fps = self._current_options.fps
        self._numbers = {}
        self._connections += 1
        self.opened = {}
        try:
            self._child = DecoderProcess(self.address, self._current_options)
        except OSError as error:
            return self._lost(problem(self.address, "other", why=error.strerror or "no process"))
        return []

    def _pause(self, seconds: float) -> None:
        """Wait for a call from another thread, or for a clip of what is over."""
        others: list[Any] = [self._wake, *self._retired.held]
        wait(others, max(0.0, seconds))
        self._hush()

    def _hush(self) -> None:
        """Empty the socket by which others wake us."""
        with contextlib.suppress(BlockingIOError):
            while self._wake.recv(4096):
                pass

    def _serve(self, child: DecoderProcess, left: float, frames: bool) -> list[Item]:
        """Wait for what the child says next, and act on it."""
        message = self._next_message(child, left, frames)
        self._hush()
        if message is None:
            return self._check_silence()
        self._heard = time.monotonic()
        return self._hear(*message)

    def _next_message(self, child: DecoderProcess, left: float, frames: bool) -> tuple[Header, bytearray] | None:
        """Return the next message; asks for a frame first if one is wanted, unless something has come already.

        At most one wish is open, and none while we are away: a frame that waits in the socket grows old.
        """
        if self.fps != self._told_fps:
            child.sample(self.fps)
            self._told_fps = self.fps
        others = [self._wake, *self._retired.held]
        try:
            message = child.receive(0.0)
            if message is None:
                self._heard = max(self._heard, time.monotonic() - _PULSE_PATIENCE / 2)  # it may not speak unasked
                if not frames:
                    return child.receive(min(max(left, 0.0), 1.0), also=others)
                child.want(True)
                # A frame needs a moment to be converted and sent, so a time-out of zero still gets one that waits.
                message = child.receive(min(max(left, 0.05), 1.0), also=others)
                if message is None or message[0]["is"] != "frame":
                    child.want(False)
        except ChannelClosed:
            return {"is": "gone"}, bytearray()
        return message

    def _hear(self, header: Header, body: bytearray) -> list[Item]:
        if "counts" in header:
            self._counts, self.seen = header["counts"], header["seen"]
        match header["is"]:
            case "gone":
                return self._lost(problem(self.address, "crashed"))
            case "frame":
                return self._deliver(header, body)
            case "alive":
                self._phase = header["phase"]
                return self._check_idle(float(header["idle"]))
            case "opened":
                self.opened, self._phase = header, "reading"
                return []
            case "clip":
                return [clip_cut(header, body)]
            case "warning":
                return [self._do_without(header["without"], header["text"])]
            case "end":
                found = header["problem"]
                if found is None:
                    return [self._finish("complete", None)]
                return self._lost(Problem.from_wire(found))
        return []

    def _check_idle(self, idle: float) -> list[Item]:
        """Act on the child's word that it has had no frame for `idle` seconds."""
        if self._phase == "opening":
            late = idle > self.options.connect_timeout * _OPEN_PATIENCE
            return self._lost(problem(self.address, "timeout")) if late else []
        if not self.address.live:
            return []  # a test pattern may be of a frame a minute
        if idle > self.options.reconnect_after:
            return self._lost(problem(self.address, "stalled"))
        if idle > self.options.stall_after and self.state == "live":
            return [self._change("stalled", "no_frames", problem(self.address, "stalled"))]
        return []

    def _check_silence(self) -> list[Item]:
        """Give up a child that does not even say that it lives."""
        patience = _START_PATIENCE if self._phase == "starting" else _PULSE_PATIENCE
        if time.monotonic() - self._heard > patience:
            return self._lost(problem(self.address, "crashed"))
        return []

    def _deliver(self, header: Header, body: bytearray) -> list[Item]:
        items: list[Item] = []
        if self.state != "live":
            items.append(self._change("live", "frames"))
        self._phase, self._first_frame = "reading", self._first_frame or time.monotonic()
        start, codec = header["epoch"], header["codec"]
        size = (start["width"], start["height"])
        if start["number"] != self._epoch_number:
            wall = Wall(**start["wall"])
            self._epoch_number, self._index = start["number"], 0
            self._epoch = max(self._epoch + 1, round(wall.unix * 1000))
            self._numbers[self._epoch] = start["number"]
            items.append(EpochStart(self._epoch, start["why"], wall, size, start["pixel_aspect"], codec))
        pictures = _pictures(body, header["shape"], header["preview"])
        items.append(
            LiveFrame(
                epoch=self._epoch,
                t=header["t"],
                index=self._index,
                pixels=pictures[0],
                preview=pictures[1],
                pts=header["pts"],
                wall=Wall(**header["wall"]),
                arrival=header["arrival"][0],
                arrival_unix=header["arrival"][1],
                source_size=size,
                key=header["key"],
                codec=codec,
            )
        )
        self._index += 1
        self._delivered += 1
        return items

    def _change(
        self, state: LiveState, reason: str, found: Problem | None = None, retry_in: float | None = None
    ) -> StateChange:
        self.state = state
        return StateChange(state, reason, found, retry_in)

    def _do_without(self, without: Header, why: str) -> Notice:
        """Leave something out from the next connection on, so that this is told once."""
        self._current_options = dataclasses.replace(self._current_options, **without)
        return Notice(f"{self.address.shown}: {why}")

    def _lost(self, found: Problem) -> list[Item]:
        """Drop the connection and plan the next attempt; a source with an end that cannot be read has ended."""
        lived = time.monotonic() - self._first_frame if self._first_frame else 0.0
        items: list[Item] = []
        if self.opened.get("hardware") and self._epoch == 0 and found.kind in ("stalled", "crashed"):
            text = "no picture came from the hardware decoder; decoding on the CPU"
            items.append(self._do_without({"hwaccel": "none"}, text))
        self._drop_child(keep=self.address.kind != "device")  # which only one process can open
        if not self.address.live:
            return [*items, self._finish(found.kind, found)]
        retry_in = self._backoff.failed(refused=found.refused, lived=lived)
        self._retry_at = time.monotonic() + retry_in
        return [*items, self._change("reconnecting", found.kind, found, retry_in)]

    def _finish(self, reason: str, found: Problem | None) -> StateChange:
        self._drop_child(keep=True)
        return self._change("ended", reason, found)

    def _drop_child(self, *, keep: bool) -> None:
        """End the child, if any; what it had decoded and not delivered is lost.

        Args:
            keep: what it has recorded may still be asked for.
        """
        if self._child is None:
            return
        if keep and self._current_options.record and self._numbers:
            self._retired.keep(self._child, self._numbers)
        else:
            self._child.kill()
        self._child = None
        current = self._current()
        lost = current.pop("frames_waiting")
        current["frames_dropped_lost"] = lost
        for name, value in current.items():
            self._past[name] = self._past.get(name, 0) + value
        self._counts, self._delivered = {}, 0


def _pictures(body: bytearray, shape: list[int], preview: list[int] | None) -> tuple[Any, Any]:
    """Cut the body into (H, W, 3) and (h, w, 3) uint8 without copying."""
    first = shape[0] * shape[1] * 3
    pixels = np.frombuffer(body, np.uint8, first).reshape(*shape, 3)
    if preview is None:
        return pixels, None
    return pixels, np.frombuffer(body, np.uint8, offset=first).reshape(*preview, 3)
