"""Training of localizers from windows of features, whatever videos they are drawn from.

Every window is asked its own texts; each pair of a window and a text has the labels and losses of UnLoc (Yan et al.,
ICCV 2023). Unlike its reference this takes AdamW and keeps a running average of the weights: the models are small.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onlooker.operators.localize.unloc.model import Unloc
from onlooker.operators.localize.unloc.sampling import Sampling
from onlooker.training.averages import follow
from onlooker.training.localize_labels import LabelOptions, class_labels
from onlooker.training.localize_loss import LocalizeLoss, LocalizeLossOptions, pair_loss, segmentation_loss
from onlooker.training.localize_scenes import Window
from onlooker.training.schedules import LearningRate

__all__ = ["LocalizeRecipe", "LocalizeTrainer", "default_ranges"]

Draw = Callable[[np.random.Generator], Window]
Report = Callable[[int, LocalizeLoss], None]


@dataclass(frozen=True)
class LocalizeRecipe:
    """What decides the weights beside model and data.

    Attributes:
        seed: everything random depends on it.
        steps: updates.
        windows: per update.
        rate: learning rate by step.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        average: what is kept of the running average of the weights at each step.
        labels: which steps of the pyramid answer for a moment; None = as `default_ranges` says. A linear head has no
            such steps.
        loss: how the parts of the loss are made and weighed.
    """

    seed: int = 0
    steps: int = 2000
    windows: int = 8
    rate: LearningRate = field(default_factory=lambda: LearningRate(1e-3, warmup_steps=100))
    weight_decay: float = 0.02
    clip: float = 1.0
    average: float = 0.998
    labels: LabelOptions | None = None
    loss: LocalizeLossOptions = field(default_factory=LocalizeLossOptions)


def default_ranges(levels: int) -> tuple[tuple[float, float], ...]:
    """Regression ranges of `levels` levels, each up to twice as far as the one before; the last one has no end.

    Four of them are those of most released configurations of UnLoc.
    """
    edges = [0.0, *(4.0 * 2**level for level in range(levels - 1)), math.inf]
    return tuple(zip(edges, edges[1:], strict=False))


class _Batch(NamedTuple):
    """B windows with Q texts each, and what is true of them; N time steps of all levels."""

    features: Tensor
    """(B, T, E)."""
    lengths: Tensor
    """(B,) frames that are there."""
    texts: Tensor
    """(B * Q, E')."""
    positive: Tensor
    """(B * Q, N), 1 where a step answers for a moment of the text."""
    displacements: Tensor
    """(B * Q, N, 2)."""


class LocalizeTrainer:
    """Updates a localizer step by step; parameters that ask for no gradient stay as they are.

    Attributes:
        average: running average of the weights, in eval mode: what is worth keeping.
        step_number: updates so far.
    """

    def __init__(self, model: Unloc, recipe: LocalizeRecipe) -> None:
        """Start a run of a model that reads features of other towers.

        Raises:
            ValueError: the recipe's labels do not fit the model's levels, or the model cannot score pairs alone.
        """
        config = model.config
        if config.image is not None or config.text is not None or config.fusion.all_text_tokens:
            raise ValueError("training reads features: a model with towers, or of all tokens of a text, cannot be used")
        labels = recipe.labels or LabelOptions(default_ranges(config.fusion.levels), config.fusion.stride)
        if (labels.levels, labels.stride) != (config.fusion.levels, config.fusion.stride):
            raise ValueError(
                f"labels for {labels.levels} levels of stride {labels.stride}, but the model has "
                f"{config.fusion.levels} of stride {config.fusion.stride}"
            )
        self.model, self.recipe = model, recipe
        self.average = copy.deepcopy(model).eval()
        self._labels = labels
        trained = [weights for weights in model.parameters() if weights.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=recipe.rate(0), weight_decay=recipe.weight_decay)
        self.step_number = 0

    def run(self, draw: Draw, report: Report | None = None) -> Unloc:
        """Train to the end of the recipe.

        Args:
            draw: a random window; all have as many frames as the model's and as many texts as each other.
            report: is told the number and the loss of every step.

        Returns:
            The running average.
        """
        while self.step_number < self.recipe.steps:
            # A seed of its own for every step: a run that was interrupted goes on as if it had not been.
            rng = np.random.default_rng([self.recipe.seed, self.step_number])
            torch.manual_seed(int(rng.integers(2**31)))
            loss = self.step([draw(rng) for _ in range(self.recipe.windows)])
            if report is not None:
                report(self.step_number, loss)
        return self.average

    def step(self, windows: Sequence[Window]) -> LocalizeLoss:
        """One update."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step_number)
        self.model.train()
        loss = self.loss(self.model, windows)
        self.optimizer.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.model.eval()
        self.step_number += 1
        follow(self.average, self.model, self.recipe.average, self.step_number)
        return LocalizeLoss(*(part.detach() for part in loss))

    def loss(self, model: Unloc, windows: Sequence[Window]) -> LocalizeLoss:
        """The loss of a model of this run's configuration, the average for example."""
        batch = self._batch(windows)
        count, frames = batch.features.shape[:2]
        there = torch.arange(frames, device=batch.lengths.device) < batch.lengths[:, None]  # B, T
        video = model.project_video(batch.features) * there[..., None]
        owner = torch.arange(count, device=video.device).repeat_interleave(len(batch.texts) // count)
        mask = model.step_mask(batch.lengths)[owner]  # B * Q, N
        scored = model.score(video[owner], model.project_texts(batch.texts), mask)
        weights = mask.to(video.dtype)
        if scored.displacements is None:
            return segmentation_loss(scored.logits[..., None], batch.positive[..., None], weights, self.recipe.loss)
        return pair_loss(
            scored.logits, scored.displacements, batch.positive, batch.displacements, weights, self.recipe.loss
        )

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on from here: tensors and plain values."""
        return {
            "step": self.step_number,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state` of a run with the same model and recipe."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step_number = int(state["step"])

    def _batch(self, windows: Sequence[Window]) -> _Batch:
        device = next(self.model.parameters()).device
        positive, displacements = zip(*(self._targets(window) for window in windows), strict=True)
        return _Batch(
            torch.from_numpy(np.stack([window.features for window in windows])).to(device),
            torch.tensor([window.length for window in windows], device=device),
            torch.from_numpy(np.concatenate([window.texts for window in windows])).to(device),
            torch.from_numpy(np.concatenate(positive)).to(device),
            torch.from_numpy(np.concatenate(displacements)).to(device),
        )

    def _targets(self, window: Window) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(Q, N) and (Q, N, 2) of a window."""
        frames, queries = len(window.features), len(window.texts)
        segments = np.array([span for spans in window.moments for span in spans], np.float32).reshape(-1, 2)
        owners = np.array([number for number, spans in enumerate(window.moments) for _ in spans], np.int64)
        if self.model.config.head.kind == "linear":
            times = np.arange(frames)
            shown = np.zeros((queries, frames), np.float32)
            for (start, end), number in zip(segments, owners, strict=True):
                shown[number, (start <= times) & (times < end)] = 1
            return shown, np.zeros((queries, frames, 2), np.float32)
        # Positions are frames of the window; a moment of a short video that was spread over it may be longer.
        sampling = Sampling("random", frames, max(frames, math.ceil(segments.max(initial=0))), offset=0)
        labels = class_labels(segments, owners, queries, sampling, self._labels)
        return labels.positive.T.astype(np.float32), labels.displacements.swapaxes(0, 1)
