"""Which similarity is high for a query: the distribution of scores over ordinary photographs.

A cosine of .2 is a clear match for one sentence and noise for another. Over unit image embeddings v with mean m
and covariance S, the score v.t of a unit text embedding t has mean m.t and variance t'St, whatever t is; so two
small arrays measured once turn every query's score into a z-score without any example of the query.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from onlooker.operators.model_folder import save_weights


@dataclass(frozen=True)
class Calibration:
    """Moments of unit image embeddings over a reference set: ``mean`` (E,), ``covariance`` (E, E), float32."""

    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        """Check the shapes."""
        width = self.mean.shape[-1]
        if self.mean.ndim != 1 or self.covariance.shape != (width, width):
            raise ValueError(
                f"calibration needs mean (E,) and covariance (E, E), got {tuple(self.mean.shape)} "
                f"and {tuple(self.covariance.shape)}"
            )

    @classmethod
    def measure(cls, embeddings: Tensor) -> Calibration:
        """Return the moments of unit embeddings (N, E)."""
        rows = embeddings.to(torch.float64)
        mean = rows.mean(0)
        centred = rows - mean
        return cls(mean.float(), (centred.T @ centred / len(rows)).float())

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a calibration written by :meth:`save`."""
        arrays = load_file(path)
        return cls(arrays["mean"].float(), arrays["covariance"].float())

    def save(self, path: Path) -> None:
        """Write the moments as float32 safetensors."""
        save_weights({"mean": self.mean, "covariance": self.covariance}, path)

    def score_moments(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (Q,) and standard deviation (Q,) of the scores of unit text embeddings (Q, E)."""
        deviation = torch.einsum("qe,ef,qf->q", texts, self.covariance, texts).clamp_min(1e-12).sqrt()
        return texts @ self.mean, deviation

    def standardise(self, scores: Tensor, texts: Tensor) -> Tensor:
        """Turn scores (..., Q) of unit text embeddings (Q, E) into z-scores of the same shape."""
        mean, deviation = self.score_moments(texts)
        return (scores - mean) / deviation
