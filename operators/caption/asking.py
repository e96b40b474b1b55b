"""Questions what is there now, of the whole picture or a part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..packets import FloatArray, Memory, Tokens

__all__ = ["Box", "Question", "view_of"]

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 as parts of the picture, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody wants to know about this moment."""

    name: str
    """Comes back with the answer."""
    box: Box | None = None
    """Where to look; None for the whole picture."""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Question:
        """Read the content of a control packet ``ask``."""
        box = data.get("box")
        if box is None:
            return cls(str(data["ask"]))
        x0, y0, x1, y1 = map(float, box)
        return cls(str(data["ask"]), (x0, y0, x1, y1))


def view_of(frame: Tokens, box: Box) -> Memory:
    """A memory of nothing but the part of one frame: the tokens of the cells whose centres lie in the box.

    A box that holds no centre gets the cell that its own centre lies in. Tokens have seen what is around their cell, so
    a part of the picture is not as if it had been cut out.

    Args:
        frame: its ``shape`` is known.
        box: the part.
    """
    assert frame.shape is not None
    rows, columns = frame.shape
    cells = frame.grid.reshape(rows, columns, -1)  # (h, w, D)
    inside = cells[np.ix_(_within(box[1], box[3], rows), _within(box[0], box[2], columns))]
    centers: FloatArray = np.ascontiguousarray(inside.reshape(-1, cells.shape[2]))  # (M, D)
    counts = np.ones(len(centers), np.int32)
    return Memory(frame.stream, frame.epoch, frame.t, centers, counts, frame.t, len(centers))


def _within(low: float, high: float, count: int) -> list[int]:
    """Numbers of the cells, of ``count`` along the picture's side, whose centres lie in [low, high)."""
    return [i for i in range(count) if low <= (i + 0.5) / count < high] or [
        min(int((low + high) / 2 * count), count - 1)
    ]
