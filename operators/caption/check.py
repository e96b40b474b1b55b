"""A second opinion on captions: how near their text is to the pictures, by the tower that saw them.

The decoder alone leans to what is often said. The tower was trained to tell pictures apart, so among the texts that a
search proposes it knows better which one is about this picture and not about any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..packets import FloatArray

if TYPE_CHECKING:
    from ..tower import Tower

DEFAULT_WEIGHT = 128.0
"""Cosine against search score (log-probability over brevity penalty); chosen on generated videos of Flickr8k dev.

More changes little.
"""


def nearness(tower: Tower, texts: Sequence[str], features: FloatArray, batch: int, weight: float) -> list[float]:
    """Weighted cosine of each text and the features (E,) of a picture, or the median over several.

    Args:
        tower: the tower that made the features, with its text side.
        texts: what the search proposes.
        features: raw features, not normalised.
        batch: texts in one call; results depend on it in the last bits, so keep it fixed.
        weight: factor of the cosines.
    """
    vectors = tower.encode_texts(list(texts), batch=batch).numpy()  # n, E
    cosines = vectors @ features / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(features))
    return [weight * cosine for cosine in cosines.tolist()]
