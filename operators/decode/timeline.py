"""The two rules of time in a decoder: where a frame stands on the media clock, and which frames are sampled.

Everything is counted in integer ticks of the stream's time base, so that the rules are exact; seconds appear only
at the border.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

ClockRule = Literal["presentation", "first_frame", "decode_order"]

# MPEG transport and program streams run on a free 90 kHz clock which starts anywhere, wraps and jumps.
_FREE_CLOCK_FORMATS = {"mpegts", "mpeg", "hls"}
# AVI stores no PTS: libav numbers its packets in decode order, which is wrong as a PTS once there are B-frames.
_NO_PTS_FORMATS = {"avi"}

# Decoders put frames out in presentation order, so a jump back of this size is a new clock, not a reordered frame.
JUMP_BACK_SECONDS = 1.0


def clock_rule(format_name: str) -> ClockRule:
    """Return how media time is read from a container with libav's `format_name` (a comma separated list)."""
    names = set(format_name.split(","))
    if names & _FREE_CLOCK_FORMATS:
        return "first_frame"
    if names & _NO_PTS_FORMATS:
        return "decode_order"
    return "presentation"


@dataclass
class FrameCounts:
    """What became of every decoded frame. `decoded` is the sum of sampled, unsampled, non_increasing, before_zero."""

    decoded: int = 0
    sampled: int = 0
    unsampled: int = 0
    """Frames with a place on the clock that the sampling rate left out."""
    non_increasing: int = 0
    """Frames dropped because their PTS repeats or goes back."""
    before_zero: int = 0
    """Frames dropped because they lie before the container's presentation time 0."""
    inferred_pts: int = 0
    """Frames without PTS that were put at the end of their predecessor."""
    clock_jumps: int = 0
    """Backward jumps of a free-running clock, closed up so that media time goes on."""
    corrupt_packets: int = 0
    """Packets that libav flagged as damaged or refused to decode."""


class FrameClock:
    """Places decoded frames on the media clock; every placed frame lies strictly after the one before.

    * `presentation`: ticks are the container's PTS, zero is its presentation time 0, not the first frame.
    * `first_frame`: zero is the first frame; a jump back by more than `JUMP_BACK_SECONDS` continues where the last
      frame ended.
    * `decode_order`: as `first_frame`, on the DTS.
    """

    def __init__(
        self, rule: ClockRule, time_base: Fraction, nominal_ticks: int, counts: FrameCounts, last: int | None = None
    ) -> None:
        """Start a clock, after a frame at `last` ticks if given; `nominal_ticks` stand in for unknown durations."""
        self._rule = rule
        self._nominal = max(1, nominal_ticks)
        self._jump = round(JUMP_BACK_SECONDS / time_base)
        self._counts = counts
        self._origin: int | None = 0 if rule == "presentation" else None
        self._last = last
        self.end = 0
        """Ticks at which the latest placed frame ends."""

    def place(self, pts: int | None, dts: int | None, duration: int | None) -> int | None:
        """Return the frame's media time in ticks, or None where it has no place (the reason is counted)."""
        raw = dts if self._rule == "decode_order" else pts
        ticks = self._infer() if raw is None else self._shift(raw)
        if ticks < 0:
            self._counts.before_zero += 1
            return None
        if self._last is not None and ticks <= self._last:
            self._counts.non_increasing += 1
            return None
        self._last = ticks
        self.end = ticks + (duration or self._nominal)
        return ticks

    def _infer(self) -> int:
        self._counts.inferred_pts += 1
        return 0 if self._last is None else self.end

    def _shift(self, raw: int) -> int:
        if self._origin is None:
            # Frames without PTS may already stand on the clock: the first known PTS follows them.
            self._origin = raw - (0 if self._last is None else self.end)
        elif self._rule == "first_frame" and self._last is not None and raw - self._origin < self._last - self._jump:
            self._origin = raw - self.end
            self._counts.clock_jumps += 1
        return raw - self._origin


class SampleGrid:
    """Takes, for each slot k = 0, 1, 2 ..., the first frame at or after k / rate seconds; no frame twice.

    A frame that is first for several slots is taken once, so a gap in the video leaves slots empty. A rate of None
    takes every frame.
    """

    def __init__(self, rate: float | Fraction | None, time_base: Fraction, last: int | None = None) -> None:
        """Lay the grid, with the slots up to a sample at `last` ticks already filled if given."""
        if rate is None:
            self._scale = None
        else:
            if not 0 < rate < float("inf"):
                raise ValueError(f"sampling rate must be a positive number of frames per second, got {rate}")
            # Decimal rates such as 29.97 are meant as written, not as their nearest binary fraction.
            self._scale = Fraction(rate).limit_denominator(1_000_000) * time_base
        self._next_slot = 0 if last is None else self._slot(last) + 1

    def take(self, ticks: int) -> bool:
        """Say whether the frame at `ticks` (never decreasing from call to call) is a sample."""
        slot = self._slot(ticks)
        if slot < self._next_slot:
            return False
        self._next_slot = slot + 1
        return True

    def _slot(self, ticks: int) -> int:
        """Number of the last slot that begins at or before `ticks`."""
        if self._scale is None:
            return ticks
        return ticks * self._scale.numerator // self._scale.denominator
