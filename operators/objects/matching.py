"""Which detections show the same object: an association model for streams, from arrays to arrays."""

from __future__ import annotations

import numpy as np
import torch

from ..packets import FloatArray
from .densevoc.association import Association

__all__ = ["Matcher"]


class Matcher:
    """An association on a device."""

    def __init__(self, association: Association, threshold: float) -> None:
        """Take a loaded model and the lowest of its scores that makes two detections one object."""
        self._association = association.eval().requires_grad_(False)
        self.threshold = threshold

    def embed(self, features: FloatArray) -> FloatArray:
        """Tokens (N, width) of RoI features (N, R, C).

        Raises:
            ValueError: features of another size than the model was trained on.
        """
        config = self._association.config
        size = features.shape[1] * features.shape[2]
        if size != config.feature_size:
            raise ValueError(f"this association takes features of {config.feature_size} numbers, not of {size}")
        with torch.inference_mode():
            tokens: FloatArray = self._association.embed(self._tensor(features)).cpu().numpy()
        return tokens

    def relate(self, tokens: FloatArray) -> FloatArray:
        """Scores (M, M) of tokens (M, width): how likely row and column are the same object."""
        with torch.inference_mode():
            scores: FloatArray = self._association.relate(self._tensor(tokens)).sigmoid().cpu().numpy()
        return scores

    def _tensor(self, array: FloatArray) -> torch.Tensor:
        # A copy: packets are read-only and torch has no read-only tensors.
        return torch.from_numpy(np.array(array, np.float32)).to(self._association.fc1.weight.device)
