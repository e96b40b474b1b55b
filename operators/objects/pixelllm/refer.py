"""PixelLLM as what finds things in pictures by words (`objects.finding`): the box is its own, the score the tower's.

The model says where a thing would be, whether it is there or not. So its box is cut out and compared with the words as
`CropReferrer` does with the objects of a detector, and the score means the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from onlooker.operators.localize.class_lists import query_prompts
from onlooker.operators.localize.scoring import Scorer
from onlooker.operators.objects.cutouts import cut_out
from onlooker.operators.objects.finding import RGB, Place

from .finder import Finder, load_finder, tower_features

if TYPE_CHECKING:
    from onlooker.operators.tower import Tower

_MARGINS = (0.0, 0.25)
"""Parts of a box's sides that are added around it, as for the objects of a detector."""
_CONTRAST = 0.25
_THRESHOLD, _COSINE_THRESHOLD = 0.6, 0.03
"""On dev photographs 64 % of what is there score above it, and 11 % of boxes given for nouns that are not there."""


class PixelReferrer:
    """One place for each expression; it reads the whole expression, so "on the left" counts."""

    def __init__(self, finder: Finder, tower: Tower, threshold: float) -> None:
        """Take a finder, its tower with both sides, and the score from which a place is a find."""
        self.threshold = threshold
        self._finder, self._tower = finder, tower
        self._scorer = Scorer(tower, _CONTRAST)

    def refer(self, picture: RGB, words: str) -> list[Place]:
        """The place in a picture (H, W, 3) that fits the words, also below the threshold; none without an extent."""
        seen = self._tower.encode_frames(self._tower.preprocess([picture]), batch=1, maps=True)
        features = tower_features(seen.tokens, seen.maps[-2])
        x0, y0, x1, y1 = self._finder.find(features, [words])[0, 0].tolist()
        if x1 <= x0 or y1 <= y0:
            return []
        box = (x0, y0, x1, y1)
        [asked] = self._scorer.read({words: query_prompts(words)})
        pieces = [cut_out(picture, box, margin) for margin in _MARGINS]
        looks = self._tower.encode_frames(self._tower.preprocess(pieces), batch=len(pieces)).features
        mean = torch.nn.functional.normalize(looks, dim=-1).mean(0)
        return [Place(box, self._scorer(mean.numpy(), [asked])[0])]


def load_pixel_referrer(model: str = "tiny", device: str = "cpu") -> PixelReferrer:
    """A referrer out of a PixelLLM and the tower that it reads.

    Raises:
        OnlookerError: there is no such model or tower.
    """
    from onlooker.operators.tower import load_tower

    finder, name = load_finder(model, device)
    tower = load_tower(name, None, "both", device)
    return PixelReferrer(finder, tower, _THRESHOLD if tower.calibration is not None else _COSINE_THRESHOLD)
