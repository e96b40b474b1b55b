"""The memory node: when packets come, what they hold, and that the past is forgotten in time."""

import copy

import numpy as np
import pytest
import torch

from onlooker.operators.contract import Context, Inputs
from onlooker.operators.memory import clustering
from onlooker.operators.memory.clustering import StreamingKMeans
from onlooker.operators.memory.node import ClusteringMemory, ClusteringMemoryConfig
from onlooker.operators.packets import Tokens

N, D = 5, 16


def make(**config):
    node = ClusteringMemory(ClusteringMemoryConfig(**config))
    node.open(Context())
    return node


def packets(count, step=0.5, seed=0, start=0.0):
    rng = np.random.default_rng(seed)
    return [Tokens("cam", 0, start + i * step, rng.standard_normal((N, D), dtype=np.float32)) for i in range(count)]


def run(node, given, chunk=None, t_end=None):
    state, told = node.initial_state("cam"), []
    size = chunk or max(1, len(given))
    for start in range(0, len(given), size):
        part = given[start : start + size]
        state, outputs = node.process(state, Inputs({"tokens": part}, watermark=part[-1].t, now=part[-1].t))
        told += outputs.packets.get("memory", [])
    state, outputs = node.flush(state, given[-1].t + 0.5 if t_end is None else t_end)
    return told + outputs.packets.get("memory", []), state


def reference(given, size=2 * N):
    memory = StreamingKMeans(size)
    state, states = memory.initial_state(D), []
    for packet in given:
        state = memory.update(state, torch.from_numpy(packet.grid))
        states.append(state)
    return states


@pytest.mark.parametrize("horizon", [None, 10.0, 60.0])
def test_a_stream_no_longer_than_the_horizon_is_the_reference(horizon):
    given = packets(20)  # 10 s
    told, _ = run(make(horizon=horizon), given)
    expected = reference(given)
    assert [p.t for p in told] == [p.t for p in given]
    for packet, state in zip(told[1:], expected[1:], strict=True):
        assert np.array_equal(packet.centers, state.tokens.numpy())
        assert np.array_equal(packet.counts, state.counts.numpy())
    assert np.array_equal(told[0].centers, told[1].centers)  # the first frame is told with the first full memory
    assert {p.t_start for p in told} == {0.0}


def test_nothing_before_the_memory_is_full_and_then_all_held_frames():
    node, given = make(size=3 * N), packets(4)
    state, counts = node.initial_state("cam"), []
    for packet in given:
        state, outputs = node.process(state, Inputs({"tokens": [packet]}, watermark=packet.t, now=packet.t))
        counts.append(len(outputs.packets.get("memory", [])))
        if not counts[-1]:
            assert outputs.watermarks["memory"] < 0.0  # what is held will come at t = 0
    assert counts == [0, 0, 3, 1]


def test_a_single_frame_is_told_at_the_end():
    told, _ = run(make(), packets(1))
    (packet,) = told
    assert packet.t == 0.0 and packet.centers.shape == (N, D) and packet.capacity == 2 * N


@pytest.mark.parametrize("chunk", [1, 3])
def test_cutting_into_calls_means_nothing(chunk):
    given = packets(40)
    for one, other in zip(run(make(horizon=4.0), given, chunk)[0], run(make(horizon=4.0), given)[0], strict=True):
        assert one.t == other.t and one.t_start == other.t_start and np.array_equal(one.centers, other.centers)


