"""The teacher of the detector: a YOLOX network in ONNX (Ge et al., arXiv 2107.08430), and what it says of photographs.

`onnxruntime` runs it, which no other part of the training needs. The outputs of the network are raw: what they mean is
done here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from onlooker.operators.errors import OnlookerError
from onlooker.training.files import whole_file
from onlooker.training.flickr import read_split

__all__ = ["Teacher", "Told", "label_photographs", "suppress"]

Floats = npt.NDArray[np.float32]
Report = Callable[[int, str], None]

_STRIDES = (8, 16, 32)
_GREY = 114
"""What the network saw around pictures that are not square."""


class Told(NamedTuple):
    """What the teacher sees in a picture, best first.

    Attributes:
        boxes: (N, 4) in pixels: left, top, right, bottom.
        scores: (N,).
        classes: (N,) of COCO's 80.
    """

    boxes: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]


class Teacher:
    """Finds the things of COCO's 80 classes.

    Raises:
        OnlookerError: `onnxruntime` or the network is missing.
    """

    def __init__(self, folder: str | Path, *, least: float = 0.08, overlap: float = 0.6, threads: int = 1) -> None:
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
            raise OnlookerError(f"no .onnx file in {str(folder)!r}: name the folder of a YOLOX network.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(found[0]), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0]
        self._side = int(self._input.shape[2])
        self._least, self._overlap = least, overlap
        self._grid, self._stride = _cells(self._side)

    def __call__(self, picture: Image.Image) -> Told:
        """What it sees in a picture of any size."""
        canvas, scale = self._fit(picture)
        (raw,) = self._session.run(None, {self._input.name: canvas})
        centre = (raw[0, :, :2] + self._grid) * self._stride
        half = np.exp(raw[0, :, 2:4]) * self._stride / 2
        boxes = (np.concatenate([centre - half, centre + half], axis=1) / scale).astype(np.float32)
        scores = raw[0, :, 4] * raw[0, :, 5:].max(axis=1)
        kept = np.flatnonzero(scores >= self._least)
        boxes = boxes[kept].clip(0, np.array([picture.width, picture.height] * 2, np.float32))
        order = suppress(boxes, scores[kept], self._overlap)
        return Told(boxes[order], scores[kept][order], raw[0, kept[order], 5:].argmax(axis=1))

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


def label_photographs(
    data: Path, split: str, path: Path, teacher: Path | None = None, report: Report | None = None
) -> None:
    """Write what the teacher sees in the photographs of a split, unless the file is there.

    The file has the form of ``flickr8k/pseudo_boxes.json``: rows of class, score, x0, y0, x1, y1 by file name.

    Args:
        data: the data folder (see `onlooker.training.flickr`).
        split: train, dev or test.
        path: to write.
        teacher: folder of the network; None is ``detector_teacher`` of the data folder.
        report: is told how many photographs are done.

    Raises:
        OnlookerError: `onnxruntime` or the network is missing.
    """
    if path.exists():
        return
    see = Teacher(teacher or data / "detector_teacher")
    photographs = read_split(data, split)
    rows: dict[str, list[list[float]]] = {}
    for name in photographs.files:
        with Image.open(photographs.images / name) as image:
            told = see(image.convert("RGB"))
        rows[name] = [
            [int(kind), round(float(score), 3), *(round(float(edge), 1) for edge in box)]
            for box, score, kind in zip(told.boxes, told.scores, told.classes, strict=True)
        ]
        if report is not None:
            report(len(rows), "")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(json.dumps({"boxes": rows}), encoding="utf-8")


def _cells(side: int) -> tuple[Floats, Floats]:
    """Place (N, 2) of each cell in its grid, and its stride (N, 1), level by level and row by row."""
    grids, strides = [], []
    for stride in _STRIDES:
        count = side // stride
        y, x = np.mgrid[:count, :count]
        grids.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        strides.append(np.full((count * count, 1), stride))
    return np.concatenate(grids).astype(np.float32), np.concatenate(strides).astype(np.float32)
