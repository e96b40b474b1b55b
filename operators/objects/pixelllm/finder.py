"""Where the words of a text are in a frame that a tower has read: PixelLLM without a trunk of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onlooker.operators.caption.wordpiece import WordPiece

from .load import load_pixelllm
from .model import ImageFeatures, PixelLlm
from .points import points_to_boxes

if TYPE_CHECKING:
    from onlooker.operators.tower import TowerOutput

CANVAS = (224, 224)
"""(height, width) in pixels that locations are told in to the model; frames themselves may have any size."""
FINE_MAP = -2
"""Which of a tower's maps is read beside the tokens: the one before the last."""
_CODE = 16
"""Frequencies of the places' code, per axis and phase."""

Boxes = npt.NDArray[np.float32]


class Word(NamedTuple):
    """A word of a text and where it is."""

    text: str
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in 0..1 of the frame."""


def tower_features(tokens: Tensor, fine: Tensor) -> ImageFeatures:
    """What the model reads of frames: tokens, the finer map folded onto their grid, and the place of each cell.

    Args:
        tokens: (B, h * w, D) of a square grid.
        fine: (B, C, k h, k w), whose cells are folded into channels of the tokens they lie in.
    """
    batch, count, _ = tokens.shape
    side = round(count**0.5)
    factor = fine.shape[-1] // side
    folded = torch.nn.functional.pixel_unshuffle(fine, factor).movedim(1, -1)  # B, h, w, C k k
    code = place_code(side).expand(batch, -1, -1, -1)
    grid = torch.cat([tokens.view(batch, side, side, -1), folded, code.to(tokens)], -1)
    return ImageFeatures(grid, CANVAS, tokens.new_tensor(CANVAS).expand(batch, 2))


def feature_width(token_width: int, fine_channels: int, factor: int) -> int:
    """Channels of `tower_features`."""
    return token_width + fine_channels * factor**2 + 4 * _CODE


def place_code(side: int) -> Tensor:
    """(1, side, side, C) sines and cosines of the cells' centres, from half a turn over the frame to many."""
    centres = (torch.arange(side) + 0.5) / side
    angles = torch.outer(centres, torch.linspace(0.5, side / 2, _CODE)) * 2.0 * torch.pi
    line = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    return torch.cat([rows, columns], -1)[None]


class Finder:
    """Finds what expressions name and where the words of captions are, in frames that were read by a tower."""

    def __init__(self, model: PixelLlm, words: WordPiece) -> None:
        """Take a model whose features are `tower_features`."""
        self.model = model
        self.words = words
        self._length = model.config.decoder.max_positions

    @torch.no_grad()
    def find(self, features: ImageFeatures, expressions: Sequence[str]) -> Boxes:
        """The boxes (B, N, 4) in 0..1 of what N expressions name, in each of B frames.

        There is always one: the model tells where a thing would be, not whether it is there.
        """
        rows = [self.words.encode(text)[: self._length - 2] for text in expressions]
        context = _padded([[*row, self.words.end] for row in rows])
        tokens = _padded([[self.words.begin, *row, self.words.end] for row in rows])
        batch = len(features.grid)
        visual = self._whole(features).expand(-1, len(rows), -1, -1)
        tokens, context = tokens.expand(batch, -1, -1), context.expand(batch, -1, -1)
        boxes, _ = self.model.refer(features, visual, tokens, context)
        return _relative(boxes)

    def point(self, seen: TowerOutput, words: str) -> tuple[float, float, float, float] | None:
        """The box (x0, y0, x1, y1 in 0..1) of what words name in the one frame that was seen, with the tower's maps.

        None if it has no extent; see `find`.
        """
        x0, y0, x1, y1 = self.find(tower_features(seen.tokens, seen.maps[FINE_MAP]), [words])[0, 0].tolist()
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    @torch.no_grad()
    def ground(self, features: ImageFeatures, caption: str) -> list[Word]:
        """Every word of a caption of one frame with its box; those of words that name nothing say nothing."""
        ids = self.words.encode(caption)[: self._length - 2]
        tokens = _padded([[self.words.begin, *ids, self.words.end]])[None]
        boxes = self.places(features, tokens)[0, 0, 1:-1].numpy()
        found: list[Word] = []
        for index, box in zip(ids, boxes, strict=True):
            x0, y0, x1, y1 = (float(value) for value in box)
            piece = self.words.pieces[index]
            if piece.startswith("##") and found:  # the last piece of a word knows all of it
                found[-1] = Word(found[-1].text + piece[2:], (x0, y0, x1, y1))
            else:
                found.append(Word(piece, (x0, y0, x1, y1)))
        return found

    @torch.no_grad()
    def places(self, features: ImageFeatures, tokens: Tensor) -> Tensor:
        """Boxes (B, N, L, 4) in 0..1 of every token of N captions (B, N, L) of each frame."""
        visual = self._whole(features).expand(-1, tokens.shape[1], -1, -1)
        points = self.model.word_points(self.model.words(tokens, visual), features)
        return torch.from_numpy(_relative(points_to_boxes(points)))

    def _whole(self, features: ImageFeatures) -> Tensor:
        """What is seen of whole frames: (B, 1, V, D)."""
        height, width = CANVAS
        boxes = features.grid.new_tensor([0.0, 0.0, width, height]).expand(len(features.grid), 1, 4)
        return self.model.see(features, boxes)


def load_finder(name_or_folder: str | Path = "tiny", device: str = "cpu") -> tuple[Finder, str]:
    """A finder, and the name of the tower whose features it reads.

    Raises:
        PixelLlmError: no such model.
    """
    stored = load_pixelllm(name_or_folder, device)
    return Finder(stored.model, WordPiece(stored.pieces)), stored.tower


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    length = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])


def _relative(boxes: Tensor) -> Boxes:
    """Boxes (..., 4) in pixels of the canvas as shares of the frame, inside it."""
    height, width = CANVAS
    shares: Boxes = (boxes / boxes.new_tensor([width, height, width, height])).clamp(0.0, 1.0).float().cpu().numpy()
    return shares
