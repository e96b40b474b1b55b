"""The clustering memory and its alternatives against the reference, on every case there is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onlooker.operators.memory import alternatives
from onlooker.operators.memory.clustering import StreamingKMeans, kmeans

from .goldens import Case, assert_close, parametrize, require


def pytest_generate_tests(metafunc: Any) -> None:
    parametrize(metafunc, "streaming_dvc", "memory")


def test_memory_case(case: Case | None) -> None:
    case = require(case, "the clustering memory")
    if case.has("init_centers"):
        check_kmeans(case)
    elif case.has("buffer", "new_tokens"):
        check_adjacent_merge(case)
    elif case.has("u", "v"):
        assert_close(alternatives.paired_cosine_distance(case.tensor("u"), case.tensor("v")), case.tensor("out"))
    elif case.has("memory_per_frame"):
        check_stream(case)
    elif case.has("features", "num_frames", "out"):
        check_alternative(case)
    else:
        pytest.fail(f"{case} holds {sorted(case.arrays)}: no check knows this kind")


def check_kmeans(case: Case) -> None:
    centers, counts = kmeans(
        case.tensor("init_centers"), case.tensor("data"), case.tensor("weights"), case.number("num_iters")
    )
    assert_close(centers, case.tensor("centers"))
    assert counts.tolist() == case.tensor("counts").tolist()


def check_adjacent_merge(case: Case) -> None:
    weights = case.tensor("weights") if case.has("weights") else None
    buffer, counts = alternatives.adjacent_merge(case.tensor("buffer"), case.tensor("new_tokens"), weights)
    assert_close(buffer, case.tensor("out_buffer"))
    if counts is not None:
        assert counts.tolist() == case.tensor("out_weights").tolist()


def run_stream(tokens: torch.Tensor, memory: StreamingKMeans) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Tokens and counts after each frame of (T, N, D); as the reference reports, the first full memory stands for
    the frames that filled it."""
    state = memory.initial_state(tokens.shape[-1])
    reported: list[tuple[torch.Tensor, torch.Tensor]] = []
    waiting = 0
    for frame in tokens:
        state = memory.update(state, frame)
        waiting += 1
        if memory.ready(state):
            reported += [(state.tokens, state.counts)] * waiting
            waiting = 0
    return reported or [(state.tokens, state.counts)]


def check_stream(case: Case) -> None:
    size, per_frame = case.number("buffer_size"), case.number("tokens_per_frame")
    memory = StreamingKMeans(size, case.number("num_iters"), bool(case.number("momentum")))
    for item, features in enumerate(case.tensor("features")):
        reported = run_stream(features.unflatten(0, (-1, per_frame)), memory)
        expected = case.tensor("memory_per_frame")[item]
        expected_counts = case.tensor("counts_per_frame")[item]
        if features.shape[0] < size:  # Fewer tokens than the memory holds: the reference repeats what there is.
            reported = reported * len(expected)
            expected_counts = expected_counts[:1].expand(len(reported), -1)
        assert_close(torch.stack([tokens for tokens, _ in reported]), expected)
        assert torch.stack([counts for _, counts in reported]).tolist() == expected_counts.tolist()
        check_points(case, item, [tokens for tokens, _ in reported], features.shape[0] // per_frame)


def check_points(case: Case, item: int, reported: list[torch.Tensor], frames: int) -> None:
    """The memories that feed the decoder: after certain frames of the stream."""
    if case.has("checkpoint_inds", "memory_train_points"):
        wanted = [reported[index] for index in case.tensor("checkpoint_inds")[item]]
        assert_close(torch.stack(wanted), case.tensor("memory_train_points")[item])
    if case.has("memory_eval_points"):
        seen = alternatives.checkpoint_frames(frames, case.number("num_dense_outputs_test"))
        wanted = [reported[min(count, len(reported)) - 1] for count in seen]
        assert_close(torch.stack(wanted), case.tensor("memory_eval_points")[item])


def check_alternative(case: Case) -> None:
    features = case.tensor("features")
    for item, tokens in enumerate(features.unflatten(1, (case.number("num_frames"), -1))):
        assert_close(alternative(case, tokens), case.tensor("out")[item])


def alternative(case: Case, tokens: torch.Tensor) -> torch.Tensor:
    """What the case's name asks for: `paragraph_<method>`, `fixed_checkpoints_<method>` or a per-frame form."""
    size = case.number("buffer_size")
    iterations = case.number("num_iters") if case.has("num_iters") else 2
    decay = case.number("ema_decay") if case.has("ema_decay") else 0.9
    methods: dict[str, alternatives.Summary] = {
        "none": alternatives.keep_all,
        "temporal_mean_pool": alternatives.temporal_mean,
        "spatial_mean_pool": alternatives.spatial_mean,
        "ema": lambda video: alternatives.exponential_mean(video, decay),
        "kmeans": lambda video: alternatives.offline_kmeans(video, size, iterations),
        "adjacent_tome": lambda video: alternatives.adjacent_merge_memory(video, size),
    }
    if case.name.startswith("paragraph_"):
        return methods[method_of(case, "paragraph_", methods)](tokens)
    if case.name.startswith("fixed_checkpoints_"):
        method = method_of(case, "fixed_checkpoints_", methods)
        points = case.number("num_dense_outputs")
        if method == "temporal_mean_pool":
            return torch.stack(alternatives.checkpoint_temporal_mean(tokens, points))
        return torch.stack(alternatives.at_checkpoints(tokens, points, methods[method]))
    if "temporal_mean" in case.name:
        return alternatives.running_temporal_mean(tokens)
    if case.has("num_dense_outputs"):
        reported = [memory for memory, _ in run_stream(tokens, StreamingKMeans(size, iterations))]
        seen = alternatives.checkpoint_frames(tokens.shape[0], case.number("num_dense_outputs"))
        return torch.stack([reported[count - 1] for count in seen])
    raise AssertionError(f"{case}: no memory of this name")


def method_of(case: Case, prefix: str, methods: dict[str, alternatives.Summary]) -> str:
    """The longest method name that follows the prefix: cases may add what they vary."""
    rest = case.name.removeprefix(prefix)
    return max((name for name in methods if rest.startswith(name)), key=len)
