"""Videos of captioned photographs as a tower sees them, drawn from cached tokens: a dense task without any video.

Photographs are shown one after the other, each for a random time. In a share of the cuts both are seen for a while,
side by side: their events overlap. Truth is exact, and a video costs no more than reading its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onlooker.operators.caption.wordpiece import WordPiece
from onlooker.training.captions import Split
from onlooker.training.dvc import TokenVideo
from onlooker.training.dvc_targets import AnnotatedVideo
from onlooker.training.memories import shots


@dataclass(frozen=True)
class SceneRecipe:
    """How videos are drawn.

    Attributes:
        frames: T, frames of a video.
        seconds: media time from frame to frame.
        scene: fewest and most frames of a photograph.
        overlap_share: share of the cuts at which both photographs are seen side by side.
        overlap: most frames of such a time.
        noise: standard deviation of the relative disturbance of every value of a frame.
    """

    frames: int = 32
    seconds: float = 1.0
    scene: tuple[int, int] = (5, 14)
    overlap_share: float = 0.25
    overlap: int = 4
    noise: float = 0.1

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.scene[0] <= self.scene[1] or self.scene[0] <= self.overlap:
            raise ValueError(f"scenes of {self.scene} frames must be longer than the overlap of {self.overlap}")


class SceneVideos:
    """Draws videos of the photographs of a split."""

    def __init__(self, split: Split, vocabulary: WordPiece, recipe: SceneRecipe) -> None:
        """Encode all captions once."""
        self.split, self.recipe = split, recipe
        self.captions = [[vocabulary.encode(text) for text in texts] for texts in split.captions]

    def __call__(self, rng: np.random.Generator, count: int) -> list[TokenVideo]:
        """As many random videos."""
        return [self.draw(rng)[0] for _ in range(count)]

    def draw(self, rng: np.random.Generator) -> tuple[TokenVideo, list[int]]:
        """A video, and the numbers of its photographs in the order of its events."""
        spans = self._spans(rng)
        photographs = rng.choice(len(self.captions), len(spans), replace=False).tolist()
        tokens: Tensor | None = None
        for (start, end), photograph in zip(spans, photographs, strict=True):
            shown = torch.stack(
                shots(rng, self.split.tokens, self.split.done, photograph, end - start, self.recipe.noise)
            )  # t, N, D
            if tokens is None:
                tokens = shown.new_zeros(self.recipe.frames, *shown.shape[1:])
                seen = 0
            _show(tokens, shown, start, seen)
            seen = end
        assert tokens is not None
        unit = round(self.recipe.seconds * 1e6)
        times = np.array(spans, np.int64) * unit
        captions = [self.captions[p][rng.integers(len(self.captions[p]))] for p in photographs]
        return TokenVideo(
            tokens, AnnotatedVideo(times[:, 0], times[:, 1], self.recipe.frames * unit, captions)
        ), photographs

    def _spans(self, rng: np.random.Generator) -> list[tuple[int, int]]:
        """First frame of each photograph, and the one after its last; the last photograph fills the video."""
        low, high = self.recipe.scene
        spans: list[tuple[int, int]] = []
        start = 0
        while True:
            end = start + int(rng.integers(low, high + 1))
            if self.recipe.frames - end < low:
                return [*spans, (start, self.recipe.frames)]
            spans.append((start, end))
            both = rng.random() < self.recipe.overlap_share
            start = end - int(rng.integers(1, self.recipe.overlap + 1)) if both and self.recipe.overlap else end


def _show(tokens: Tensor, shown: Tensor, start: int, seen: int) -> None:
    """Write frames (t, N, D) from frame `start`; where another photograph is `seen`, they take the right half."""
    both = max(0, seen - start)
    side = round(shown.shape[1] ** 0.5)
    right = torch.arange(shown.shape[1]) % side >= side // 2  # N; rows of a square grid follow each other
    tokens[start : start + both, right] = shown[:both, right]
    tokens[start + both : start + len(shown)] = shown[both:]
