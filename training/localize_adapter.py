"""Fits the similarity of a localizer to photographs, captions and names of classes, before its fusion is trained.

The adapters learn to find the caption of a photograph among those of a batch and the other way round (InfoNCE, as CLIP
does), and which classes it shows (binary cross entropy). Photographs are drawn as `SceneWindows` shows them: mixed with
what resembles them, or the tower's own knowledge of its training photographs would leave nothing to learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onlooker.operators.localize.unloc.similarity import Adapter, Similarity
from onlooker.training.localize_scenes import Bank

__all__ = ["AdapterRecipe", "fit_adapters"]


@dataclass(frozen=True)
class AdapterRecipe:
    """How to train.

    Attributes:
        seed: everything random depends on it.
        steps: updates.
        batch: photographs a step.
        rate: peak learning rate, after a warm-up of 20 steps; it falls along half a cosine.
        weight_decay: of AdamW.
        dropout: of features and of what comes out.
        blur: least and largest weight of the photograph that each one is mixed with.
        classes: weight of the loss of classes.
    """

    seed: int = 0
    steps: int = 1200
    batch: int = 500
    rate: float = 1e-3
    weight_decay: float = 0.05
    dropout: float = 0.1
    blur: tuple[float, float] = (0.3, 0.9)
    classes: float = 0.3


def fit_adapters(
    similarity: Similarity,
    bank: Bank,
    recipe: AdapterRecipe | None = None,
    report: Callable[[int, float], None] | None = None,
) -> None:
    """Train the adapters, calibrate the similarity on what they make of the photographs, and freeze them.

    Args:
        similarity: with adapters; changed in place.
        bank: of the training split.
        recipe: how.
        report: is told the number and the loss of every step.

    Raises:
        ValueError: the similarity has no adapters.
    """
    recipe = recipe or AdapterRecipe()
    if similarity.frame_adapter is None or similarity.text_adapter is None:
        raise ValueError("this model's similarity has no adapters to fit: set `adapter` in its configuration")
    photographs = _Photographs(bank, recipe)
    fitting = _Fitting(similarity.frame_adapter, similarity.text_adapter, recipe.dropout)
    optimizer = torch.optim.AdamW(fitting.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    generator = np.random.default_rng([recipe.seed, 1])
    torch.manual_seed(recipe.seed)
    fitting.train()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            falling = (1 + math.cos(math.pi * step / recipe.steps)) / 2
            group["lr"] = recipe.rate * min(1.0, (step + 1) / 20) * falling
        loss = fitting.loss(*photographs.draw(generator), photographs.class_texts(generator), recipe.classes)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if report is not None:
            report(step + 1, float(loss.detach()))
    for adapter in (similarity.frame_adapter, similarity.text_adapter):
        adapter.eval().requires_grad_(False)
    everything = torch.arange(len(bank.images))
    similarity.calibrate(torch.cat([photographs.looks(everything, generator) for _ in range(bank.images.shape[1])]))


class _Photographs:
    """Draws batches of a bank."""

    def __init__(self, bank: Bank, recipe: AdapterRecipe) -> None:
        self.recipe = recipe
        self._images, self._captions = torch.from_numpy(bank.images), torch.from_numpy(bank.captions)
        self._means = self._images.mean(1)
        self._near = torch.from_numpy(bank.near)
        self._classes, self._shows = torch.from_numpy(bank.class_texts), torch.from_numpy(bank.shows)

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, E), a caption of each (B, E), and which classes they show (B, C), -1 where nobody knows."""
        batch = min(self.recipe.batch, len(self._images))
        chosen = torch.from_numpy(rng.choice(len(self._images), batch, replace=False))
        captions = self._captions[chosen, torch.from_numpy(rng.integers(0, self._captions.shape[1], batch))]
        return self.looks(chosen, rng), captions, self._shows[chosen]

    def looks(self, chosen: Tensor, rng: np.random.Generator) -> Tensor:
        """Raw features (B, E) between the views of photographs, each mixed with one that resembles it."""
        batch, views = len(chosen), self._images.shape[1]
        shares = torch.from_numpy(rng.dirichlet(np.full(views, 0.3), batch).astype(np.float32))
        own = (self._images[chosen] * shares[..., None]).sum(1)
        others = self._near[chosen, torch.from_numpy(rng.integers(0, self._near.shape[1], batch))]
        blur = torch.from_numpy(rng.uniform(*self.recipe.blur, (batch, 1)).astype(np.float32))
        return own + blur * (self._means[others] - self._means[chosen])

    def class_texts(self, rng: np.random.Generator) -> Tensor:
        """All classes (C, E), in one of their templates."""
        return self._classes[:, int(rng.integers(self._classes.shape[1]))]


class _Fitting(nn.Module):
    """The adapters with what only their training needs: a temperature, and scale and shift for classes."""

    def __init__(self, frames: Adapter, texts: Adapter, dropout: float) -> None:
        super().__init__()
        self.frames, self.texts = frames, texts
        self.drop = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.tensor(math.log(15.0)))
        self.of_class = nn.Parameter(torch.tensor([12.0, -3.0]))

    def loss(self, images: Tensor, captions: Tensor, shows: Tensor, classes: Tensor, class_weight: float) -> Tensor:
        """InfoNCE of images and captions (B, E), and cross entropy of their classes (B, C)."""
        seen, said = self.frames(self.drop(images)), self.texts(self.drop(captions))
        logits = self.scale.exp() * seen @ said.T
        own = torch.arange(len(images))
        pairs = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        there = self.of_class[0] * seen @ self.texts(self.drop(classes)).T + self.of_class[1]
        wrong = F.binary_cross_entropy_with_logits(there, (shows == 1).to(there.dtype), reduction="none")
        return pairs + class_weight * (wrong * (shows >= 0)).sum(1).mean()
