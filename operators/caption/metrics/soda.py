"""SODA_c: how well a whole set of captions tells the story (Fujita et al. 2020).

Captions are aligned in order, each used at most once, so that the sum of IoU times METEOR is greatest; its shares of
the predicted and of the true captions are precision and recall.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .detections import f1_score

__all__ = ["align", "soda_f1"]


def align(scores: ArrayLike) -> tuple[float, list[tuple[int, int]]]:
    """The order-preserving one-to-one alignment of greatest total score.

    Args:
        scores: (G, P) non-negative, G and P at least 1.

    Returns:
        The total, and aligned pairs (true, predicted). The pairs are found as SODA's published code finds them: from
        the last row up, the rightmost column where pairing was the best choice. Where leaving a row out is as good,
        they may add up to less than the total; SODA_c needs the total alone.
    """
    gain = np.asarray(scores, np.float64)
    if gain.ndim != 2 or gain.size == 0:
        raise ValueError(f"scores are (G, P), both at least 1; got shape {gain.shape}")
    rows, columns = gain.shape
    best = np.zeros((rows + 1, columns + 1))  # a border of zeros: nothing aligned
    paired = np.zeros((rows, columns), bool)
    for i in range(rows):
        for j in range(columns):
            skip, pair = max(best[i, j + 1], best[i + 1, j]), best[i, j] + gain[i, j]
            best[i + 1, j + 1] = max(skip, pair)
            # On a tie leaving out wins, but at the border there is nothing to leave out to.
            outside = -1.0 if i == 0 and j == 0 else best[i, 1] if j == 0 else best[1, j] if i == 0 else skip
            paired[i, j] = pair > outside
    return float(best[rows, columns]), _pairs(paired)


def _pairs(paired: NDArray[np.bool_]) -> list[tuple[int, int]]:
    pairs = []
    column = paired.shape[1] - 1
    for row in range(paired.shape[0] - 1, -1, -1):
        choices = np.flatnonzero(paired[row, : column + 1])
        if len(choices):
            pairs.append((row, int(choices[-1])))
            column = int(choices[-1]) - 1
            if column < 0:
                break
    return pairs[::-1]


def soda_f1(iou: NDArray[np.float64], meteor: NDArray[np.float64]) -> float:
    """SODA_c of one video and one annotator; both arguments are (G, P)."""
    total, _ = align(iou * meteor)
    return f1_score(total / iou.shape[1], total / iou.shape[0])
