"""From a score per sample to intervals: one threshold to begin, a lower one to go on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Hysteresis", "Step"]

Step = Literal["none", "begin", "hold", "finish"]


@dataclass(slots=True)
class Hysteresis:
    """One query's open interval, if there is one.

    An interval goes on from the first sample at or above ``on`` to the end of the last sample at or above ``off``. It
    begins with the first of the samples before that are all at or above ``off``, as far back as ``reach`` and the last
    change. A change ends it unless what comes then is at or above ``on`` itself. A sample covers media time up to the
    next sample, so that the end is the time of the first sample below.
    """

    reach: float = 0.0
    """Seconds by which an interval may begin before its first sample at or above ``on``."""
    t_start: float | None = None
    """Start of the open interval in seconds; None while there is none."""
    peak: float = 0.0
    """Highest score in the open interval."""
    run: list[float] = field(default_factory=list)
    """Times of the last samples at or above ``off``, while there is no interval; no older than ``reach``."""

    def step(self, t: float, score: float, on: float, off: float, *, change: bool = False) -> Step:
        """Take in the next sample.

        Args:
            t: media time of the sample, seconds.
            score: its score.
            on: an interval begins at this score.
            off: an interval goes on down to this score.
            change: what is seen changed between the sample before and this one.

        Returns:
            ``begin``: an interval begins, at ``t_start``. ``hold``: it goes on. ``finish``: it ended at ``t``;
            ``t_start`` and ``peak`` still tell of it until ``reset``. ``none``: there is no interval.
        """
        if self.t_start is None:
            self._remember(t, score >= off, fresh=change)
            if score < on:
                return "none"
            self.t_start, self.peak = self.run[0], score
            return "begin"
        if score >= (on if change else off):
            self.peak = max(self.peak, score)
            return "hold"
        self._remember(t, score >= off, fresh=True)
        return "finish"

    def reset(self) -> None:
        """Forget the interval that ended."""
        self.t_start, self.peak = None, 0.0

    def _remember(self, t: float, kept: bool, *, fresh: bool) -> None:
        before = [] if fresh else self.run
        self.run = [*(earlier for earlier in before if earlier >= t - self.reach), t] if kept else []
