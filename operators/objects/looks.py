"""What a detection looks like, for knowing it again: the finest map of a tower's trunk at its box, as it differs.

An association transformer is trained for what follows closely and knows little of who was gone: of pairs of generated
videos of Flickr8k dev that lie a second or more apart, its score alone tells the same from others with an area under
the curve of .89. The finest map, without any training, does with .95, both together with the size with .96; later maps
know kinds better and individuals worse. Channels are compared by how far they are from what is usual in the picture.
"""

from __future__ import annotations

import numpy as np
import torch

from ..packets import FloatArray
from .densevoc.roi_align import roi_align

__all__ = ["looks_of"]

_CELLS = 4
"""Along each side of a box; 2 are too few to tell people apart, 5 no better."""
_EPS = 1e-2
"""Least standard deviation of a channel."""


def looks_of(view: FloatArray, boxes: FloatArray) -> FloatArray:
    """Unit vectors, whose products are from -1 to 1.

    Args:
        view: (h, w, C), the map of one frame.
        boxes: (N, 4) x0, y0, x1, y1 as parts of the picture.

    Returns:
        (N, 16 * C) float32; zeros of a map that is the same everywhere.
    """
    height, width, channels = view.shape
    if not len(boxes):
        return np.zeros((0, _CELLS * _CELLS * channels), np.float32)
    flat = view.reshape(-1, channels)
    usual = ((view - flat.mean(0)) / (flat.std(0) + _EPS)).astype(np.float32)
    cells = torch.from_numpy(boxes * np.array([width, height] * 2, np.float32))[None]
    level = torch.from_numpy(usual).permute(2, 0, 1)[None].contiguous()
    pooled = roi_align([level], cells, (1,), _CELLS)[0].reshape(len(boxes), -1).numpy()
    looks: FloatArray = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-6)
    return looks
