"""A bank for tests: every photograph has a colour of its own, by which its objects are found again in a scene."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onlooker.training.objects.bank import ObjectBank, Thing

SIDE = 64


def colour(photograph: int) -> npt.NDArray[np.int64]:
    """Each of the first 27 photographs has one; the farthest channel of two differs by at least 100."""
    return np.array([photograph // 9, photograph // 3 % 3, photograph % 3]) * 110 + 15


def plain_bank(photographs: int = 27) -> ObjectBank:
    """Photographs of one colour that show one thing each, in the middle; the first one shows nothing."""
    pictures = [np.full((SIDE, SIDE, 3), colour(p), np.uint8) for p in range(photographs)]
    things = [(Thing(p, (0.3, 0.2, 0.7, 0.8), "dog"),) if p else () for p in range(photographs)]
    captions = [(f"photograph {p}", f"number {p}") for p in range(photographs)]
    return ObjectBank(pictures, [f"{p}.jpg" for p in range(photographs)], captions, things)
