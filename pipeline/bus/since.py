"""Where in the log of a bus somebody wants to begin, in the words of people."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ..errors import UsageError
from .inbox import Position

__all__ = ["Since", "moment", "start"]

Since = str | int | datetime | timedelta | None
"""``"10m"``, a datetime, a timedelta: a time; an int, ``"118"``: the number of an event; ``"all"``; None for now."""

_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def start(since: Since) -> Position | Mapping[str, Any] | None:
    """Where to begin, as `Inbox` takes it; a number is that of the last event that is not wanted any more.

    Raises:
        UsageError: it says nothing of the kind.
    """
    if since is None:
        return None
    if since == "all":
        return {"oldest": True}
    if isinstance(since, str) and since.isascii() and since.isdigit():
        since = int(since)
    if isinstance(since, int):
        if isinstance(since, bool) or not 0 <= since < 1 << 53:
            raise UsageError(f"no number of an event: {since}.")
        return Position(since, None)
    return {"time": moment(since)}


def moment(text: str | datetime | timedelta) -> float:
    """A moment in Unix seconds: ``10m`` (ago; s, m, h, d, w), or an ISO 8601 time, local where it names no zone.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(text, timedelta):
        return time.time() - text.total_seconds()
    if isinstance(text, datetime):
        return text.timestamp()
    if isinstance(text, str) and (ago := _AGO.fullmatch(text.strip())):
        return time.time() - float(ago[1]) * _SECONDS[ago[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        raise UsageError(
            f"no time: {text!r}; write how long ago (90s, 10m, 2h, 1d), a time (2026-05-01T10:00), or the number of an "
            "event."
        ) from None
