"""How well a tower finds photographs by their sentences, and tells true sentences from absent ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from onlooker.operators.tower import Tower
from onlooker.training.flickr import read_split


@dataclass(frozen=True)
class CaptionedPictures:
    """Pictures and sentences; sentence ``j`` belongs to picture ``owners[j]``."""

    name: str
    pictures: tuple[Path, ...]
    texts: tuple[str, ...]
    owners: tuple[int, ...]


@dataclass(frozen=True)
class Retrieval:
    """Figures of one tower on one set; every figure is a fraction.

    Attributes:
        text_to_image: R@1, R@5, R@10: the sentence's own picture is among the best k.
        image_to_text: R@1, R@5, R@10: one of the picture's own sentences is among the best k.
        auroc_raw: a cosine of a true pair against one of a false pair, over all queries together.
        auroc_calibrated: the same with each query's scores as z-scores; None for a tower without calibration.
        auroc_within: true against false pairs of the same query, averaged over queries.
    """

    text_to_image: tuple[float, float, float]
    image_to_text: tuple[float, float, float]
    auroc_raw: float
    auroc_calibrated: float | None
    auroc_within: float


def flickr_pictures(data: Path, split: str) -> CaptionedPictures:
    """Return a split of Flickr8k: five sentences a photograph."""
    photographs = read_split(data, split)
    return CaptionedPictures(
        name=f"Flickr8k {split}",
        pictures=tuple(photographs.images / name for name in photographs.files),
        texts=tuple(text for texts in photographs.captions for text in texts),
        owners=tuple(index for index, texts in enumerate(photographs.captions) for _ in texts),
    )


def coco_pictures(folder: Path, split: str = "train2017") -> CaptionedPictures:
    """Return a folder in COCO's layout: ``<split>/`` and ``annotations/captions_<split>.json``."""
    annotations = json.loads((folder / "annotations" / f"captions_{split}.json").read_text(encoding="utf-8"))
    numbers = {image["id"]: index for index, image in enumerate(annotations["images"])}
    return CaptionedPictures(
        name=folder.name,
        pictures=tuple(folder / split / image["file_name"] for image in annotations["images"]),
        texts=tuple(entry["caption"].strip() for entry in annotations["annotations"]),
        owners=tuple(numbers[entry["image_id"]] for entry in annotations["annotations"]),
    )


def embed_pictures(tower: Tower, pictures: Sequence[Path], batch: int = 16) -> Tensor:
    """Return unit image embeddings (P, E) of whole pictures, squashed to the tower's size."""
    rows = []
    for start in range(0, len(pictures), batch):
        images = [Image.open(path) for path in pictures[start : start + batch]]
        rows.append(tower.encode_frames(tower.preprocess(images), batch=batch).features)
    return F.normalize(torch.cat(rows), dim=-1)


def measure(tower: Tower, captioned: CaptionedPictures) -> Retrieval:
    """Embed everything and return the figures."""
    texts = F.normalize(tower.encode_texts(captioned.texts, batch=32), dim=-1)  # (T, E)
    images = embed_pictures(tower, captioned.pictures)  # (P, E)
    scores = texts @ images.T  # (T, P)
    calibrated = None
    if tower.calibration is not None:
        calibrated = tower.calibration.standardise(scores.T, texts).T
    return figures(scores, torch.tensor(captioned.owners), calibrated)


def figures(scores: Tensor, owners: Tensor, calibrated: Tensor | None = None) -> Retrieval:
    """Return the figures of a score matrix (T, P) whose row ``j`` belongs to column ``owners[j]``."""
    rows = torch.arange(len(owners))
    true = torch.zeros(scores.shape, dtype=torch.bool)
    true[rows, owners] = True
    own = scores[rows, owners]  # (T,)
    better = (scores > own[:, None]).sum(1)  # pictures ahead of the own one
    best = torch.full((scores.shape[1],), -torch.inf).scatter_reduce(0, owners, own, "amax")  # (P,)
    ahead = (scores > best[None]).sum(0)  # sentences ahead of the best own one
    return Retrieval(
        text_to_image=_recalls(better),
        image_to_text=_recalls(ahead),
        auroc_raw=auroc(scores[true].numpy(), scores[~true].numpy()),
        auroc_calibrated=None if calibrated is None else auroc(calibrated[true].numpy(), calibrated[~true].numpy()),
        auroc_within=1.0 - float((better / (scores.shape[1] - 1)).mean()),
    )


def auroc(positive: npt.NDArray[np.float32], negative: npt.NDArray[np.float32]) -> float:
    """Return the chance that a random positive is above a random negative, ties counting half.

    Raises:
        ValueError: one side is empty.
    """
    if not len(positive) or not len(negative):
        raise ValueError(f"AUROC needs both sides, got {len(positive)} positive and {len(negative)} negative")
    ranked = np.sort(negative)
    below = np.searchsorted(ranked, positive, "left") + np.searchsorted(ranked, positive, "right")
    return float(below.mean() / 2 / len(ranked))


def _recalls(ahead: Tensor) -> tuple[float, float, float]:
    one, five, ten = (float((ahead < k).float().mean()) for k in (1, 5, 10))
    return one, five, ten
