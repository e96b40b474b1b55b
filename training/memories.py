"""Memories for training a captioner: short videos of photographs, run through the real clustering memory.

A video is drawn from the cached trunk tokens of one photograph's views (see `onlooker.training.features`): a few
frames, repeated and slightly disturbed as neighbouring frames of a camera are, in a share of the videos with a few
frames of another photograph before or after, as the memory sees a cut. The caption to learn is that of the photograph
with most of the frames.

A memory folder holds for each split `memories_<split>.npy` (P, V, K, 1280) float16 and `ready_<split>.npy` (P,) bool,
usable while it is being filled; rows are those of the token cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onlooker.operators.memory.clustering import StreamingKMeans

Tokens = npt.NDArray[np.float16]


@dataclass(frozen=True)
class VideoRecipe:
    """How videos are drawn.

    Attributes:
        variants: memories per photograph.
        frames: fewest and most frames of the photograph.
        foreign_share: share of videos with frames of another photograph; always fewer than its own.
        noise: standard deviation of the relative disturbance of every value of a frame.
    """

    seed: int = 0
    memory_size: int = 98
    variants: int = 2
    frames: tuple[int, int] = (2, 10)
    foreign_share: float = 0.35
    noise: float = 0.15


def fill_memories(cache: Path, folder: Path, split: str, recipe: VideoRecipe) -> None:
    """Draw and cluster the videos of a whole split; photographs that are ready already are skipped.

    Raises:
        ValueError: a photograph has no cached view yet.
    """
    tokens = np.load(cache / f"tokens_{split}.npy", mmap_mode="r")
    done = np.load(cache / f"done_{split}.npy")
    if not done.any(1).all():
        missing = int((~done.any(1)).sum())
        raise ValueError(f"{missing} photographs of {split} have no tokens in {cache.name}; fill them first")
    shape = (len(tokens), recipe.variants, recipe.memory_size, tokens.shape[-1])
    memories = _open(folder / f"memories_{split}.npy", shape, np.float16)
    ready = _open(folder / f"ready_{split}.npy", shape[:1], np.bool_)
    clustering = StreamingKMeans(recipe.memory_size)
    for photo in np.flatnonzero(~ready):
        for variant in range(recipe.variants):
            rng = np.random.default_rng([recipe.seed, int(photo), variant])
            state = clustering.initial_state(tokens.shape[-1])
            for frame in draw_video(rng, tokens, done, int(photo), recipe):
                state = clustering.update(state, frame)
            memories[photo, variant] = state.tokens.numpy()
        ready[photo] = True


def draw_video(
    rng: np.random.Generator, tokens: Tokens, done: npt.NDArray[np.bool_], photo: int, recipe: VideoRecipe
) -> list[Tensor]:
    """Frames (N, D) float32 of a short video that mostly shows `photo`."""
    count = int(rng.integers(recipe.frames[0], recipe.frames[1] + 1))
    frames = shots(rng, tokens, done, photo, count, recipe.noise)
    if count > 2 and rng.random() < recipe.foreign_share:
        other = (photo + int(rng.integers(1, len(tokens)))) % len(tokens)
        extra = shots(rng, tokens, done, other, int(rng.integers(1, (count + 1) // 2)), recipe.noise)
        frames = extra + frames if rng.random() < 0.5 else frames + extra
    return frames


def shots(
    rng: np.random.Generator, tokens: Tokens, done: npt.NDArray[np.bool_], photo: int, count: int, noise: float
) -> list[Tensor]:
    """`count` frames that stay on a view for a while, as a slow camera does."""
    views = np.sort(rng.choice(np.flatnonzero(done[photo]), count))
    frames = []
    for view in views:
        frame = np.asarray(tokens[photo, view], dtype=np.float32)
        # The trunk ends in a ReLU6: zeros stay zero and nothing leaves its range.
        disturbed = frame * (1.0 + noise * rng.standard_normal(frame.shape, dtype=np.float32))
        frames.append(torch.from_numpy(disturbed.clip(0.0, 6.0)))
    return frames


def _open(path: Path, shape: tuple[int, ...], dtype: Any) -> Any:
    """The array file for reading and writing; made if it is not there with this shape."""
    if path.exists():
        array = np.lib.format.open_memmap(path, mode="r+")
        if array.shape == shape:
            return array
    path.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
