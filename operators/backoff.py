"""When to try again."""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Exponential waiting times with jitter and a cap; a slow, steady rhythm where trying harder cannot help.

    Jitter keeps many cameras behind one router, or bridges to one server, from coming back in step: each wait is
    drawn from the upper half of its range ("equal jitter"), so it never exceeds the nominal time.
    """

    def __init__(
        self,
        first: float = 0.5,
        cap: float = 30.0,
        *,
        factor: float = 2.0,
        refused: float = 60.0,
        settled: float = 10.0,
        seed: int | None = None,
    ) -> None:
        """Set the waits.

        Args:
            first: Longest first wait, seconds.
            cap: Longest wait of all, seconds.
            factor: By how much each wait may exceed the one before.
            refused: Wait after the source answered but refused: a wrong password does not mend itself, and cameras
                lock out who asks too often. Seconds.
            settled: How long all must have been well for the next failure to count as the first, seconds.
            seed: For repeatable waits.

        Raises:
            ValueError: an argument is out of range.
        """
        if not 0 < first <= cap or factor < 1 or refused <= 0 or settled < 0:
            raise ValueError(f"waits must satisfy 0 < first <= cap, factor >= 1, got {first=}, {cap=}, {factor=}")
        self._first, self._cap, self._factor = first, cap, factor
        self._refused, self._settled = refused, settled
        self._random = random.Random(seed)
        self.failures = 0
        """Failures in a row."""

    def failed(self, *, refused: bool = False, lived: float = 0.0) -> float:
        """Return how many seconds to wait after a failure.

        Args:
            refused: The source was reached and refused.
            lived: Seconds for which all had been well before the failure.
        """
        if lived >= self._settled:
            self.failures = 0
        # The exponent is bounded, or a camera that is away for weeks would overflow a float.
        longest = min(self._cap, self._first * self._factor ** min(self.failures, 64))
        self.failures += 1
        if refused:
            longest = max(longest, self._refused)
        return longest * (0.5 + 0.5 * self._random.random())

    def reset(self) -> None:
        """All is well: the next failure counts as the first."""
        self.failures = 0
