"""The detector that the small one learnt from: a YOLOX network in ONNX (Ge et al., arXiv 2107.08430).

`onnxruntime` runs it, which no other part needs. Its outputs are raw: what they mean is done here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from onlooker.operators.errors import OnlookerError

__all__ = ["Teacher", "suppress"]

Floats = npt.NDArray[np.float32]

_STRIDES = (8, 16, 32)
_GREY = 114
"""What the network saw around pictures that are not square."""


class Teacher:
    """Finds the things of COCO's 80 classes.

    Raises:
        OnlookerError: `onnxruntime` or the network is missing.
    """

    def __init__(self, folder: str | Path, *, least: float = 0.01, overlap: float = 0.45, threads: int = 1) -> None:
        """Load the network.

        Args:
            folder: holds one `.onnx` file.
            least: scores below are left out.
            overlap: IoU from which the better of two boxes alone is kept, whatever their classes.
            threads: of the network.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise OnlookerError("the teacher needs onnxruntime: pip install onnxruntime.") from error
        found = sorted(Path(folder).glob("*.onnx"))
        if not found:
            raise OnlookerError(f"no .onnx file in {str(folder)!r}: is --data the data folder?")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(found[0]), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0]
        self._side = int(self._input.shape[2])
        self._least, self._overlap = least, overlap
        self._grid, self._stride = _cells(self._side)

    def __call__(self, picture: Image.Image) -> tuple[Floats, Floats]:
        """Boxes (N, 4) in pixels, left, top, right, bottom, and scores (N,), best first."""
        canvas, scale = self._fit(picture)
        (raw,) = self._session.run(None, {self._input.name: canvas})
        centre = (raw[0, :, :2] + self._grid) * self._stride
        half = np.exp(raw[0, :, 2:4]) * self._stride / 2
        boxes = (np.concatenate([centre - half, centre + half], axis=1) / scale).astype(np.float32)
        scores = raw[0, :, 4] * raw[0, :, 5:].max(axis=1)
        kept = np.flatnonzero(scores >= self._least)
        boxes = boxes[kept].clip(0, np.array([picture.width, picture.height] * 2, np.float32))
        order = suppress(boxes, scores[kept], self._overlap)
        return boxes[order], scores[kept][order]

    def _fit(self, picture: Image.Image) -> tuple[Floats, float]:
        """(1, 3, S, S) BGR from 0 to 255, the picture in the upper left corner, and its scale."""
        scale = min(self._side / picture.width, self._side / picture.height)
        size = (int(picture.width * scale), int(picture.height * scale))
        canvas = np.full((self._side, self._side, 3), _GREY, np.uint8)
        canvas[: size[1], : size[0]] = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BILINEAR))
        return canvas[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32), scale


def suppress(boxes: Floats, scores: Floats, overlap: float) -> npt.NDArray[np.int64]:
    """Rows that are kept, best first, so that none overlaps a better one by `overlap` or more."""
    order = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2])
        shared = sides.clip(0).prod(axis=1)
        order = rest[shared < overlap * (area[best] + area[rest] - shared)]
    return np.array(kept, np.int64)


def _cells(side: int) -> tuple[Floats, Floats]:
    """Place (N, 2) of each cell in its grid, and its stride (N, 1), level by level and row by row."""
    grids, strides = [], []
    for stride in _STRIDES:
        count = side // stride
        y, x = np.mgrid[:count, :count]
        grids.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        strides.append(np.full((count * count, 1), stride))
    return np.concatenate(grids).astype(np.float32), np.concatenate(strides).astype(np.float32)
