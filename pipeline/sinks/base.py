"""What a sink is: it takes events in their final order, and the packets of the ports it asks for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from onlooker.operators.contract import End, SourceInfo
from onlooker.operators.events import Event
from onlooker.operators.packets import Packet

from ..errors import OutputError

__all__ = ["FileSink", "Sink"]


class Sink(ABC):
    """Takes what a run produces. All calls come from one thread, in this order:

    ``open``; per stream ``start``, then ``packets``, ``event`` and ``advance`` as they come, ``finish``; ``close``,
    also after an error or Ctrl-C, and then what was written is a complete, valid file. A stream whose source could not
    be opened has events and nothing else.
    """

    stream: str | None = None
    """The only stream that the sink is told of; None for all."""

    ports: ClassVar[tuple[str, ...]] = ()
    """Names of the output ports whose packets the sink reads, e.g. ``previews``, ``scores``."""

    @abstractmethod
    def open(self) -> None:
        """Make sure that the output can be written, before any work is done.

        Raises:
            OutputError: it cannot.
        """

    def start(self, info: SourceInfo, uri: str) -> None:
        """A stream begins; ``uri`` is what the user named and may hold credentials: never write it out."""

    def epoch(self, stream: str, zero: float) -> None:
        """Media time of a live stream begins anew: its zero is ``zero`` seconds after watching began.

        Comes before the packets and events of each epoch, the first one included; nothing of the epoch before follows.
        What an epoch tells ends before the next one's zero, so times plus ``zero`` are one line of time.
        """

    def packets(self, port: str, packets: Sequence[Packet]) -> None:
        """New packets of one stream on a port that the sink asked for, times increasing."""

    def event(self, event: Event) -> None:
        """The next event of the log."""

    def advance(self, t: float) -> None:
        """All events that became known up to media time ``t`` (seconds, of the open epoch) have been given."""

    def finish(self, stream: str, end: End) -> None:
        """A stream is over; its last event has been given."""

    def hurry(self) -> None:
        """The user wants the run to end: who waits for somebody else waits for moments only. From any thread."""

    @abstractmethod
    def close(self) -> None:
        """Complete the output."""


class FileSink(Sink):
    """A sink that writes one file."""

    def __init__(self, path: str | Path) -> None:
        """Remember where to write."""
        self.path = Path(path)

    def check_writable(self) -> None:
        """Fail early and clearly if ``path`` cannot be written; leaves an existing file as it is.

        Raises:
            OutputError: the folder is missing, or the file or folder may not be written.
        """
        try:
            if not self.path.parent.is_dir():
                raise OutputError(f"cannot write {str(self.path)!r}: folder {str(self.path.parent)!r} does not exist.")
            with self.path.open("ab"):
                pass
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OutputError(f"cannot write {str(self.path)!r}: {reason}; choose another path.") from None
