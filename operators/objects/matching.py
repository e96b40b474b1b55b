"""Which detections show the same object: an association model for streams, from arrays to arrays."""

from __future__ import annotations

import math

import numpy as np
import torch

from ..errors import OnlookerError
from ..packets import FloatArray
from .densevoc.association import Association
from .densevoc.load import load_object_model

__all__ = ["Matcher", "load_matcher"]

# Of the mean over both directions and a few views, where a model's own threshold is of single scores in a whole clip.
# By HOTA and IDF1 on generated videos of Flickr8k dev, with the embedded model.
_THRESHOLD = 0.1
_BIRTH_SCORE = 0.7


class Matcher:
    """An association on a device."""

    def __init__(
        self, association: Association, threshold: float = _THRESHOLD, birth_score: float = _BIRTH_SCORE
    ) -> None:
        """Take a loaded model.

        Args:
            association: the model.
            threshold: lowest score with which a track goes on.
            birth_score: sum of scores of detections with which they are believed to be an object.
        """
        self._association = association
        self.threshold = threshold
        self.birth_score = birth_score

    def embed(self, features: FloatArray) -> FloatArray:
        """Tokens (N, width) of RoI features (N, R, C).

        Raises:
            OnlookerError: features of another size than the model was trained on.
        """
        config = self._association.config
        size = features.shape[1] * features.shape[2]
        if size != config.feature_size:
            raise OnlookerError(
                f"features of detections have {size} numbers, but this tracker reads {config.feature_size}: give "
                "object_detector and object_tracker the same model."
            )
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


def load_matcher(name_or_folder: str, device: str) -> Matcher:
    """The association of an object model, whose folder may say `online_threshold` and `birth_score` of its own.

    Raises:
        OnlookerError: there is no such model, it has none, or its folder holds wrong settings.
    """
    loaded = load_object_model(name_or_folder, device)
    if loaded.model.association is None:
        raise OnlookerError(f"object model {name_or_folder!r} follows nothing: it was saved without an association.")
    given = {"online_threshold": _THRESHOLD, "birth_score": _BIRTH_SCORE}
    for name in given:
        value = loaded.settings.get(name, given[name])
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise OnlookerError(
                f"object model {name_or_folder!r}: its {name} should be a number above 0, not {value!r}."
            )
        given[name] = float(value)
    return Matcher(loaded.model.association, given["online_threshold"], given["birth_score"])
