"""From a score per sample to intervals: one threshold to begin, a lower one to go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Hysteresis", "Step"]

Step = Literal["none", "begin", "hold", "finish"]


@dataclass(slots=True)
class Hysteresis:
    """One query's open interval, if there is one.

    An interval runs from the first sample at or above ``on`` to the end of the last sample at or above ``off``. A
    sample covers media time up to the next sample, so that end is the time of the first sample below ``off``.
    """

    t_start: float | None = None
    """Start of the open interval in seconds; None while there is none."""
    peak: float = 0.0
    """Highest score in the open interval."""

    def step(self, t: float, score: float, on: float, off: float) -> Step:
        """Take in the next sample.

        Args:
            t: media time of the sample, seconds.
            score: its score.
            on: an interval begins at this score.
            off: an interval goes on down to this score.

        Returns:
            ``begin``: an interval begins at ``t``. ``hold``: it goes on. ``finish``: it ended at ``t``; ``t_start``
            and ``peak`` still tell of it until ``reset``. ``none``: there is no interval.
        """
        if self.t_start is None:
            if score < on:
                return "none"
            self.t_start, self.peak = t, score
            return "begin"
        if score >= off:
            self.peak = max(self.peak, score)
            return "hold"
        return "finish"

    def reset(self) -> None:
        """Forget the interval that ended."""
        self.t_start, self.peak = None, 0.0
