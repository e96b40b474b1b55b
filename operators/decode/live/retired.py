"""The decoding process of a connection that is over, kept for a while because of what it has recorded.

What a camera showed last, before it fell silent, is told when its connection has been given up: queries and captions
that were open end with it. So the recording has to outlive the connection by a few seconds.
"""

from __future__ import annotations

import time

from ..clip import CutVideo
from .items import ClipCut
from .process import DecoderProcess
from .wire import ChannelClosed, Header

__all__ = ["Retired", "clip_cut"]

# Seconds; the last events of a connection leave the graph one or two target latencies after it.
_KEPT = 15.0


class Retired:
    """Holds at most one process. Use from the reading thread."""

    def __init__(self) -> None:
        """Hold none."""
        self._child: DecoderProcess | None = None
        self._numbers: dict[int, int] = {}
        self._until = 0.0

    def keep(self, child: DecoderProcess, numbers: dict[int, int]) -> None:
        """Take over a child, which reads no more; `numbers` are its epochs' numbers by ours."""
        self.drop()
        child.retire()
        self._child, self._numbers, self._until = child, numbers, time.monotonic() + _KEPT

    @property
    def held(self) -> list[DecoderProcess]:
        """The process, to be waited for."""
        return [] if self._child is None else [self._child]

    def clip(self, number: int, epoch: int, t_start: float, t_end: float) -> bool:
        """Ask for a clip; False where nothing of this epoch is held."""
        if self._child is None or epoch not in self._numbers:
            return False
        self._until = max(self._until, time.monotonic() + _KEPT / 2)
        self._child.clip(number, self._numbers[epoch], t_start, t_end)
        return True

    def hear(self) -> list[ClipCut]:
        """Return the answers that have come, without waiting; ends the process when its time is over."""
        answers: list[ClipCut] = []
        try:
            while self._child is not None and (message := self._child.receive(0.0)) is not None:
                if message[0]["is"] == "clip":
                    answers.append(clip_cut(*message))
        except ChannelClosed:
            self.drop()
        if time.monotonic() > self._until:
            self.drop()
        return answers

    def drop(self) -> None:
        """End the process; harmless when repeated."""
        if self._child is not None:
            self._child.kill()
            self._child = None


def clip_cut(header: Header, body: bytearray) -> ClipCut:
    """Read a child's message `clip`: the video and behind it the picture."""
    if "error" in header:
        return ClipCut(header["number"], None, header["error"])
    size = header["video_bytes"]
    video, picture = bytes(body[:size]), bytes(body[size:])
    return ClipCut(header["number"], CutVideo(video, header["suffix"], header["t_start"], header["t_end"], picture))
