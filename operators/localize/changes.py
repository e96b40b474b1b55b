"""Where what is seen changes from one sample to the next.

A cut, or a cross-fade, moves the features of a frame further in one step than anything that moves in front of a camera.
Nothing is averaged over such a step, so that a boundary lies where the picture changes and not where an average does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..packets import FloatArray

__all__ = ["step_size", "within_shot"]


def step_size(before: FloatArray, after: FloatArray) -> float:
    """One minus the cosine of two (E,) features: 0 for the same, 1 for unrelated, at most 2."""
    lengths = float(np.linalg.norm(before)) * float(np.linalg.norm(after))
    return 1.0 - float(before @ after) / max(lengths, 1e-12)


def within_shot(begins: Sequence[bool], i: int, half: int) -> tuple[int, int]:
    """The samples around one that no change parts from it.

    Args:
        begins: of each sample whether a change parts it from the one before.
        i: number of the sample in the middle.
        half: how many samples may be taken on each side.

    Returns:
        First and last plus one, as of a slice.
    """
    first = last = i
    while first > max(0, i - half) and not begins[first]:
        first -= 1
    while last < min(len(begins) - 1, i + half) and not begins[last + 1]:
        last += 1
    return first, last + 1
