"""A detector for streams: from what a tower saw of frames to boxes and their features, from arrays to arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import OnlookerError
from ..packets import FloatArray
from .densevoc.load import ObjectModel

__all__ = ["FrameDetector", "Objects", "View"]

View = tuple[FloatArray, ...]
"""One frame: the maps (h, w, C) of a trunk's stages, finest first."""


class Objects(NamedTuple):
    """The objects of one frame, best first."""

    boxes: FloatArray
    """(N, 4) x0, y0, x1, y1 as parts of the picture."""
    scores: FloatArray
    """(N,)"""
    features: FloatArray
    """(N, r * r, C)"""


class FrameDetector:
    """Detects in frames, and pools the features of boxes that others detected, in calls of fixed shape."""

    def __init__(self, loaded: ObjectModel, batch: int, device: str) -> None:
        """Take a loaded model.

        Raises:
            OnlookerError: it has a backbone of its own and cannot read a tower's maps.
        """
        if loaded.model.trunk is None:
            raise OnlookerError(
                "this object model sees pictures, not a tower's features: take the model tiny, or one that "
                "`onlooker train objects` made."
            )
        self._model, self._tower, self._trunk = loaded.model, loaded.tower, loaded.model.trunk
        self._batch, self._device = batch, device

    def detect(self, views: Sequence[View], places: int) -> list[Objects]:
        """The objects of each frame, at most `places`."""
        found: list[Objects] = []
        for group, levels, size in self._calls(views):
            with torch.inference_mode():
                detected = self._model.detector.detect(levels, size)
                boxes, scores = detected.boxes[:, :places], detected.scores[:, :places]  # the best come first
                features = self._pool(levels, boxes)
            scaled = boxes.cpu() / _scale(size)
            for row in range(len(group)):
                kept = (scores[row] > 0).cpu()
                parts = (part[row].cpu()[kept].numpy() for part in (scaled, scores, features))
                found.append(Objects(*parts))
        return found

    def pool(self, views: Sequence[View], boxes: Sequence[FloatArray], places: int) -> list[FloatArray]:
        """Features (N, r * r, C) of the boxes (N, 4) of each frame, parts of the picture; N is at most `places`."""
        found: list[FloatArray] = []
        rest = iter(boxes)
        for group, levels, size in self._calls(views):
            own = [next(rest) for _ in group]
            filled = np.zeros((self._batch, places, 4), np.float32)
            for row, each in enumerate(own):
                filled[row, : len(each)] = each
            with torch.inference_mode():
                features = self._pool(levels, torch.from_numpy(filled) * _scale(size))
            found += [features[row, : len(each)].cpu().numpy() for row, each in enumerate(own)]
        return found

    def _pool(self, levels: Sequence[Tensor], boxes: Tensor) -> Tensor:
        return self._model.detector.pool(levels, boxes.to(levels[0].device), self._model.config.tracking.resolution)

    def _calls(self, views: Sequence[View]) -> Iterator[tuple[Sequence[View], list[Tensor], tuple[int, int]]]:
        """Frames in groups of at most a batch, their levels filled up with zeros, and their size in pixels."""
        for start in range(0, len(views), self._batch):
            group = views[start : start + self._batch]
            maps = [self._stacked([view[level] for view in group]) for level in range(len(group[0]))]
            if not self._trunk.reads(channels := tuple(each.shape[1] for each in maps)):
                raise OnlookerError(
                    f"this object model reads the features of tower {self._tower!r} with {self._trunk.config.maps} "
                    f"channels, but was given {channels}: use that tower."
                )
            with torch.inference_mode():
                levels = self._trunk(maps)
            stride = self._model.config.detector.strides[0]
            yield group, levels, (stride * levels[0].shape[2], stride * levels[0].shape[3])

    def _stacked(self, level: Sequence[FloatArray]) -> Tensor:
        """(B, C, h, w) of maps (h, w, C)."""
        filled = np.zeros((self._batch, *level[0].shape), np.float32)
        filled[: len(level)] = level
        return torch.from_numpy(filled).permute(0, 3, 1, 2).contiguous().to(self._device)


def _scale(size: tuple[int, int]) -> Tensor:
    height, width = size
    return torch.tensor([width, height, width, height], dtype=torch.float32)
