"""Pictures with known boxes for training a detector: grids of crops of photographs, and what a tower sees of them.

A grid of several photographs shows objects smaller than one photograph does, and many at once; the crop of one shows
them larger. What the frozen tower makes of a picture is kept in a folder, since the tower costs more than the heads
that are trained on it:

- ``level<k>.npy``  (V, C_k, h_k, w_k) float16: maps of V views, finest first;
- ``boxes.npy``     (V, K, 4) float32 x0, y0, x1, y1 in pixels of the view, zeros fill up;
- ``beliefs.npy``   (V, K) float32, how likely each box shows an object;
- ``done.npy``      (V,) bool: which views are there, so that a reader may start before the writer ends.

View i is a function of (seed, i) and the bank only, so any process may fill any of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from onlooker.operators.objects.densevoc.boxes import pairwise_iou
from onlooker.training.flickr import read_split

__all__ = [
    "Batch",
    "BoxBank",
    "MapTower",
    "View",
    "ViewCache",
    "ViewOptions",
    "draw_view",
    "open_boxes",
    "rare_first",
]

Pixels = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float32]
Report = Callable[[int, str], None]

SIZE = 224
_SAME = 0.7
"""The teacher suppresses within a class; boxes of two classes that overlap more than this are one object."""
_CERTAIN = 0.45
"""Score of the teacher from which a box is believed without doubt."""
_PLAIN = 0.2
"""Score from which a class counts as shown."""
_COMMON = 0.1
"""Classes that more than this part of the photographs show are not rare."""
_OFTENEST = 5.0
"""Times that a photograph is drawn for one of common things, at most."""


@dataclass(frozen=True)
class BoxBank:
    """Photographs of one split with their boxes.

    Attributes:
        images: folder of the photographs, all 224x224.
        files: names in it.
        boxes: (n, 4) for each file, in pixels of the photograph.
        beliefs: (n,) for each file, how likely a box shows an object.
        chances: (files,), how often each photograph is drawn, in all 1.
    """

    images: Path
    files: tuple[str, ...]
    boxes: tuple[Boxes, ...]
    beliefs: tuple[Boxes, ...]
    chances: npt.NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.files)

    def picture(self, index: int) -> Image.Image:
        """The photograph, RGB."""
        with Image.open(self.images / self.files[index]) as image:
            return image.convert("RGB")


def open_boxes(data: Path, split: str, labels: Path | None = None) -> BoxBank:
    """The photographs of a split that have at least one box.

    Without `labels` every box is believed and every photograph is as likely to be drawn. With them a box is believed
    by its score, and photographs of rare classes are drawn more often.

    Args:
        data: the data folder (see `onlooker.training.flickr`), with ``flickr8k/pseudo_boxes.json``: boxes by file, rows
            of class, score, x0, y0, x1, y1, best score first.
        split: train, dev or test.
        labels: other boxes in that form, of `onlooker.training.objects.teacher`.
    """
    path = labels or data / "flickr8k" / "pseudo_boxes.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["boxes"]
    photographs = read_split(data, split)
    files = tuple(name for name in photographs.files if rows.get(name))
    told = [[rows[name][row] for row in _distinct(rows[name])] for name in files]
    boxes = tuple(np.array([row[2:] for row in picture], np.float32) for picture in told)
    scores = [np.array([row[1] for row in picture], np.float32) for picture in told]
    if labels is None:
        beliefs, chances = [np.ones_like(score) for score in scores], np.ones(len(files))
    else:
        beliefs = [(score / _CERTAIN).clip(0, 1) for score in scores]
        chances = rare_first([{row[0] for row in picture if row[1] >= _PLAIN} for picture in told])
    return BoxBank(photographs.images, files, boxes, tuple(beliefs), chances / chances.sum())


def rare_first(classes: Sequence[Collection[Any]]) -> npt.NDArray[np.float64]:
    """How often to draw each picture: the repeat factor of its rarest class (Gupta et al., LVIS, CVPR 2019), (n,).

    Args:
        classes: what each of n pictures shows.
    """
    counts = Counter(kind for shown in classes for kind in set(shown))
    factors = {kind: np.clip((_COMMON * len(classes) / count) ** 0.5, 1, _OFTENEST) for kind, count in counts.items()}
    return np.array([max((factors[kind] for kind in shown), default=1.0) for shown in classes])


def _distinct(rows: Sequence[Sequence[Any]]) -> list[int]:
    """Those of a photograph's rows whose boxes do not nearly coincide with an earlier one's."""
    boxes = torch.tensor([row[2:] for row in rows], dtype=torch.float32)
    same = pairwise_iou(boxes, boxes).numpy() > _SAME
    kept: list[int] = []
    for index in range(len(rows)):
        if not same[index, kept].any():
            kept.append(index)
    return kept


@dataclass(frozen=True)
class ViewOptions:
    """How views are drawn.

    Attributes:
        grids: (rows, columns, weight): how many photographs a view shows, and how often.
        zoom: side of a crop, as part of the photograph's, is drawn between these; more than 1 is all of it.
        squeeze: how much wider or narrower than its cell a crop may be, as a factor: frames of video are squashed.
        visible: part of an object that must be within a crop for it to count.
        side: shortest side in pixels of an object that counts.
        most: boxes of a view; of more the largest and most believed are kept.
    """

    grids: tuple[tuple[int, int, float], ...] = (
        (1, 1, 0.45),
        (1, 2, 0.08),
        (2, 1, 0.08),
        (2, 2, 0.24),
        (2, 3, 0.05),
        (3, 2, 0.05),
        (3, 3, 0.05),
    )
    zoom: tuple[float, float] = (0.55, 1.2)
    squeeze: float = 1.5
    visible: float = 0.35
    side: float = 4.0
    most: int = 48


class View(NamedTuple):
    """A picture and its objects.

    Attributes:
        pixels: (224, 224, 3).
        boxes: (n, 4) in pixels.
        beliefs: (n,), how likely each shows an object; None if all are certain.
    """

    pixels: Pixels
    boxes: Boxes
    beliefs: Boxes | None = None


def draw_view(bank: BoxBank, rng: np.random.Generator, options: ViewOptions) -> View:
    """A random view."""
    weights = np.array([weight for *_, weight in options.grids])
    rows, columns, _ = options.grids[rng.choice(len(weights), p=weights / weights.sum())]
    pixels = np.empty((SIZE, SIZE, 3), np.uint8)
    parts, beliefs = [], []
    for top, bottom in pairwise(_borders(rows, rng)):
        for left, right in pairwise(_borders(columns, rng)):
            index = int(rng.choice(len(bank), p=bank.chances))
            cell, boxes, seen = _crop(bank, index, (right - left, bottom - top), rng, options)
            pixels[top:bottom, left:right] = cell
            parts.append(boxes + np.array([left, top, left, top], np.float32))
            beliefs.append(bank.beliefs[index][seen])
    boxes, believed = np.concatenate(parts), np.concatenate(beliefs)
    best = np.argsort(-_areas(boxes) * believed, kind="stable")[: options.most]
    return View(_tint(pixels, rng), boxes[best], believed[best])


def _borders(parts: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Where `parts` cells begin and end along one side."""
    inner = (np.arange(1, parts) + rng.uniform(-0.2, 0.2, parts - 1)) / parts
    return np.concatenate([[0], np.round(inner * SIZE), [SIZE]]).astype(np.int64)


