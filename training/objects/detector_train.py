"""Training of a detector on a trunk's maps together with the association on its pyramid.

The disjoint recipe of Zhou et al., "Dense Video Object Captioning from Disjoint Supervision" (2023), in so far as it
finds and follows: pictures with boxes teach the detector, pseudo-video with identities teaches the association, both in
one step, on one pyramid. total = detection + track weight * association.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from onlooker.operators.objects.densevoc.boxes import best_match, clip_boxes
from onlooker.operators.objects.densevoc.model import DenseVoc
from onlooker.training.averages import follow
from onlooker.training.schedules import LearningRate

from .association_loss import association_loss
from .detection_loss import DetectionLossOptions, detection_loss
from .detector_data import SIZE, Batch, ViewCache

__all__ = ["APART", "ObjectsLoss", "ObjectsTrainer", "ObjectsTraining", "Sighted", "sighted"]

APART = 0.3
"""Overlap below which a box shows something else than the true one."""
_SIZE = (SIZE, SIZE)


@dataclass(frozen=True)
class ObjectsTraining:
    """How a model is trained.

    Attributes:
        seed: everything random depends on it.
        steps: updates.
        pictures: with boxes, per update.
        frames: T of a clip; there is one clip in an update.
        clip_every: updates from one with a clip to the next; 0 = none has one, the association does not learn.
        rate: learning rate by step.
        association_rate: the association's, as a share of it: its tokens are multiplied by each other, with no norm.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        average: what is kept of the running average of the weights at each step.
        track_weight: of the association's loss.
        strangers: boxes of a frame that show no object of the clip.
        jitter: how far boxes of a clip are off, as a share of their sides: detections are not exact either.
        loss: the detector's.
    """

    seed: int = 0
    steps: int = 2000
    pictures: int = 16
    frames: int = 16
    clip_every: int = 2
    rate: LearningRate = field(default_factory=lambda: LearningRate(2e-3, 100, cosine_steps=2000))
    association_rate: float = 0.15
    weight_decay: float = 0.02
    clip: float = 5.0
    average: float = 0.997
    track_weight: float = 1.0
    strangers: int = 2
    jitter: float = 0.1
    loss: DetectionLossOptions = field(default_factory=lambda: DetectionLossOptions(regions=48, positive_fraction=0.35))


class ObjectsLoss(NamedTuple):
    """Parts of the loss of one update; `track` is 0 without a clip."""

    total: Tensor
    proposals: Tensor
    regions: Tensor
    track: Tensor


class Sighted(NamedTuple):
    """Boxes of a clip as a detector might have found them.

    Attributes:
        boxes: (T, N, 4) in pixels, zeros fill up.
        identities: (T, N) int64; 0 for what is left out of the loss. Strangers have one each.
    """

    boxes: Tensor
    identities: Tensor


class ObjectsTrainer:
    """Updates a model step by step; parameters that ask for no gradient stay as they are.

    Attributes:
        average: running average of the weights, in eval mode: what is worth keeping.
        step_number: updates so far.
    """

    def __init__(self, model: DenseVoc, training: ObjectsTraining) -> None:
        """Start a run of a model that reads a trunk's maps.

        Raises:
            ValueError: the model has a backbone of its own.
        """
        if model.trunk is None:
            raise ValueError("this training reads a trunk's maps: the model needs a pyramid for them")
        self.model, self.training = model.to(memory_format=torch.channels_last), training
        self.average = copy.deepcopy(model).eval()
        self.optimizer = torch.optim.AdamW(_groups(model, training), weight_decay=training.weight_decay)
        self.step_number = 0

    def run(
        self, views: ViewCache, clips: ViewCache, report: Callable[[int, ObjectsLoss], None] | None = None
    ) -> DenseVoc:
        """Train to the end of the recipe.

        Args:
            views: pictures with boxes.
            clips: frames of pseudo-video, T of one clip after another.
            report: is told the number and the loss of every step.

        Returns:
            The running average.
        """
        training = self.training
        while self.step_number < training.steps:
            # A seed of its own for every step: a run that was interrupted goes on as if it had not been.
            rng = np.random.default_rng([training.seed, self.step_number])
            clip = None
            with_clip = training.clip_every > 0 and self.step_number % training.clip_every == 0
            if with_clip and self.model.association is not None:
                first = int(rng.integers(int(clips.done.sum()) // training.frames)) * training.frames
                clip = clips.read(np.arange(first, first + training.frames))
            rows = rng.choice(int(views.done.sum()), training.pictures, replace=False)
            loss = self.step(views.read(np.sort(rows)), clip, torch.Generator().manual_seed(int(rng.integers(2**31))))
            if report is not None:
                report(self.step_number, loss)
        return self.average

    def step(
        self,
        pictures: Batch,
        clip: Batch | None,
        generator: torch.Generator,
    ) -> ObjectsLoss:
        """One update on maps and boxes of pictures and, if there is one, of a clip."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * self.training.rate(self.step_number + 1)
        self.model.train()
        loss = self.loss(self.model, pictures, clip, generator)
        self.optimizer.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip)
        self.optimizer.step()
        self.model.eval()
        self.step_number += 1
        follow(self.average, self.model, self.training.average, self.step_number)
        return ObjectsLoss(*(part.detach() for part in loss))

    def loss(
        self,
        model: DenseVoc,
        pictures: Batch,
        clip: Batch | None,
        generator: torch.Generator,
    ) -> ObjectsLoss:
        """The losses of an update."""
        found = detection_loss(
            model.detector,
            model.levels(pictures.maps),
            _SIZE,
            pictures.boxes,
            beliefs=pictures.beliefs,
            options=self.training.loss,
            generator=generator,
        )
        regions = torch.stack([part.classes + part.boxes for part in found.regions]).mean()
        track = found.total.new_zeros(())
        if clip is not None:
            track = self.training.track_weight * self.track_loss(model, clip.maps, clip.boxes, generator)
        return ObjectsLoss(found.total + track, found.total - regions, regions, track)

    def track_loss(
        self, model: DenseVoc, maps: tuple[Tensor, ...], truth: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The association's loss on a clip whose k-th box (T, K, 4) is the k-th object in every frame."""
        assert model.association is not None
        seen = sighted(truth, self.training.strangers, self.training.jitter, generator)
        features = model.detector.pool(model.levels(maps), seen.boxes, model.config.tracking.resolution)
        there = seen.boxes[..., 2] > 0
        return association_loss(model.association(features[there]), seen.identities[there])

    def state(self) -> dict[str, Any]:
        """Everything that a run needs to go on."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step_number,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step_number = int(state["step"])


def _groups(model: DenseVoc, training: ObjectsTraining) -> list[dict[str, Any]]:
    """What is trained, by its share of the learning rate."""
    fast: list[Tensor] = []
    slow: list[Tensor] = []
    for name, weights in model.named_parameters():
        if weights.requires_grad:
            (slow if name.startswith("association.") else fast).append(weights)
    parts = ((1.0, fast), (training.association_rate, slow))
    return [{"params": part, "lr": 0.0, "share": share} for share, part in parts if part]


def sighted(truth: Tensor, strangers: int, jitter: float, generator: torch.Generator) -> Sighted:
    """What a detector might see of a clip: the true boxes (T, K, 4), not exactly, and some of other things.

    Args:
        truth: in pixels, the k-th is the same object in every frame; zeros where it is not seen.
        strangers: boxes a frame of something else. Each is an object of its own, or left out of the loss if it
            overlaps a true one by so much that it may be called the same.
        jitter: standard deviation of the edges, in sides of the box.
        generator: of all that is random.
    """
    frames, count = truth.shape[:2]
    seen = truth[..., 2] > truth[..., 0]
    sides = (truth[..., 2:] - truth[..., :2]).repeat(1, 1, 2)
    boxes = clip_boxes(truth + jitter * sides * torch.randn(truth.shape, generator=generator), SIZE, SIZE)
    seen &= (boxes[..., 2:] > boxes[..., :2]).all(-1)
    identities = torch.arange(1, count + 1).expand(frames, -1)
    extent = SIZE * (0.1 + 0.4 * torch.rand(frames, strangers, 2, generator=generator))
    corner = (SIZE - extent) * torch.rand(frames, strangers, 2, generator=generator)
    others = torch.cat([corner, corner + extent], -1)
    alone = torch.arange(count + 1, count + 1 + frames * strangers).view(frames, strangers)
    alone = torch.where(best_match(truth, others).iou < APART, alone, 0)
    return Sighted(torch.cat([boxes * seen[..., None], others], 1), torch.cat([identities * seen, alone], 1))
