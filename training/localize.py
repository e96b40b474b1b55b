"""Training of localizers: pairs of a video and a text, or windows of frames and classes, from features of a tower.

Every update draws videos and texts and says which of them meet: a text is scored against its own video and against
others that do not show it, as UnLoc's reference does over a whole batch (Yan et al., ICCV 2023). What is kept is a
running average of the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onlooker.operators.localize.unloc.model import Unloc
from onlooker.operators.localize.unloc.sampling import Sampling
from onlooker.training.averages import follow
from onlooker.training.localize_labels import BASE_RANGES, LabelOptions, class_labels
from onlooker.training.localize_loss import LocalizeLoss, LocalizeLossOptions, pair_loss, segmentation_loss
from onlooker.training.localize_scenes import Window
from onlooker.training.schedules import LearningRate

__all__ = ["LocalizeRecipe", "LocalizeTrainer", "PairBatch", "pair_batch"]


@dataclass(frozen=True)
class PairBatch:
    """B videos, n texts, and P pairs of them.

    Attributes:
        features: (B, T, video_width) float32, zero where there is no frame.
        lengths: (B,) int64 frames that are there; they come first.
        texts: (n, text_width) float32.
        video, text: (P,) int64 members of each pair.
        positive: (P, N) float32, 1 where a step belongs to a moment of the pair's text.
        targets: (P, N, 2) float32, distance to its start and end in strides of the level; zero for a linear head.
    """

    features: Tensor
    lengths: Tensor
    texts: Tensor
    video: Tensor
    text: Tensor
    positive: Tensor
    targets: Tensor


@dataclass(frozen=True)
class LocalizeRecipe:
    """What decides the weights beside model and data.

    Attributes:
        seed: everything random depends on it.
        steps: updates.
        rate: learning rate by step.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        average: share of the running average of the weights that stays per step.
        loss: how it is made; a linear head has its own.
    """

    seed: int = 0
    steps: int = 1900
    rate: LearningRate = field(default_factory=lambda: LearningRate(1.5e-3, 100, cosine_steps=1900))
    weight_decay: float = 0.02
    clip: float = 1.0
    average: float = 0.998
    loss: LocalizeLossOptions = field(default_factory=LocalizeLossOptions)


class LocalizeTrainer:
    """Updates a localizer step by step; parameters that ask for no gradient stay as they are.

    Attributes:
        average: the running average, in eval mode: what is worth keeping.
        step_number: updates so far.
    """

    def __init__(self, model: Unloc, recipe: LocalizeRecipe) -> None:
        """Start a run."""
        self.model, self.recipe = model, recipe
        self.average = copy.deepcopy(model).eval()
        trained = [weights for weights in model.parameters() if weights.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=recipe.rate(0), weight_decay=recipe.weight_decay)
        self.step_number = 0

    def run(
        self,
        draw: Callable[[np.random.Generator], PairBatch],
        report: Callable[[int, LocalizeLoss], None] | None = None,
    ) -> Unloc:
        """Train to the end of the recipe.

        Args:
            draw: gives the batch of a step.
            report: is told the number and the loss of every step.

        Returns:
            The running average.
        """
        while self.step_number < self.recipe.steps:
            # A seed of its own for every step: a run that was interrupted can go on as if it had not been.
            rng = np.random.default_rng([self.recipe.seed, self.step_number])
            torch.manual_seed(int(rng.integers(2**31)))
            loss = self.step(draw(rng))
            if report is not None:
                report(self.step_number, loss)
        return self.average

    def step(self, batch: PairBatch) -> LocalizeLoss:
        """One update."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step_number)
        self.model.train()
        loss = self.loss(self.model, batch)
        self.optimizer.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.model.eval()
        self.step_number += 1
        follow(self.average, self.model, self.recipe.average, self.step_number)
        return LocalizeLoss(*(part.detach() for part in loss))

    def loss(self, model: Unloc, batch: PairBatch) -> LocalizeLoss:
        """The loss of a batch."""
        there = torch.arange(batch.features.shape[1]) < batch.lengths[:, None]  # B, T
        video = model.project_video(batch.features) * there[..., None]
        texts = model.project_texts(batch.texts)
        mask = model.step_mask(batch.lengths)[batch.video]  # P, N
        scored = model.score(video[batch.video], texts[batch.text], mask)
        weights = mask.float()
        if scored.displacements is None:
            labels = batch.positive[..., None]
            return segmentation_loss(scored.logits[..., None], labels, weights, self.recipe.loss)
        return pair_loss(scored.logits, scored.displacements, batch.positive, batch.targets, weights, self.recipe.loss)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run needs to go on."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step_number,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step_number = int(state["step"])


def pair_batch(windows: Sequence[Window], levels: int | None, stride: int = 2) -> PairBatch:
    """Windows that were drawn, each with its own queries.

    Args:
        windows: of the same T and E.
        levels: of the model's pyramid, with the regression ranges of the paper; None for a linear head.
        stride: of the pyramid.
    """
    labels = [_labels(window, spans, levels, stride) for window in windows for spans in window.moments]
    counts = torch.tensor([len(window.texts) for window in windows])
    return PairBatch(
        features=torch.from_numpy(np.stack([window.features for window in windows])),
        lengths=torch.tensor([window.length for window in windows]),
        texts=torch.from_numpy(np.concatenate([window.texts for window in windows])),
        video=torch.arange(len(windows)).repeat_interleave(counts),
        text=torch.arange(int(counts.sum())),
        positive=torch.from_numpy(np.stack([positive for positive, _ in labels])),
        targets=torch.from_numpy(np.stack([targets for _, targets in labels])),
    )


def _labels(
    window: Window, spans: Sequence[tuple[float, float]], levels: int | None, stride: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(N,) and (N, 2) of one query."""
    frames = len(window.features)
    if levels is None:
        times = np.arange(frames)
        inside = [(times >= start) & (times < end) for start, end in spans]
        there = np.logical_or.reduce(inside) if inside else np.zeros(frames, bool)
        return there.astype(np.float32), np.zeros((frames, 2), np.float32)
    ranges = (*BASE_RANGES[: levels - 1], (BASE_RANGES[levels - 1][0], np.inf))
    sampling = Sampling("random", frames, frames, offset=0)
    options = LabelOptions(ranges, stride)
    positive, targets = class_labels(np.reshape(spans, (-1, 2)), [0] * len(spans), 1, sampling, options)
    return positive[:, 0].astype(np.float32), np.where(positive[..., None], targets, 0)[:, 0].astype(np.float32)
