"""Photographs of plain coloured objects, and a tower that sees only colours, to try the training of objects on."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F

from onlooker.operators.objects.densevoc.association import AssociationConfig
from onlooker.operators.objects.densevoc.config import DetectorConfig, ProposalConfig, RoiConfig
from onlooker.operators.objects.densevoc.model import DenseVoc, DenseVocConfig, TrackingConfig
from onlooker.operators.objects.densevoc.trunk_pyramid import TrunkPyramidConfig
from onlooker.training.objects.detector_data import ViewCache

SHAPES = ((3, 28, 28), (3, 14, 14), (3, 7, 7))
COLOURS = ((250, 40, 40), (40, 250, 40), (40, 40, 250), (250, 250, 40))


class Maps(NamedTuple):
    """What a tower gives."""

    maps: tuple[torch.Tensor, ...]


class ColourTower:
    """Maps are the picture, made smaller."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.calls: list[int] = []

    def encode_frames(self, pixels: npt.NDArray[np.uint8], batch: int = 8, maps: bool = False) -> Maps:
        """See `Tower.encode_frames`."""
        self.calls.append(len(pixels))
        picture = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 100 - 1
        return Maps(tuple(F.adaptive_avg_pool2d(picture, side) for _, side, _ in SHAPES))


def write_world(root: Path, photographs: int = 6, split: str = "train") -> None:
    """A data folder whose photographs show one or two coloured rectangles on grey, with their boxes."""
    folder = root / "flickr8k"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = {}
    names = [f"{index}.jpg" for index in range(photographs)]
    for index, name in enumerate(names):
        pixels = np.full((224, 224, 3), 120, np.uint8)
        rows[name] = []
        for number in range(1 + index % 2):
            x, y = 15 + 105 * number + rng.integers(0, 20), rng.integers(20, 100)
            box = [int(x), int(y), int(x + rng.integers(50, 80)), int(y + rng.integers(60, 110))]
            pixels[box[1] : box[3], box[0] : box[2]] = COLOURS[(index + number) % 4]
            rows[name].append(["thing", 0.9, *box])
        Image.fromarray(pixels).save(folder / "images" / name, quality=95)
    (folder / "pseudo_boxes.json").write_text(json.dumps({"boxes": rows}))
    for each in ("train", "dev", "test"):
        (folder / f"Flickr_8k.{each}Images.txt").write_text("\n".join(names) if each == split else "")
    with gzip.open(folder / "Flickr8k.token.txt.gz", "wt") as lines:
        lines.writelines(f"{name}#{k}\ta thing .\n" for name in names for k in range(5))


def open_cache(folder: Path, views: int) -> ViewCache:
    """A cache for the colour tower."""
    return ViewCache.open(folder, views, SHAPES, 40)


def small_config() -> DenseVocConfig:
    """A model for the colour tower."""
    detector = DetectorConfig(
        backbone=None,
        channels=16,
        strides=(8, 16, 32),
        canonical_size=112.0,
        proposals=ProposalConfig(
            width=16, num_layers=1, groups=2, candidates=100, proposals=30, train_candidates=60, train_proposals=20
        ),
        roi=RoiConfig(widths=(32,), resolution=3, detections=20),
    )
    return DenseVocConfig(
        detector=detector,
        trunk=TrunkPyramidConfig((3, 3, 3), width=16, groups=2),
        association=AssociationConfig(3 * 3 * 16, 16, 2),
        captioner=None,
        tracking=TrackingConfig(resolution=3),
    )


def small_model() -> DenseVoc:
    """The same weights at every call."""
    torch.manual_seed(0)
    return DenseVoc(small_config())
