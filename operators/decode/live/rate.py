"""How many samples a second a live source takes, so that results stay young however slow their consumer is."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["RateControl"]

# Share of frames that may be older than the target.
_QUANTILE = 0.9
# Frames that are judged together.
_WINDOW = 10
_DECREASE = 0.6
# It rises by a tenth of the full rate, near the edge by less: too large a step fills the queues before it shows.
_STEP, _LARGEST_STEP = 0.1, 0.15
# Shares of the target: above the one the rate falls, before it is too late; below the other there is room for more.
_HIGH, _ROOM = 0.75, 0.5
# A window whose second half is younger than this share of the first: a queue that was full is draining already.
_FALLING = 0.98
# Frames per second that no camera exceeds.
_EVERY_FRAME = 120.0
# Where frames come less often than this many times their age, hardly any two are under way at a time.
_ALONE = 0.5


class RateControl:
    """Additive increase, multiplicative decrease (Chiu and Jain, 1989) of a sampling rate on the age of frames.

    The age of a frame is the time from its arrival to its leaving the last stage. Captions speak of an interval that
    has to end first; that delay is no age, since no sampling rate could change it.
    """

    def __init__(self, fps: float | None, target: float | None) -> None:
        """Start at the full rate.

        Args:
            fps: Samples per second that are wanted, None for every frame.
            target: Seconds that nine frames out of ten should not be older than, None to leave the rate alone.
        """
        self.fps = fps
        """Samples per second to take now, None for every frame."""
        self._wanted, self._target = fps, target
        self._full = fps or _EVERY_FRAME
        self._ages: deque[float] = deque(maxlen=_WINDOW)
        self._first = 0.0
        self._changed = -math.inf  # frames that had arrived by then still show the rate before

    def observe(self, age: float, now: float) -> bool:
        """Take note of a frame that left the last stage `age` seconds after it arrived; True if the rate changes.

        Args:
            age: Seconds.
            now: The present, seconds of any steady clock.
        """
        if self._target is None or now - age < self._changed:
            return False
        if not self._ages:
            self._first = now
        self._ages.append(age)
        if len(self._ages) < _WINDOW:
            return False
        ages = sorted(self._ages)
        upper = ages[int(_QUANTILE * _WINDOW) - 1]
        passed = (_WINDOW - 1) / max(now - self._first, 1e-3)
        falling = sum(list(self._ages)[_WINDOW // 2 :]) < _FALLING * sum(list(self._ages)[: _WINDOW // 2])
        self._ages.clear()
        before = self.fps
        if upper > _HIGH * self._target and not falling:
            self._lower(upper, passed)
        elif upper < _ROOM * self._target:
            self._raise()
        if self.fps == before:
            return False
        self._changed = now
        return True

    def _lower(self, age: float, passed: float) -> None:
        """Take less; not where that makes nothing younger, because a single frame takes as long.

        `passed` is the rate at which frames came out: what goes in faster waits or is dropped.
        """
        present = min(self.fps or passed, passed)
        if present * age < _ALONE:
            return
        self.fps = _DECREASE * present

    def _raise(self) -> None:
        if self.fps is None:
            return
        self.fps += min(_STEP * self._full, _LARGEST_STEP * self.fps)
        if self.fps >= self._full:
            self.fps = self._wanted