def _crop(
    bank: BoxBank, index: int, size: tuple[int, int], rng: np.random.Generator, options: ViewOptions
) -> tuple[Pixels, Boxes, npt.NDArray[np.bool_]]:
    """A random part of a photograph in a cell of `size` (width, height): (height, width, 3) pixels, the boxes seen.

    The last is which of the photograph's boxes these are.
    """
    image, boxes = bank.picture(index), bank.boxes[index]
    shape = size[0] / size[1] * np.exp(rng.uniform(-1, 1) * np.log(options.squeeze))
    part = rng.uniform(*options.zoom) * np.array([shape, 1 / shape]) ** 0.5
    extent = np.array(image.size) * part.clip(0.2, 1.0)
    corner = rng.uniform(0, 1, 2) * (np.array(image.size) - extent)
    area = (*corner, *(corner + extent))
    cell = np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=area), np.uint8)
    scale = np.array(size) / extent
    moved = (boxes - np.tile(corner, 2)) * np.tile(scale, 2)
    cut = moved.clip(0, np.tile(size, 2)).astype(np.float32)
    sides = cut[:, 2:] - cut[:, :2]
    seen = (_areas(cut) >= options.visible * _areas(moved)) & (sides.min(-1, initial=SIZE) >= options.side)
    if rng.random() < 0.5:
        cell, cut = cell[:, ::-1], _mirrored(cut, size[0])
    return cell, cut[seen], seen


def _mirrored(boxes: Boxes, width: float) -> Boxes:
    """Boxes of a picture of that width whose left is its right now."""
    mirrored = boxes.copy()
    mirrored[:, [2, 0]] = width - boxes[:, [0, 2]]
    return mirrored


