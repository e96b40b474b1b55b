"""How well pictures fit sentences, so that one threshold serves all sentences: the zero-shot form's score.

Cosines of a picture with two sentences cannot be compared: some sentences are near to everything. Where the tower
ships the moments of its image embeddings, a sentence's cosine is told in standard deviations from its mean over
pictures of all kinds (`operators/tower/calibration.py`). And what fits a picture no better than ordinary sentences do
is no find: a part of what the best few of them reach (`prompts.py`) is taken off.

A tower without such moments, any other CLIP, is calibrated by the ordinary sentences alone: the score is the cosine
minus their mean cosine with the same picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..packets import FloatArray
from .prompts import BACKGROUND

if TYPE_CHECKING:
    from torch import Tensor

    from ..tower import Tower

__all__ = ["Asked", "Scorer", "default_thresholds"]

# (on, off) of cosines above those of ordinary sentences. On real CLIP vectors of photographs class names are found best
# from .048 (benchmarks/clip_background.py); captions, which say more, lie higher.
_COSINE_THRESHOLDS = (0.06, 0.04)
# (on, off) in standard deviations; chosen on generated videos of the dev split by benchmarks/localization.py.
_SPREAD_THRESHOLDS = (2.4, 1.4)
_BEST = 3
"""Ordinary sentences that a query competes with."""


def default_thresholds(*, calibrated: bool) -> tuple[float, float]:
    """(on, off) of a tower that knows how its similarities are spread, or of one that does not."""
    return _SPREAD_THRESHOLDS if calibrated else _COSINE_THRESHOLDS


@dataclass(frozen=True, slots=True)
class Asked:
    """Something to look for, ready to be compared with pictures."""

    name: str
    """What the user wrote."""
    vector: FloatArray
    """(E,) float32 unit norm."""
    mean: float
    """Mean of its cosine over pictures of all kinds, or 0."""
    deviation: float
    """Its standard deviation, or 1."""


class Scorer:
    """Scores of pictures by the text side of a tower."""

    def __init__(self, tower: Tower, contrast: float) -> None:
        """Read the ordinary sentences.

        Args:
            tower: with its text side.
            contrast: part of the ordinary sentences' best scores that is taken off, for a tower with moments.
        """
        self._tower, self._contrast = tower, contrast
        self.calibrated = tower.calibration is not None
        background = self.read({text: [text] for text in BACKGROUND}) if contrast or not self.calibrated else []
        self._vectors = np.stack([one.vector for one in background]) if background else None  # K, E
        self._means = np.array([one.mean for one in background], np.float32)
        self._deviations = np.array([one.deviation for one in background], np.float32)

    def read(self, prompts: dict[str, Sequence[str]]) -> list[Asked]:
        """Encode what is asked for: by its name, the sentences whose mean direction stands for it."""
        texts = [text for sentences in prompts.values() for text in sentences]
        if not texts:
            return []
        import torch
        from torch.nn.functional import normalize

        encoded = normalize(self._tower.encode_texts(texts), dim=-1)
        parts = torch.split(encoded, [len(sentences) for sentences in prompts.values()])
        vectors = torch.stack([part[0] if len(part) == 1 else normalize(part.mean(0), dim=-1) for part in parts])
        return self._asked(list(prompts), vectors)

    def _asked(self, names: Sequence[str], vectors: Tensor) -> list[Asked]:
        means, deviations = vectors.new_zeros(len(names)), vectors.new_ones(len(names))
        if self._tower.calibration is not None:
            means, deviations = self._tower.calibration.score_moments(vectors)
        return [
            Asked(name, vector.numpy(), float(mean), float(deviation))
            for name, vector, mean, deviation in zip(names, vectors, means, deviations, strict=True)
        ]

    def __call__(self, features: FloatArray, asked: Sequence[Asked]) -> list[float]:
        """Score one picture, (E,) raw features, for each of the queries."""
        picture = features / max(float(np.linalg.norm(features)), 1e-12)
        level = self._level(picture)
        return [(float(one.vector @ picture) - one.mean) / one.deviation - level for one in asked]

    def _level(self, picture: FloatArray) -> float:
        """What ordinary sentences reach."""
        if self._vectors is None:
            return 0.0
        scores = (self._vectors @ picture - self._means) / self._deviations  # (K,)
        if not self.calibrated:
            return float(scores.mean())
        return self._contrast * float(np.sort(scores)[-_BEST:].mean())
