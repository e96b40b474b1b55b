"""What a captioner is trained on: photographs as memory tokens, their captions as packed pieces."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onlooker.operators.caption.git import PAD_TOKEN
from onlooker.operators.caption.wordpiece import SPECIAL, UNKNOWN, WordPiece
from onlooker.training.flickr import read_captions

IGNORED = -100
_POOL = 16


@dataclass(frozen=True)
class CaptionerRecipe:
    """Everything that decides the weights, beside the data.

    Attributes:
        epochs: passes over the photographs; in each, all captions of a photograph are read about one memory.
        photographs: photographs per step.
        decay: share of the steps, at the end, over which the learning rate falls to zero.
        memory_from: epoch from which memories are read; before, only photographs alone.
        single_share: from then on, share of steps on photographs alone (one view, N tokens); the rest on memories.
        keep_single, keep_memory: visual tokens left per step, drawn anew: regularises, and saves time.
        prefix_share: share of steps whose prefix holds captions of other photographs.
        word_dropout: share of text pieces the decoder reads as unknown.
        average: decay of the running average of the weights, which is what is kept.
        min_count: rarer pieces of the training captions are spelt by shorter ones.
    """

    seed: int = 0
    epochs: float = 10.0
    photographs: int = 32
    learning_rate: float = 5e-4
    warmup_steps: int = 200
    decay: float = 0.6
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    dropout: float = 0.1
    memory_from: int = 4
    single_share: float = 0.45
    keep_single: int = 42
    keep_memory: int = 64
    prefix_share: float = 0.25
    word_dropout: float = 0.1
    average: float = 0.999
    min_count: int = 2
    max_length: int = 24
    memory_size: int = 98


SECOND = CaptionerRecipe(epochs=1.0, learning_rate=1e-4, warmup_steps=20, decay=0.8, memory_from=0, average=0.98)
"""For a captioner that was trained along with the trunk on single photographs: memories at once.

