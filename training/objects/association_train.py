"""Training of the association on a detector that stays as it is, hence on features that are kept.

Where detector and association learn together, features change under the association and a step costs a pass of the
pyramid. Here a step costs the association alone, and it sees what the finished detector finds, with its errors: false
ones, boxes that are off, objects that are missed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from onlooker.operators.objects.densevoc.association import Association
from onlooker.operators.objects.densevoc.model import DenseVoc
from onlooker.training.averages import follow
from onlooker.training.schedules import LearningRate

from .association_loss import association_loss, match_identities
from .detector_data import SIZE, ViewCache
from .detector_train import APART, sighted

__all__ = ["AssociationTraining", "Sightings", "clip_sightings", "train_association"]

_SAME = 0.5
"""Overlap from which a detection shows the true object."""


@dataclass(frozen=True)
class AssociationTraining:
    """How the association is trained.

    Attributes:
        seed: everything random depends on it.
        frames: T of a clip.
        draws: times that the true boxes of a clip are drawn anew, besides what the detector finds.
        strangers, jitter: see `ObjectsTraining`.
        score: lowest of a detection.
        steps: updates of one or two clips.
        rate: learning rate after a warm-up of a twelfth of the steps; it falls along half a cosine.
        joined: share of updates in which two clips are one: more objects that are not the same.
        kept: the part of the detections that an update shows is drawn between this and 1.
        dropout: of the features.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        average: what is kept of the running average of the weights at each step.
    """

    seed: int = 0
    frames: int = 16
    draws: int = 2
    strangers: int = 2
    jitter: float = 0.1
    score: float = 0.3
    steps: int = 1500
    rate: float = 4e-4
    joined: float = 0.4
    kept: float = 0.5
    dropout: float = 0.1
    weight_decay: float = 0.05
    clip: float = 1.0
    average: float = 0.995


class Sightings(NamedTuple):
    """Detections of a clip.

    Attributes:
        features: (M, r * r, C) float16.
        identities: (M,) int64; 0 for what is left out of the loss.
    """

    features: Tensor
    identities: Tensor


@torch.no_grad()
def clip_sightings(model: DenseVoc, clips: ViewCache, training: AssociationTraining) -> list[Sightings]:
    """What a model in eval mode sees of clips, whose k-th box is the k-th object in every frame."""
    generator = torch.Generator().manual_seed(training.seed)
    seen = []
    for first in range(0, int(clips.done.sum()) - training.frames + 1, training.frames):
        maps, truth, _ = clips.read(np.arange(first, first + training.frames))
        levels = model.levels(maps)
        for _ in range(training.draws):
            drawn = sighted(truth, training.strangers, training.jitter, generator)
            seen.append(_sightings(model, levels, drawn.boxes, drawn.identities, drawn.boxes[..., 2] > 0))
        found = model.detector.detect(levels, (SIZE, SIZE))
        there = found.scores >= training.score
        seen.append(_sightings(model, levels, found.boxes, found_identities(found.boxes, truth), there))
    return [each for each in seen if len(each.identities) > 1]


def found_identities(boxes: Tensor, truth: Tensor) -> Tensor:
    """(T, N) int64 of boxes (T, N, 4) that were found, where (T, K, 4) are true.

    What shows nothing true is an object of its own; what hardly overlaps a true box is left out, as 0.
    """
    numbers = torch.arange(1, truth.shape[1] + 1) * (truth[..., 2] > 0)
    same, near = (match_identities(boxes, truth, numbers, iou) for iou in (_SAME, APART))
    alone = torch.arange(boxes.shape[0] * boxes.shape[1]).view_as(same) + truth.shape[1] + 1
    return torch.where(same > 0, same, torch.where(near > 0, 0, alone))


def _sightings(
    model: DenseVoc, levels: Sequence[Tensor], boxes: Tensor, identities: Tensor, there: Tensor
) -> Sightings:
    features = model.detector.pool(levels, boxes, model.config.tracking.resolution)
    return Sightings(features[there].half(), identities[there])


def train_association(
    association: Association,
    clips: Sequence[Sightings],
    training: AssociationTraining,
    report: Callable[[int, float], None] | None = None,
) -> Association:
    """Train from the weights that it has.

    Args:
        association: is changed.
        clips: what is learnt from.
        training: how.
        report: is told the number and the loss of every step.

    Returns:
        The running average, in eval mode.
    """
    average = copy.deepcopy(association).eval()
    optimizer = torch.optim.AdamW(association.parameters(), weight_decay=training.weight_decay)
    rate = LearningRate(training.rate, training.steps // 12, cosine_steps=training.steps)
    rng = np.random.default_rng(training.seed)
    generator = torch.Generator().manual_seed(training.seed)
    association.train()
    for step in range(training.steps):
        features, identities = _drawn(clips, training, rng, generator)
        for group in optimizer.param_groups:
            group["lr"] = rate(step + 1)
        loss = association_loss(association(features), identities)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(association.parameters(), training.clip)
        optimizer.step()
        follow(average, association, training.average, step + 1)
        if report is not None:
            report(step + 1, float(loss.detach()))
    return average


def _drawn(
    clips: Sequence[Sightings], training: AssociationTraining, rng: np.random.Generator, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Features (M, r * r, C) and identities (M,) of one update."""
    count = 2 if rng.random() < training.joined else 1
    parts = [clips[int(index)] for index in rng.integers(len(clips), size=count)]
    features = torch.cat([part.features for part in parts]).float()
    shift = int(parts[0].identities.max())
    others = [torch.where(part.identities > 0, part.identities + shift, 0) for part in parts[1:]]
    identities = torch.cat([parts[0].identities, *others])
    kept = torch.rand(len(identities), generator=generator) < rng.uniform(training.kept, 1.0)
    # Dropout by hand: that of torch takes no generator.
    mask = torch.rand(features.shape, generator=generator) >= training.dropout
    return (features * mask / (1 - training.dropout))[kept], identities[kept]