def _areas(boxes: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """(n, 4) -> (n,)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _tint(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Other light: brightness, contrast and saturation within a quarter, grey for one view of twenty."""
    gain, contrast, saturation = rng.uniform(0.75, 1.25, 3)
    if rng.random() < 0.05:
        saturation = 0.0
    values = pixels.astype(np.float32)
    grey = values.mean(-1, keepdims=True)
    values = grey + (values - grey) * np.float32(saturation)
    values = (values - values.mean()) * np.float32(contrast) + values.mean() * np.float32(gain)
    tinted: Pixels = values.round().clip(0, 255).astype(np.uint8)
    return tinted


class MapTower(Protocol):
    """What the cache needs of a tower: see `onlooker.operators.tower.Tower`."""

    def encode_frames(self, pixels: Pixels, batch: int = 8, maps: bool = False) -> MapOutput:
        """Maps of frames (B, H, W, 3)."""


class MapOutput(Protocol):
    """See `onlooker.operators.tower.vision.TowerOutput`."""

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """(B, C, h, w) each, finest first."""


class Batch(NamedTuple):
    """B views for a step of training.

    Attributes:
        maps: (B, C, h, w) float32 each, finest first.
        boxes: (B, G, 4) in pixels, G as many as needed, at least 1; zeros fill up.
        beliefs: (B, G), how likely each shows an object.
    """

    maps: tuple[Tensor, ...]
    boxes: Tensor
    beliefs: Tensor


@dataclass(frozen=True)
class ViewCache:
    """Maps and boxes of views in a folder, in the layout told above.

    Attributes:
        levels: (V, C, h, w) float16 each.
        boxes: (V, K, 4).
        beliefs: (V, K).
        done: (V,).
    """

    levels: tuple[npt.NDArray[np.float16], ...]
    boxes: Boxes
    beliefs: Boxes
    done: npt.NDArray[np.bool_]

    @classmethod
    def open(cls, folder: Path, views: int, shapes: Sequence[tuple[int, int, int]], most: int) -> ViewCache:
        """The cache in a folder, laid out there if it is empty.

        Args:
            folder: of the files.
            views: V.
            shapes: (C, h, w) of each level.
            most: K.

        Raises:
            ValueError: the folder holds a cache of other sizes.
        """
        folder.mkdir(parents=True, exist_ok=True)
        levels = [
            _array(folder / f"level{index}.npy", np.float16, (views, *shape)) for index, shape in enumerate(shapes)
        ]
        boxes = _array(folder / "boxes.npy", np.float32, (views, most, 4))
        beliefs = _array(folder / "beliefs.npy", np.float32, (views, most))
        return cls(tuple(levels), boxes, beliefs, _array(folder / "done.npy", np.bool_, (views,)))

    def missing(self) -> npt.NDArray[np.int64]:
        """Numbers of views that are not there yet."""
        return np.flatnonzero(~self.done)

    def read(self, rows: npt.NDArray[np.int64]) -> Batch:
        """The numbered views."""
        maps = tuple(
            torch.from_numpy(level[rows]).float().contiguous(memory_format=torch.channels_last) for level in self.levels
        )
        boxes = self.boxes[rows]
        used = np.flatnonzero((boxes[..., 2] > 0).any(0))
        count = used[-1] + 1 if len(used) else 1
        return Batch(maps, torch.from_numpy(boxes[:, :count]), torch.from_numpy(self.beliefs[rows][:, :count]))

    def fill(self, tower: MapTower, draw: Callable[[int], View], report: Report | None = None, batch: int = 16) -> None:
        """Encode what is missing, `batch` views at a time.

        Args:
            tower: makes the maps.
            draw: makes the view of a number; it is asked in order.
            report: is told how many of all views are there.
            batch: views in one call of the tower.
        """
        rows = self.missing()
        for start in range(0, len(rows), batch):
            chosen = rows[start : start + batch]
            views = [draw(int(index)) for index in chosen]
            maps = tower.encode_frames(np.stack([view.pixels for view in views]), batch, maps=True).maps
            for kept, level in zip(self.levels, maps, strict=True):
                kept[chosen] = level.numpy()
            for index, view in zip(chosen, views, strict=True):
                count = len(view.boxes)
                self.boxes[index, count:], self.beliefs[index, count:] = 0, 0
                self.boxes[index, :count] = view.boxes
                self.beliefs[index, :count] = 1 if view.beliefs is None else view.beliefs
            self.done[chosen] = True
            if report is not None:
                report(int(self.done.sum()), "")


def _array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The array in a file, zeros if there is no file yet."""
    if not path.exists():
        return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r+")
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{path.name} of the cache is {array.dtype} {array.shape}, not {shape}: use another folder")
    return array