def test_streams_go_together_and_do_not_notice():
    """Of unequal length, and at unequal points of their horizon: bit for bit what each gives alone."""
    given = [packets(40), packets(25, seed=1), packets(1, seed=2), packets(33, seed=3, step=0.3)]
    node = make(horizon=4.0)
    states, told = [node.initial_state("cam") for _ in given], [[] for _ in given]
    for start in range(0, 40, 7):
        parts = [own[start : start + 7] for own in given]
        inputs = [Inputs({"tokens": part} if part else {}, watermark=0.0, now=0.0) for part in parts]
        results = node.process_batch(states, inputs)
        states = [state for state, _ in results]
        for packet_list, (_, outputs) in zip(told, results, strict=True):
            packet_list += outputs.packets.get("memory", [])
    for own, state, found in zip(given, states, told, strict=True):
        found += node.flush(state, 99.0)[1].packets.get("memory", [])
        expected, _ = run(make(horizon=4.0), own)
        assert [p.t for p in found] == [p.t for p in own] == [p.t for p in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.t_start == other.t_start
            assert np.array_equal(one.centers, other.centers) and np.array_equal(one.counts, other.counts)


def test_all_streams_take_one_clustering_call_a_frame(monkeypatch):
    calls = []

    def count(*args):
        calls.append(args[0].shape)
        return kmeans(*args)

    kmeans = clustering.kmeans
    monkeypatch.setattr(clustering, "kmeans", count)
    node = make(horizon=None)
    streams = 64
    inputs = [Inputs({"tokens": packets(6, seed=i)}, watermark=2.5, now=2.5) for i in range(streams)]
    node.process_batch([node.initial_state("cam") for _ in range(streams)], inputs)
    assert calls == [(streams, 2 * N, D)] * 4  # the first two frames fill the memories


def test_the_told_memory_is_between_half_and_all_of_the_horizon_old():
    told, _ = run(make(horizon=4.0), packets(60))
    ages = [p.t - p.t_start for p in told if p.t >= 4.0]
    assert min(ages) >= 2.0 and max(ages) < 4.0


def test_a_restarted_memory_is_that_of_its_own_frames():
    given = packets(60)
    last = run(make(horizon=4.0), given)[0][-1]
    own = [p for p in given if p.t >= last.t_start]
    assert np.array_equal(last.centers, reference(own)[-1].tokens.numpy())


def scene(value, count, start):
    """Frames of one scene: tokens around a direction of its own."""
    center = np.random.default_rng(value).standard_normal((N, D), dtype=np.float32)
    rng = np.random.default_rng(value + 1000)
    noisy = [center + 0.05 * rng.standard_normal((N, D), dtype=np.float32) for _ in range(count)]
    return center, [Tokens("cam", 0, start + 0.5 * i, grid.astype(np.float32)) for i, grid in enumerate(noisy)]


def share_of(memory, center):
    """Share of the centres that lie on the scene."""
    gap = np.linalg.norm(memory.centers[:, None] - center[None], axis=-1).min(1)
    return float((gap < 1.0).mean())


@pytest.mark.parametrize(("horizon", "sees"), [(60.0, True), (None, False)])
def test_after_a_quarter_of_an_hour_of_one_scene_the_next_is_seen(horizon, sees):
    """The memory that never restarts is the twin that fails: the new scene gets no centre of its own."""
    _, long = scene(1, 2 * 900, 0.0)
    center, new = scene(2, 2 * 61, 900.0)
    node = make(horizon=horizon)
    state = node.initial_state("cam")
    for start in range(0, len(long + new), 500):
        part = (long + new)[start : start + 500]
        state, outputs = node.process(state, Inputs({"tokens": part}, watermark=part[-1].t, now=part[-1].t))
        told = outputs.packets["memory"]
    assert (share_of(told[-1], center) > 0.5) is sees


def test_state_is_plain_and_constant_in_size():
    node = make(horizon=4.0)

    def size(state):
        return [(g.memory.tokens.shape, g.memory.counts.shape) for g in state.generations], len(state.held)

    states = [run(node, packets(count))[1] for count in (39, 139)]
    assert size(states[0]) == size(states[1])
    assert copy.deepcopy(states[0]).t_first == 0.0


def test_a_gap_longer_than_the_horizon_starts_afresh():
    given = packets(10) + packets(10, seed=1, start=100.0)
    told, _ = run(make(horizon=4.0), given)
    assert [p.t for p in told] == [p.t for p in given]
    assert all(p.t_start >= 100.0 for p in told if p.t >= 100.0)