Three epochs at twice the rate overfitted (BLEU-4 on dev from .227 to .202): the trunk knows the training photographs.
"""


@dataclass
class Split:
    """Cached inputs and captions of one split; arrays are read from disk as they are used."""

    tokens: npt.NDArray[np.float16]
    done: npt.NDArray[np.bool_]
    captions: list[list[str]]
    memories: npt.NDArray[np.float16] | None = None

    @classmethod
    def open(cls, data: Path, cache: Path, memories: Path | None, split: str) -> Split:
        """Open a split of a token cache and of a memory folder, None for a split that is read without memories.

        Raises:
            ValueError: the memory folder is not filled yet.
        """
        files = json.loads((cache / "index.json").read_text())[split]
        by_file = read_captions(data)
        self = cls(
            np.load(cache / f"tokens_{split}.npy", mmap_mode="r"),
            np.load(cache / f"done_{split}.npy", mmap_mode="r"),
            [by_file[name] for name in files],
        )
        if memories is not None:
            ready = np.load(memories / f"ready_{split}.npy")
            if not ready.all():
                raise ValueError(
                    f"{int((~ready).sum())} memories of {split} are missing in {memories.name}; fill them first"
                )
            self.memories = np.load(memories / f"memories_{split}.npy", mmap_mode="r")
        return self


@dataclass(frozen=True)
class Batch:
    """One step: B photographs, each with its captions packed into one row of T pieces.

    Attributes:
        memory: (B, M, D) float32.
        prefix: (B, P) int64.
        text, target, positions, segment: (B, T) int64; segment numbers the captions of a row from 0, -1 is padding.
    """

    memory: Tensor
    prefix: Tensor
    text: Tensor
    target: Tensor
    positions: Tensor
    segment: Tensor


class Batches:
    """Draws the batches of a recipe, epoch after epoch."""

    def __init__(self, split: Split, vocabulary: WordPiece, recipe: CaptionerRecipe) -> None:
        """Encode all captions once."""
        self.split, self.recipe, self.vocabulary = split, recipe, vocabulary
        self.unknown = vocabulary.pieces.index(UNKNOWN)
        self.ids = [[vocabulary.encode(text)[: recipe.max_length - 2] for text in texts] for texts in split.captions]
        self.lengths = np.array([sum(map(len, texts)) for texts in self.ids])

    def epoch(self, number: int) -> Iterator[Batch]:
        """All photographs once (but for an incomplete last batch), in an order given by seed and epoch."""
        rng = np.random.default_rng([self.recipe.seed, number])
        size = self.recipe.photographs
        order = rng.permutation(len(self.ids))
        # Photographs with captions of like length share a batch: less padding. Sorting stays within pools, so that
        # batches differ from epoch to epoch.
        pools = [order[start : start + _POOL * size] for start in range(0, len(order), _POOL * size)]
        order = np.concatenate([pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools])
        starts = np.arange(0, len(order) - size + 1, size)
        for start in rng.permutation(starts):
            yield self._batch(rng, order[start : start + size], memories=number >= self.recipe.memory_from)

    def about(self, rng: np.random.Generator, photos: npt.NDArray[np.int64], memory: Tensor) -> Batch:
        """The captions of the numbered photographs about the tokens (B, M, D) that are given for them."""
        text, target, positions, segment = self._texts(rng, photos)
        return Batch(memory, self._prefix(rng, photos), text, target, positions, segment)

    def _batch(self, rng: np.random.Generator, photos: npt.NDArray[np.int64], *, memories: bool) -> Batch:
        return self.about(rng, photos, self._memory(rng, photos, memories=memories))

    def _memory(self, rng: np.random.Generator, photos: npt.NDArray[np.int64], *, memories: bool) -> Tensor:
        """A random part of the tokens of one view, or where `memories` of a memory, of each photograph: (B, M, D)."""
        recipe, split = self.recipe, self.split
        single = rng.random() < recipe.single_share
        if single or not memories or split.memories is None:
            views = [rng.choice(np.flatnonzero(split.done[p])) if rng.random() < 0.6 else 0 for p in photos]
            rows = [split.tokens[p, v] for p, v in zip(photos, views, strict=True)]
            keep = recipe.keep_single
        else:
            rows = [split.memories[p, rng.integers(split.memories.shape[1])] for p in photos]
            keep = recipe.keep_memory
        stacked = np.stack([row[rng.permutation(len(row))[:keep]] for row in rows])
        return torch.from_numpy(stacked.astype(np.float32))

    def _prefix(self, rng: np.random.Generator, photos: npt.NDArray[np.int64]) -> Tensor:
        """Begin and end, in a share of the steps with one caption of any photograph between them: (B, P)."""
        begin, end = self.vocabulary.begin, self.vocabulary.end
        rows = [[begin, end] for _ in photos]
        if rng.random() < self.recipe.prefix_share:
            for row in rows:
                captions = self.ids[rng.integers(len(self.ids))]
                row[1:1] = captions[rng.integers(len(captions))]
        return _padded(rows, PAD_TOKEN)

    def _texts(self, rng: np.random.Generator, photos: npt.NDArray[np.int64]) -> tuple[Tensor, ...]:
        begin, end = self.vocabulary.begin, self.vocabulary.end
        columns: tuple[list[list[int]], ...] = ([], [], [], [])
        for photo in photos:
            text: list[int] = []
            target: list[int] = []
            positions: list[int] = []
            segment: list[int] = []
            for number, ids in enumerate(self.ids[photo]):
                read = np.asarray(ids)
                read = np.where(rng.random(len(ids)) < self.recipe.word_dropout, self.unknown, read)
                text += [begin, *read.tolist()]
                target += [*ids, end]
                positions += range(len(ids) + 1)
                segment += [number] * (len(ids) + 1)
            for column, row in zip(columns, (text, target, positions, segment), strict=True):
                column.append(row)
        fills = (PAD_TOKEN, IGNORED, 0, -1)
        return tuple(_padded(column, fill) for column, fill in zip(columns, fills, strict=True))


def build_vocabulary(captions: Sequence[Sequence[str]], pieces: Sequence[str], min_count: int) -> WordPiece:
    """The part of a BERT vocabulary that the captions use, and all letters and digits to spell any other word."""
    full = WordPiece([*SPECIAL, *(piece for piece in pieces if piece not in SPECIAL)])
    counts = Counter(full.pieces[index] for texts in captions for text in texts for index in full.encode(text))
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    alphabet = {*letters, *("##" + letter for letter in letters), "-", "'"}
    used = {piece for piece, count in counts.items() if count >= min_count} | alphabet
    return WordPiece([*SPECIAL, *(p for p in full.pieces if p in used and p not in SPECIAL)])


def _padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Rows of unequal length as one tensor (n, longest) int64."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
