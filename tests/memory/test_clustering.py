"""What the memory promises beyond reference values: exact assignment, conserved weight, state that does not grow."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.memory.clustering import MemoryState, StreamingKMeans, assign, distance, kmeans


def explicit(data, centers):
    """The definition: explicit differences, lowest index among equal distances."""
    return distance(data[:, None], centers[None]).argmin(1)


def stream(frames, size, tokens_per_frame=7, width=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    memory = StreamingKMeans(size)
    state = memory.initial_state(width)
    for _ in range(frames):
        state = memory.update(state, torch.randn(tokens_per_frame, width, generator=generator))
    return state


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 12), st.sampled_from([1, 3, 64, 1280]), st.booleans())
def test_assignment_is_that_of_the_explicit_formula(seed, points, centers, width, tight):
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(centers, width, generator=generator)
    if tight:  # centres that nearly or exactly coincide: where a matrix product alone goes wrong
        middle = middle[:1] + 1e-6 * torch.randint(-1, 2, middle.shape, generator=generator)
    data = middle[torch.randint(centers, (points,), generator=generator)]
    data = data + 1e-6 * torch.randn(data.shape, generator=generator)
    assert torch.equal(assign(data, middle), explicit(data, middle))


def test_a_matrix_product_alone_would_assign_otherwise():
    generator = torch.Generator().manual_seed(3)
    centers = 30.0 + 1e-4 * torch.randn(20, 64, generator=generator)
    data = centers[torch.randint(20, (200,), generator=generator)] + 1e-5 * torch.randn(200, 64, generator=generator)
    ranked = (centers.square().sum(1) - 2 * data @ centers.T).argmin(1)
    assert not torch.equal(ranked, explicit(data, centers))
    assert torch.equal(assign(data, centers), explicit(data, centers))


def test_equal_centres_give_the_lowest_index():
    centers = torch.ones(4, 8)
    assert assign(torch.zeros(3, 8), centers).tolist() == [0, 0, 0]


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


def test_same_input_same_bits():
    assert torch.equal(stream(20, size=14).tokens, stream(20, size=14).tokens)


@pytest.mark.parametrize("frame", [torch.zeros(5, 24), torch.zeros(7, 23), torch.zeros(7), torch.zeros(0, 24)])
def test_frames_that_do_not_fit_are_named(frame):
    memory = StreamingKMeans(14)
    with pytest.raises(ValueError, match=r"fit a memory of width 24|not a multiple of the \d+ tokens"):
        memory.update(memory.initial_state(24), frame)
