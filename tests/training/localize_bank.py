"""A bank of features for tests: photographs are random directions, captions stand near theirs."""

from __future__ import annotations

import numpy as np

from onlooker.training.localize_scenes import Bank

CLASSES = ("dog", "person", "sheep")


def small_bank(photographs: int = 60, width: int = 24, seed: int = 0) -> Bank:
    """P photographs in 3 views with 2 captions; a third of them shows each of the classes, of which one is unknown."""
    rng = np.random.default_rng(seed)
    kinds = rng.standard_normal((3, width))
    own = kinds[np.arange(photographs) % 3] + rng.standard_normal((photographs, width))
    images = own[:, None] + 0.2 * rng.standard_normal((photographs, 3, width))
    captions = own[:, None] + 0.4 * rng.standard_normal((photographs, 2, width))
    shows = (np.arange(photographs)[:, None] % 3 == np.arange(3)).astype(np.int8)
    shows[0, 1] = -1
    texts = np.repeat(kinds[:, None], 2, axis=1)
    arrays = (array.astype(np.float32) for array in (images, captions, texts))
    views, sentences, names = arrays
    return Bank.build(views, sentences, CLASSES, names, shows)
