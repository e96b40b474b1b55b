"""When the tokens behind a centre were seen: true means and spreads, and no part in the clustering."""

import numpy as np
import pytest
import torch

from onlooker.operators.contract import Context, Inputs
from onlooker.operators.memory.clustering import StreamingKMeans
from onlooker.operators.memory.node import ClusteringMemory
from onlooker.operators.memory.times import MOMENTS, split_moments, with_moments
from onlooker.operators.packets import Memory, PacketError, Tokens

N, D, K = 5, 16, 10


def video(frames=40, seed=0):
    return torch.randn(frames, N, D, generator=torch.Generator().manual_seed(seed))


def clustered(tokens, carried=0):
    memory = StreamingKMeans(K, carried=carried)
    state = memory.initial_state(tokens.shape[-1])
    for frame in tokens:
        state = memory.update(state, frame)
    return state


@pytest.mark.parametrize("unit", [1.0, 1e4])
def test_times_do_not_decide_what_belongs_together(unit):
    tokens = video()
    plain = clustered(tokens)
    timed = clustered(with_moments(tokens, unit * torch.arange(40.0)), MOMENTS)
    assert torch.equal(timed.counts, plain.counts)
    assert torch.equal(timed.tokens[:, :D], plain.tokens)
    # The twin: without `carried` the times, which are large, decide nearly alone.
    assert not torch.equal(clustered(with_moments(tokens, unit * torch.arange(40.0))).tokens[:, :D], plain.tokens)


def test_centres_know_the_mean_and_the_spread_of_their_times():
    # Two looks in turn: each centre gets every frame of its look, so its times are known.
    looks = torch.eye(2, D)[:, None].expand(2, N, D) * 10
    shown = [0] * 6 + [1] * 10 + [0] * 4
    tokens = looks[torch.tensor(shown)] + 0.01 * video(20)
    centers, times = split_moments(clustered(with_moments(tokens, torch.arange(20.0)), MOMENTS).tokens)
    state = clustered(tokens)
    for look in (0, 1):
        own = centers[:, look] > 5
        weights = state.counts[own] / state.counts[own].sum()
        frames = np.flatnonzero(np.array(shown) == look)
        mean = float((weights * times[own, 0]).sum())
        square = float((weights * (times[own, 1] ** 2 + times[own, 0] ** 2)).sum())
        assert mean == pytest.approx(frames.mean(), abs=1e-3)
        assert square - mean**2 == pytest.approx(frames.var(), abs=1e-2)


def test_a_single_instant_has_no_spread():
    _, times = split_moments(with_moments(video(3), torch.tensor([0.0, 0.1, 3000.7])))
    assert times[..., 1].max() < 1.0 and (times[..., 1] >= 0).all()


def run(times, horizon=8.0, frames=30, start=100.0):
    node = ClusteringMemory(ClusteringMemory.Config(size=K, horizon=horizon, times=times))
    node.open(Context())
    state, told = node.initial_state("cam"), []
    for second, frame in enumerate(video(frames).numpy()):
        t = start + second
        state, outputs = node.process(state, Inputs({"tokens": [Tokens("cam", 0, t, frame)]}, t, t))
        told += outputs.packets.get("memory", [])
    return told


def test_the_node_tells_times_since_its_memory_began():
    plain, timed = run(False), run(True)
    for without, packet in zip(plain, timed, strict=True):
        assert without.times is None and np.array_equal(without.centers, packet.centers)
        age = max(packet.t - packet.t_start, K / N - 1)  # the first packet comes with the memory that is just full
        weights = packet.counts / packet.counts.sum()
        assert packet.times.shape == (K, 2) and (packet.times[:, 0] <= age + 1e-3).all()
        # All frames since the start have N tokens each, so the mean over all centres is known.
        assert float(weights @ packet.times[:, 0]) == pytest.approx(age / 2, abs=1e-3)
    assert len({packet.t_start for packet in timed}) > 3


def test_times_of_another_number_are_refused():
    with pytest.raises(PacketError, match="times"):
        Memory("cam", 0, 1.0, np.zeros((3, D), np.float32), np.ones(3, np.int32), 0.0, K, np.zeros((2, 2), np.float32))
