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
        cut_share: share of the videos that are cut out of a longer one, as what a memory sees of a stream: their first
            photograph may have been in view before, their last one is still in view at the end and is no event yet.
        noise: standard deviation of the relative disturbance of every value of a frame.
    """

    frames: int = 32
    seconds: float = 1.0
    scene: tuple[int, int] = (5, 14)
    overlap_share: float = 0.25
    overlap: int = 4
    cut_share: float = 0.0
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
            inside = min(end, self.recipe.frames)
            shown = torch.stack(
                shots(rng, self.split.tokens, self.split.done, photograph, inside - start, self.recipe.noise)
            )  # t, N, D
            if tokens is None:
                tokens = shown.new_zeros(self.recipe.frames, *shown.shape[1:])
                seen = 0
            _show(tokens, shown, start, seen)
            seen = inside
        assert tokens is not None
        over = [number for number, (_, end) in enumerate(spans) if end <= self.recipe.frames]
        unit = round(self.recipe.seconds * 1e6)
        times = np.array([spans[number] for number in over], np.int64).reshape(-1, 2) * unit
        photographs = [photographs[number] for number in over]
        captions = [self.captions[p][rng.integers(len(self.captions[p]))] for p in photographs]
        return TokenVideo(
            tokens, AnnotatedVideo(times[:, 0], times[:, 1], self.recipe.frames * unit, captions)
        ), photographs

    def _spans(self, rng: np.random.Generator) -> list[tuple[int, int]]:
        """First frame of each photograph in the video, and the one after its last.

        The last photograph fills the video or, in one that was cut out, may end behind it.
        """
        low, high = self.recipe.scene
        cut = self.recipe.cut_share > 0 and bool(rng.random() < self.recipe.cut_share)
        spans: list[tuple[int, int]] = []
        start = -int(rng.integers(0, high)) if cut else 0
        while True:
            end = start + int(rng.integers(low, high + 1))
            if not cut and self.recipe.frames - end < low:
                return [*spans, (start, self.recipe.frames)]
            if end > 0:
                spans.append((max(start, 0), end))
            if cut and end >= self.recipe.frames:
                return spans
            both = rng.random() < self.recipe.overlap_share
            start = end - int(rng.integers(1, self.recipe.overlap + 1)) if both and self.recipe.overlap else end


def _show(tokens: Tensor, shown: Tensor, start: int, seen: int) -> None:
    """Write frames (t, N, D) from frame `start`; where another photograph is `seen`, they take the right half."""
    both = max(0, seen - start)
    side = round(shown.shape[1] ** 0.5)
    right = torch.arange(shown.shape[1]) % side >= side // 2  # N; rows of a square grid follow each other
    tokens[start : start + both, right] = shown[:both, right]
    tokens[start + both : start + len(shown)] = shown[both:]
