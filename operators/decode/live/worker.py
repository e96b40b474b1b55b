"""The decoding process: `python -m onlooker.operators.decode.live.worker`, a socket to its reader as standard input.

A process of its own, because libav can hang where nothing but a kill helps, and crash on what strangers send. Its
command line says nothing about the source, whose address comes through the socket. It ends when the socket closes or
its parent is gone, whatever the capturing thread is doing.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from typing import NoReturn

from ..clip import CLIP_TAIL, ClipError
from ..pixels import RGB, PixelConverter, preview_size
from .address import LiveAddress
from .capture import Capture, Decoded
from .handoff import Handoff
from .options import LiveOptions
from .problems import problem
from .wire import Channel, ChannelClosed, Header

# How often a waiting reader hears that the process lives, and how often the process looks after its parent. Seconds.
_PULSE, _WATCH = 0.5, 1.0


def main() -> NoReturn:
    """Serve one reader until the source ends or the reader goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the reader decides
    channel = Channel(_take_over_stdin())
    with contextlib.suppress(ChannelClosed):
        message = channel.receive()
        assert message is not None
        _Worker(channel, message[0]).run()
    os._exit(0)  # nothing that libav still holds may keep the process


def _take_over_stdin() -> socket.socket:
    sock = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    return sock


class _Worker:
    """Capture in the main thread, commands in a second one, frames out in a third, clips in a fourth."""

    def __init__(self, channel: Channel, order: Header) -> None:
        self._channel, self._parent = channel, int(order["parent"])
        self._address = LiveAddress.from_wire(order["address"])
        options = LiveOptions.from_wire(order["options"])
        self._handoff: Handoff[Decoded] = Handoff(options.policy, options.queue)
        self._longest_wait = math.inf if options.longest_wait is None else options.longest_wait
        self._capture = Capture(self._address, options, self._handoff, channel.send)
        self._pictures = _Pictures(options.size, options.preview)
        self._end: Header | None = None
        self._wishes: queue.SimpleQueue[Header] = queue.SimpleQueue()

    def run(self) -> None:
        """Return when the end of the source has been told; what has recorded something stays until it is dropped."""
        obeying = threading.Thread(target=self._guarded, args=(self._obey,), daemon=True)
        obeying.start()
        threading.Thread(target=self._guarded, args=(self._cut_clips,), daemon=True).start()
        sender = threading.Thread(target=self._guarded, args=(self._send,), daemon=True)
        sender.start()
        try:
            found = self._capture.run()
        except Exception as error:  # a defect of ours; its text may hold the address, so only its type is told
            found = problem(self._address, "crashed", why=type(error).__name__)
        self._end = {"is": "end", "problem": None if found is None else found.to_wire()}
        self._handoff.finish()
        sender.join()
        if self._capture.ring is not None:
            obeying.join()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a thread; the process goes with the socket, and with any thread that fails."""
        try:
            work()
        except ChannelClosed:
            os._exit(0)
        except BaseException:
            os._exit(1)

    def _obey(self) -> None:
        while os.getppid() == self._parent:
            message = self._channel.receive(_WATCH)
            if message is None:
                continue
            order = message[0]
            match order["do"]:
                case "want":
                    self._handoff.want(order["wanted"])
                case "sample":
                    self._capture.fps = order["fps"]
                case "clip":
                    self._wishes.put(order)
                case "retire":
                    self._capture.stop()
                    _hang_up(self._channel.fileno())
        raise ChannelClosed

    def _cut_clips(self) -> None:
        """Answer wishes for clips one by one; frames and commands go on meanwhile."""
        while True:
            order = self._wishes.get()
            answer, ring = {"is": "clip", "number": order["number"]}, self._capture.ring
            try:
                if ring is None:
                    raise ClipError("nothing is kept for clips of this source")
                clip = ring.cut(order["epoch"], order["t_start"], order["t_end"], CLIP_TAIL)
            except ClipError as error:
                self._channel.send({**answer, "error": str(error)})
                continue
            answer |= {"suffix": clip.suffix, "t_start": clip.t_start, "t_end": clip.t_end}
            self._channel.send({**answer, "video_bytes": len(clip.video)}, clip.video, clip.picture)

    def _send(self) -> None:
        while True:
            decoded = self._handoff.take(_PULSE)
            if decoded is not None and self._late(decoded):
                self._handoff.spoil("late")
            elif decoded is not None:
                self._send_frame(decoded)
            elif self._end is not None and self._handoff.empty:
                self._channel.send({**self._end, **self._status()})
                return
            elif self._handoff.wanted:
                self._channel.send({"is": "alive", **self._status()})

    def _late(self, decoded: Decoded) -> bool:
        """Whether a frame grew too old here while newer ones came; the newest there is goes out at any age."""
        return not self._handoff.empty and time.monotonic() - decoded.arrival > self._longest_wait

    def _status(self) -> Header:
        capture = self._capture
        return {
            "phase": capture.phase,
            "idle": time.monotonic() - capture.last_frame,
            "counts": self._handoff.counts(),
            "seen": asdict(capture.statistics),
        }

    def _send_frame(self, decoded: Decoded) -> None:
        try:
            pixels, preview = self._pictures(decoded)
        except Exception:
            self._handoff.spoil("unconvertible")
            return
        header = {
            "is": "frame",
            "epoch": asdict(decoded.epoch),
            "t": decoded.t,
            "pts": decoded.pts,
            "arrival": [decoded.arrival, decoded.arrival_unix],
            "wall": asdict(decoded.wall),
            "key": bool(decoded.frame.key_frame),
            "codec": self._capture.codec,
            "shape": pixels.shape[:2],
            "preview": None if preview is None else preview.shape[:2],
            **self._status(),
        }
        bodies = [picture.data.cast("B") for picture in (pixels, preview) if picture is not None]
        self._channel.send(header, *bodies)


class _Pictures:
    """Turns decoded frames into RGB pictures; converters are kept for an epoch."""

    def __init__(self, size: tuple[int, int] | None, preview: int | None) -> None:
        self._size, self._short_side = size, preview
        self._made_for = 0

    def __call__(self, decoded: Decoded) -> tuple[RGB, RGB | None]:
        """Return (H, W, 3) uint8 at the asked size, and (h, w, 3) with square pixels if a preview is asked for."""
        epoch = decoded.epoch
        if epoch.number != self._made_for:
            turn = epoch.turn
            self._convert = PixelConverter(self._size or (epoch.height, epoch.width), turn)
            self._convert_preview: PixelConverter | None = None
            if self._short_side is not None:
                shape = preview_size(epoch.height, epoch.width, Fraction(epoch.pixel_aspect), self._short_side)
                self._convert_preview = PixelConverter(shape, turn)
            self._made_for = epoch.number
        preview = None if self._convert_preview is None else self._convert_preview(decoded.frame)
        return self._convert(decoded.frame), preview


def _hang_up(kept: int) -> None:
    """Shut every connection but the socket `kept`: a reading libav then finds that the other side has gone.

    A camera may serve few clients, and the next connection should not find the place taken. Closing the container would
    do as well but belongs to the thread that may hang in it.
    """
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            number = int(name)
            if number != kept and stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.socket(fileno=os.dup(number)) as connection:
                    connection.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
