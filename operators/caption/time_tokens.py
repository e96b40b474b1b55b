"""Time tokens: instants of a video as extra words of the vocabulary.

Source: Yang et al., "Vid2Seq" (CVPR 2023, section 3.1), as Zhou et al., "Streaming Dense Video Captioning" (CVPR 2024)
use them. A video of duration d has Q bins; the tokens V0 .. V0 + Q - 1 stand behind the V0 words of the vocabulary.
Times are int64 microseconds, because bins depend on their last digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from onlooker.operators.errors import OnlookerError

TimeFormat = Literal["se", "cd"]


class TimeTokenError(OnlookerError):
    """Times, or a time format, that no token can stand for."""


@dataclass(frozen=True)
class TimeTokens:
    """The code between instants and tokens.

    Attributes:
        vocab_size: V0, number of words, and the token of bin 0.
        num_bins: Q, at least 2: the first is the start of the video, the last one its end.
    """

    vocab_size: int
    num_bins: int

    def __post_init__(self) -> None:
        """Check the sizes."""
        if self.vocab_size < 1 or self.num_bins < 2:
            raise TimeTokenError(
                f"time tokens need vocab_size >= 1 and num_bins >= 2, got {self.vocab_size} and {self.num_bins}"
            )

    @property
    def total(self) -> int:
        """V = V0 + Q, the size of the vocabulary with time tokens."""
        return self.vocab_size + self.num_bins

    def encode(
        self, start_us: npt.ArrayLike, end_us: npt.ArrayLike, duration_us: int, time_format: TimeFormat = "se"
    ) -> npt.NDArray[np.int32]:
        """Two tokens per event.

        Args:
            start_us: (n,) starts in microseconds.
            end_us: (n,) ends; times behind the duration count as the duration.
            duration_us: of the video, positive.
            time_format: `se`, start and end; `cd`, centre (rounded down) and length.

        Returns:
            (n, 2) int32. Only the end of the video gets the last bin; all else is rounded down.

        Raises:
            TimeTokenError: no positive duration, or an unknown format.
        """
        if duration_us <= 0:
            raise TimeTokenError(f"duration {duration_us} us: a video with events needs a positive duration")
        start, end = np.asarray(start_us, np.int64), np.asarray(end_us, np.int64)
        if time_format == "se":
            times = np.stack([start, end], axis=1)
        elif time_format == "cd":
            times = np.stack([(start + end) // 2, end - start], axis=1)
        else:
            raise TimeTokenError(f"time format {time_format!r}: use 'se' (start, end) or 'cd' (centre, duration)")
        share = np.minimum(times, duration_us) / np.float64(duration_us)
        # V0 is added before truncation: at its size float64 forgets the noise that would push exact bins below their
        # border.
        return (share * np.float64(self.num_bins - 1) + np.float64(self.vocab_size)).astype(np.int32)

    def decode_bin(self, index: int, duration_us: int) -> int:
        """Microseconds of a bin, rounded towards zero; bins outside 0 .. Q - 1 are passed through the same line."""
        return int(index * duration_us / (self.num_bins - 1))

    def is_time(self, tokens: Tensor) -> Tensor:
        """Bool of the same shape: True where a token stands for a time."""
        return tokens >= self.vocab_size
