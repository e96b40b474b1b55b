"""One photograph with boxes as a video: the camera zooms and pans, and every object keeps its identity.

Source: Zhou et al., "Dense Video Object Captioning from Disjoint Supervision" (2023), section 4.1, as its reference
computes it ("Aug-COCO"): two random views of the photograph, and T views between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

__all__ = ["View", "ZoomedVideo", "random_view", "zoom_photograph"]

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """A photograph resized to (height, width) pixels, of which what begins at (top, left) is shown."""

    height: float
    width: float
    top: float
    left: float

    def towards(self, other: View, share: float) -> View:
        """Return the view at `share` (0 to 1) of the way; its numbers are truncated, each frame on its own."""
        own, last = np.array(self.numbers, np.float32), np.array(other.numbers, np.float32)
        return View(*np.trunc(own + (last - own) * np.float32(share)).tolist())

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """Height, width, top, left."""
        return self.height, self.width, self.top, self.left


@dataclass(frozen=True)
class ZoomedVideo:
    """T views of one photograph with K objects.

    Attributes:
        frames: (T, S, S, 3) uint8, black where the photograph does not reach.
        boxes: (T, K, 4) float32 pixels, x0 y0 x1 y1; zeros for what is out of view.
        ids: (T, K) int64, object index + 1; 0 for what is out of view.
    """

    frames: npt.NDArray[np.uint8]
    boxes: FloatArray
    ids: npt.NDArray[np.int64]


def random_view(
    rng: np.random.Generator, height: int, width: int, size: int, scales: tuple[float, float] = (0.1, 2.0)
) -> View:
    """Draw a scale evenly and a place for a window of `size` pixels in the photograph resized by it."""
    scale = np.float32(rng.uniform(*scales))
    new_height, new_width = max(1, int(np.float32(height) * scale)), max(1, int(np.float32(width) * scale))
    top = rng.integers(0, max(0, new_height - size) + 1)
    left = rng.integers(0, max(0, new_width - size) + 1)
    return View(new_height, new_width, int(top), int(left))


def zoom_photograph(
    photograph: npt.NDArray[np.uint8], boxes: FloatArray, first: View, last: View, frames: int, size: int
) -> ZoomedVideo:
    """Show a photograph in `frames` views from `first` to `last`, in a window of `size` pixels.

    Args:
        photograph: (H, W, 3) uint8.
        boxes: (K, 4) in pixels of the photograph.
        first: of the first frame.
        last: of the last one.
        frames: T.
        size: S.
    """
    height, width = photograph.shape[:2]
    # A copy, for what a file was decoded to may be read only, which torch does not know.
    image = torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None].float()  # 1, 3, H, W
    shown = np.zeros((frames, size, size, 3), np.uint8)
    moved = np.zeros((frames, *boxes.shape), np.float32)
    for t, share in enumerate(np.linspace(0, 1, frames)):
        new_height, new_width, top, left = (int(number) for number in first.towards(last, share).numbers)
        resized = F.interpolate(image, (new_height, new_width), mode="bilinear", align_corners=False)
        # Between two views the window may reach over the photograph's edge: what lies beyond stays black.
        part = resized[0, :, top : top + size, left : left + size].permute(1, 2, 0)
        shown[t, : part.shape[0], : part.shape[1]] = part.round().to(torch.uint8).numpy()
        scale = np.array([new_width / width, new_height / height] * 2, np.float32)
        window = np.array([min(new_width, size), min(new_height, size)] * 2, np.float32)
        placed = np.clip(boxes * scale - np.array([left, top] * 2, np.float32), 0, window)
        sides = placed[:, 2:] - placed[:, :2]
        moved[t] = placed * (sides.min(1, initial=np.inf) > 0)[:, None]
    ids = np.where((moved > 0).any(2), np.arange(1, len(boxes) + 1), 0)
    return ZoomedVideo(shown, moved, ids)
