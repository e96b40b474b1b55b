"""The memories that a whole video gives the decoder: after every frame, at decoding points, or of all of it.

Source: Zhou et al., "Streaming Dense Video Captioning" (CVPR 2024, section 3.1 and table 2). These are the forms that
the paper's models train and are evaluated with; gradients flow through them. A stream uses `memory.clustering`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onlooker.operators.caption.dense_config import MemoryConfig
from onlooker.operators.memory import alternatives
from onlooker.operators.memory.clustering import StreamingKMeans


def frame_memories(tokens: Tensor, config: MemoryConfig, carried: int = 0) -> list[Tensor]:
    """The memory after each frame of a video, none of which but the first ones depends on a later frame.

    A K-means memory of s = K / N frames is first known after frame s; that one also stands for the frames before.

    Args:
        tokens: (..., T, N, D) float32, one video or several.
        config: the method.
        carried: trailing values of the D that are averaged but not clustered by.

    Returns:
        T memories (..., M, D). M is K or N, depending on the method; T * N in a video with fewer tokens than K.

    Raises:
        ValueError: a method without a memory of constant size.
    """
    if config.method == "kmeans":
        return _clustered(tokens, config, carried)
    if config.method == "temporal_mean_pool":
        frames = torch.arange(1, tokens.shape[-3] + 1, device=tokens.device, dtype=tokens.dtype)
        return list((tokens.cumsum(-3) / frames[:, None, None]).unbind(-3))
    if config.method == "ema":
        first, *rest = tokens.unbind(-3)
        memories = [first]
        for frame in rest:
            memories.append(config.decay * memories[-1] + (1.0 - config.decay) * frame)
        return memories
    raise ValueError(
        f"memory method {config.method!r} has no form that is updated frame by frame; "
        "choose kmeans, temporal_mean_pool or ema, or points 'fixed_checkpoints'"
    )


def _clustered(tokens: Tensor, config: MemoryConfig, carried: int) -> list[Tensor]:
    memory = StreamingKMeans(config.size, config.iterations, config.momentum, carried)
    state = memory.initial_state(tokens.shape[-1], *tokens.shape[:-3], device=tokens.device)
    states = []
    for frame in tokens.unbind(-3):
        state = memory.update(state, frame)
        states.append(state)
    first = next((state for state in states if memory.ready(state)), states[-1])
    return [state.tokens if memory.ready(state) else first.tokens for state in states]


def video_memory(tokens: Tensor, config: MemoryConfig) -> Tensor:
    """The memory (M, D) of one whole video (T, N, D), made at once: what the paragraph model decodes from."""
    methods: dict[str, alternatives.Summary] = {
        "none": alternatives.keep_all,
        "temporal_mean_pool": alternatives.temporal_mean,
        "spatial_mean_pool": alternatives.spatial_mean,
        "ema": lambda video: alternatives.exponential_mean(video, config.decay),
        "kmeans": lambda video: alternatives.offline_kmeans(video, config.size, config.iterations),
        "adjacent_tome": lambda video: alternatives.adjacent_merge_memory(video, config.size),
    }
    return methods[config.method](tokens)


def point_frames(frames: int, points: int) -> list[int]:
    """The frames, from 0, after which `points` decoding points at equal distances lie; the rest is never decoded."""
    return [seen - 1 for seen in alternatives.checkpoint_frames(frames, points)]


def memories_at_frames(tokens: Tensor, config: MemoryConfig, frames: Tensor, carried: int = 0) -> Tensor:
    """The streaming memory of each video (B, T, N, D) after the frames (B, C) int64, from 0: (B, C, M, D).

    Raises:
        ValueError: a frame that the videos do not have.
    """
    if frames.shape[:1] != tokens.shape[:1] or not bool(((frames >= 0) & (frames < tokens.shape[1])).all()):
        raise ValueError(
            f"frames {frames.tolist()} must name some of the {tokens.shape[1]} frames of each of {len(tokens)} videos"
        )
    memories = frame_memories(tokens, config, carried)
    rows = [torch.stack([memories[frame][video] for frame in own]) for video, own in enumerate(frames.tolist())]
    return torch.stack(rows)


def memories_at_points(tokens: Tensor, config: MemoryConfig, points: int, carried: int = 0) -> list[Tensor]:
    """The memories of videos (B, T, N, D) at `points` decoding points at equal distances, each (B, M, D).

    The number of memory tokens may differ between points with `fixed_checkpoints`.
    """
    if config.points == "fixed_checkpoints":
        videos = [_from_scratch(video, config, points) for video in tokens]
        return [torch.stack(memories) for memories in zip(*videos, strict=True)]
    frames = torch.tensor(point_frames(tokens.shape[1], points)).expand(len(tokens), -1)
    return list(memories_at_frames(tokens, config, frames, carried).unbind(1))


def _from_scratch(tokens: Tensor, config: MemoryConfig, points: int) -> list[Tensor]:
    """`fixed_checkpoints` for one video (T, N, D).

    The reference cuts the row of all T * N tokens, not the frames: where P does not divide T, a point sees a part of
    a frame. Averages follow its cuts too, which for them are no frames (see `alternatives`).
    """
    flat = tokens.flatten(0, 1)  # T * N, D
    per_point = len(flat) // points
    if config.method == "temporal_mean_pool":
        return alternatives.checkpoint_temporal_mean(flat[: points * per_point], points)
    seen = [flat[: (point + 1) * per_point] for point in range(points)]
    if config.method == "ema":
        if any(len(part) % len(tokens) for part in seen):
            raise ValueError(
                f"'ema' with 'fixed_checkpoints' folds what each of {points} points has seen into {len(tokens)} equal "
                f"parts, which {per_point} tokens per point do not allow; use one point or 'given_checkpoints'"
            )
        return [video_memory(part.reshape(len(tokens), -1, part.shape[-1]), config) for part in seen]
    if config.method == "spatial_mean_pool":
        raise ValueError(
            "memory method 'spatial_mean_pool' has no form for decoding points; the paragraph model has it"
        )
    return [video_memory(part[:, None], config) for part in seen]
