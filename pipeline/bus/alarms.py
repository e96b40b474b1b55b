"""The bus's own events: alarms in the stream ``bus``."""

from __future__ import annotations

import itertools
import time

from onlooker.operators.events import Phase, make_event

from .record import Record

__all__ = ["Alarms"]

_STREAM = "bus"


class Alarms:
    """Makes the events of alarms that begin and end. Only ``tell`` may be called from any thread."""

    def __init__(self, run: str) -> None:
        """Number the alarms of one start of the bus.

        Args:
            run: what stands for the run in their headers.
        """
        self._run = run
        self._began, self._media_epoch = time.monotonic(), round(time.time() * 1000)
        self._numbers = itertools.count()
        self._open: dict[str, tuple[int, float]] = {}
        """Code -> number of the event, when it began."""

    @property
    def open(self) -> list[str]:
        """Codes of the alarms that go on."""
        return list(self._open)

    def begin(self, code: str, message: str) -> Record | None:
        """The event of an alarm that begins; None if it goes on already."""
        if code in self._open:
            return None
        number, now = next(self._numbers), self._now()
        self._open[code] = (number, now)
        return self._record(code, message, number, 0, "new", now)

    def ending(self, code: str, message: str) -> Record:
        """The event that ends an alarm; it goes on until ``over`` is called.

        Raises:
            KeyError: there is no such alarm.
        """
        number, began = self._open[code]
        return self._record(code, message, number, 1, "end", began)

    def over(self, code: str) -> None:
        """The event that ends the alarm has been told."""
        del self._open[code]

    def tell(self, code: str, message: str) -> Record:
        """The event of something that happened once and is over."""
        return self._record(code, message, next(self._numbers), 0, "end", self._now())

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _record(self, code: str, message: str, number: int, rev: int, phase: Phase, began: float) -> Record:
        now = self._now()
        event = make_event(
            "alarm",
            stream=_STREAM,
            epoch=self._media_epoch,
            event_no=number,
            rev=rev,
            phase=phase,
            t_start=began,
            t_end=now if phase == "end" else None,
            t_seen=now,
            code=code,
            message=message,
        )
        return Record.from_event(event, self._run)
