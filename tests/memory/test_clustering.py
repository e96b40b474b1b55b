"""What the memory promises beyond reference values: conserved weight, state that does not grow, no company."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.memory.clustering import MemoryState, StreamingKMeans, kmeans
from onlooker.operators.memory.nearest import distance


def stream(frames, size, tokens_per_frame=7, width=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    memory = StreamingKMeans(size)
    state = memory.initial_state(width)
    for _ in range(frames):
        state = memory.update(state, torch.randn(tokens_per_frame, width, generator=generator))
    return state


def plain_kmeans(centers, data, weights, iterations):
    """The reference's formula, word for word: all differences, averages by a one-hot product."""
    for _ in range(iterations):
        nearest = distance(data[:, None], centers[None]).argmin(1)
        member = torch.nn.functional.one_hot(nearest, len(centers)).T * weights  # K, n
        counts = member.sum(1)
        means = member.to(data.dtype) @ data / counts.clamp(min=1)[:, None]
        centers = torch.where(counts[:, None] != 0, means, centers)
    return centers, counts


def problem(seed, size=6, tokens=9, width=5):
    """Points that start with the centres, as in an update, with many equal distances and some weights of zero."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randint(-2, 3, (size + tokens, width), generator=generator).float()
    weights = torch.randint(0, 4, (size + tokens,), generator=generator)
    return data[:size], data, weights


@given(st.integers(0, 2**31), st.integers(1, 3))
def test_clustering_is_that_of_the_plain_formula(seed, iterations):
    centers, counts = kmeans(*problem(seed), iterations)
    expected, expected_counts = plain_kmeans(*problem(seed), iterations)
    torch.testing.assert_close(centers, expected, atol=5e-6, rtol=0)
    assert counts.dtype == torch.int32 and counts.tolist() == expected_counts.tolist()


@given(st.integers(0, 2**31))
def test_several_problems_in_one_call_are_as_each_alone(seed):
    alone = [problem(seed + item) for item in range(4)]
    centers, counts = kmeans(*(torch.stack(parts) for parts in zip(*alone, strict=True)), 2)
    for item, parts in enumerate(alone):
        own, own_counts = kmeans(*parts, 2)
        assert torch.equal(centers[item], own) and torch.equal(counts[item], own_counts)


def test_threads_change_no_bit():
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(3, 90, 700, generator=generator)
    weights = torch.ones(3, 90, dtype=torch.int32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(kmeans(data[:, :30], data, weights, 2)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_a_batch_of_memories_is_as_each_alone():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(6, 3, 7, 24, generator=generator)  # T, B, N, D
    memory = StreamingKMeans(14)
    together, alone = memory.initial_state(24, 3), [memory.initial_state(24) for _ in range(3)]
    for frame in frames:
        together = memory.update(together, frame)
        alone = [memory.update(state, own) for state, own in zip(alone, frame, strict=True)]
        assert torch.equal(together.tokens, torch.stack([state.tokens for state in alone]))
        assert torch.equal(together.counts, torch.stack([state.counts for state in alone]))


def test_memories_of_any_age_and_shape_go_together():
    """Bit for bit what `update` gives, in storage of their own."""
    generator = torch.Generator().manual_seed(0)
    memory = StreamingKMeans(12)
    states, frames = [], []
    for age, tokens, width in [(5, 6, 8), (9, 6, 8), (1, 6, 8), (1, 6, 8), (7, 4, 8), (4, 6, 9), (0, 12, 8)]:
        state = memory.initial_state(width)
        for _ in range(age):
            state = memory.update(state, torch.randn(tokens, width, generator=generator))
        states.append(state)
        frames.append(torch.randn(tokens, width, generator=generator))
    for found, state, frame in zip(memory.update_all(states, frames), states, frames, strict=True):
        expected = memory.update(state, frame)
        assert torch.equal(found.tokens, expected.tokens) and torch.equal(found.counts, expected.counts)
        assert found.frames == expected.frames
        assert found.tokens.untyped_storage().nbytes() == 4 * found.tokens.numel()


def test_weight_is_that_of_all_tokens_seen():
    state = stream(frames=9, size=14)
    assert int(state.counts.sum()) == 9 * 7
    assert state.frames == 9


def test_state_stops_growing_once_full():
    sizes = {stream(frames, size=14).tokens.shape for frames in (2, 3, 30)}
    assert sizes == {(14, 24)}


def test_first_frames_are_kept_as_they_are():
    memory = StreamingKMeans(6)
    frames = [torch.randn(3, 4), torch.randn(3, 4)]
    state = memory.update(memory.initial_state(4), frames[0])
    assert not memory.ready(state) and torch.equal(state.tokens, frames[0])
    state = memory.update(state, frames[1])
    assert memory.ready(state) and torch.equal(state.tokens, torch.cat(frames))


def test_update_leaves_the_old_state_alone():
    memory, state = StreamingKMeans(14), stream(frames=5, size=14)
    before = MemoryState(state.tokens.clone(), state.counts.clone(), state.frames)
    memory.update(state, torch.randn(7, 24))
    assert torch.equal(before.tokens, state.tokens) and torch.equal(before.counts, state.counts)


def test_an_empty_cluster_keeps_its_place():
    centers = torch.tensor([[0.0], [100.0]])
    moved, counts = kmeans(centers, torch.tensor([[1.0], [2.0]]), torch.tensor([1, 3]), 1)
    assert moved.tolist() == [[1.75], [100.0]] and counts.tolist() == [4, 0]


def test_momentum_is_what_holds_the_past():
    """After long A, one frame of B: with counts the centres stay near A; with unit weights they run to B."""
    drift = {}
    for momentum in (True, False):
        memory = StreamingKMeans(2, momentum=momentum)
        state = memory.initial_state(2)
        for _ in range(50):
            state = memory.update(state, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        state = memory.update(state, torch.tensor([[0.0, 9.0], [1.0, 9.0]]))
        drift[momentum] = float(state.tokens[:, 1].max())
    assert drift[True] < 2.0 < drift[False]


def test_gradients_reach_the_frames():
    frame = torch.randn(4, 3, requires_grad=True)
    centers, _ = kmeans(torch.randn(2, 3), frame, torch.ones(4, dtype=torch.int32), 2)
    centers.sum().backward()
    assert frame.grad is not None and frame.grad.abs().sum() > 0


def test_gradients_are_those_of_the_plain_formula_over_many_frames():
    """Through the whole recurrence: today's memory depends on the first frame."""
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(6, 5, 8, generator=generator)
    aim = torch.randn(10, 8, generator=generator)
    found = []
    for step in (kmeans, plain_kmeans):
        frames = video.clone().requires_grad_()
        centers, counts = frames[:2].flatten(0, 1), torch.ones(10, dtype=torch.int32)
        for frame in frames[2:]:
            weights = torch.cat([counts, torch.ones(5, dtype=torch.int32)])
            centers, counts = step(centers, torch.cat([centers, frame]), weights, 2)
        (centers * aim).sum().backward()
        found.append(frames.grad)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
    assert bool((found[0].abs().amax((1, 2)) > 0).all())


def test_gradients_of_a_stream_reach_every_frame():
    frames = torch.randn(5, 2, 3, 4, requires_grad=True)  # T, B, N, D
    memory = StreamingKMeans(6)
    state = memory.initial_state(4, 2)
    for frame in frames:
        state = memory.update(state, frame)
    state.tokens.square().sum().backward()
    assert bool((frames.grad.abs().amax((2, 3)) > 0).all())


def test_same_input_same_bits():
    assert torch.equal(stream(20, size=14).tokens, stream(20, size=14).tokens)


@pytest.mark.parametrize(
    "frame",
    [torch.zeros(5, 24), torch.zeros(7, 23), torch.zeros(7), torch.zeros(0, 24), torch.zeros(2, 7, 24)],
)
def test_frames_that_do_not_fit_are_named(frame):
    memory = StreamingKMeans(14)
    with pytest.raises(ValueError, match=r"fit a memory of width 24|not a multiple of the \d+ tokens"):
        memory.update(memory.initial_state(24), frame)
