"""Which frames of a video a model of fixed length sees, besides `random_access.uniform_indices`.

Source: the paragraph models of Zhou et al., "Streaming Dense Video Captioning" (CVPR 2024), take a random subset in
training and every k-th frame otherwise; where a video is too short, the rest of the clip is black.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["random_indices", "strided_indices"]


def strided_indices(frames: int, samples: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Every k-th frame from the first on, k = max(frames // samples, 1).

    Returns:
        (samples,) frame numbers, 0 where the video has no frame left, and (samples,) False there: those slots are to be
        filled with black frames.

    Raises:
        ValueError: no frame or no sample.
    """
    _check(frames, samples)
    return _padded(np.arange(min(frames, samples), dtype=np.int64) * max(frames // samples, 1), samples)


def random_indices(
    frames: int, samples: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """A random subset of the frames in their order; a short video gives all of its frames.

    Returns:
        As `strided_indices`.

    Raises:
        ValueError: no frame or no sample.
    """
    _check(frames, samples)
    return _padded(np.sort(rng.permutation(frames)[:samples]), samples)


def _check(frames: int, samples: int) -> None:
    if frames < 1 or samples < 1:
        raise ValueError(f"need at least one frame and one sample, got {frames} frames, {samples} samples")


def _padded(indices: npt.NDArray[np.int64], samples: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    filled = np.zeros(samples, np.int64)
    filled[: len(indices)] = indices
    return filled, np.arange(samples) < len(indices)
