"""The memory node: what a stream has shown, in a fixed number of tokens, for streams of any length."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import Field

from ..contract import Config, Context, Inputs, Operator, Outputs, Port
from ..packets import Memory, Packet, Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from .clustering import MemoryState, StreamingKMeans

__all__ = ["ClusteringMemory", "ClusteringMemoryConfig", "ClusteringMemoryState"]


class ClusteringMemoryConfig(Config):
    """Settings of the clustering memory."""

    size: int | None = Field(
        default=None,
        ge=1,
        description="Tokens of a full memory, a multiple of those of a frame; default: two frames'.",
    )
    iterations: int = Field(default=2, ge=1, description="K-means steps per frame.")
    horizon: float | None = Field(
        default=60.0,
        gt=0,
        description="Seconds after which the past is forgotten: a memory is between half of it and all of it old. "
        "null keeps one memory for ever.",
    )
    times: bool = Field(
        default=False, description="Keep when the tokens behind each centre were seen; some captioners need it."
    )


@dataclass(slots=True)
class _Generation:
    """One of the two memories: all frames since it was started."""

    number: int
    t_start: float
    memory: MemoryState


@dataclass(slots=True)
class ClusteringMemoryState:
    """What the memory node remembers of one stream; constant in size once two memories are full."""

    stream: str
    epoch: int = 0
    capacity: int = 0
    """Tokens of a full memory."""
    t_first: float | None = None
    """Media time of the first frame; restarts are counted from here."""
    generations: list[_Generation] = field(default_factory=list)
    """The older memory, which is the one that is told, then the younger."""
    held: list[float] = field(default_factory=list)
    """Times of the frames whose memory is not full yet."""


class ClusteringMemory(Operator[ClusteringMemoryState]):
    """Clusters all tokens of a stream into K centres (Streaming DVC), and forgets in time.

    The paper's memory weighs the past by the number of its tokens and so can no longer take in anything new after an
    hour of the same. Therefore two memories run, each restarted every `horizon`, half of it apart, and the older one is
    told. A stream no longer than the horizon has the paper's memory, bit for bit.

    The first frames fill the memory: their packets come, all with the full memory, once it is full, or at the end of a
    shorter stream with the tokens there are.
    """

    Config = ClusteringMemoryConfig
    inputs = {"tokens": Port(Tokens)}
    outputs = {"memory": Memory}

    config: ClusteringMemoryConfig

    def open(self, context: Context) -> None:
        """Nothing to load but torch."""
        import torch

        from . import clustering, times

        self._torch = torch
        self._clustering = clustering
        self._times = times
        self._device = context.device

    def initial_state(self, stream: str) -> ClusteringMemoryState:
        """No frame, no memory."""
        return ClusteringMemoryState(stream)

    def process_batch(
        self, states: list[ClusteringMemoryState], inputs: list[Inputs]
    ) -> list[tuple[ClusteringMemoryState, Outputs]]:
        """Update the memories frame by frame, those of all streams together."""
        arriving = [given.packets.get("tokens", ()) for given in inputs]
        told: list[list[Packet]] = [[] for _ in states]
        for step in range(max(map(len, arriving), default=0)):
            streams = [i for i, packets in enumerate(arriving) if step < len(packets)]
            self._take([states[i] for i in streams], [arriving[i][step] for i in streams])
            for i in streams:
                if self._full(states[i]):
                    told[i] += self._tell(states[i])
        return [(state, self._outputs(state, packets)) for state, packets in zip(states, told, strict=True)]

    def flush(self, state: ClusteringMemoryState, t_end: float) -> tuple[ClusteringMemoryState, Outputs]:
        """Tell of frames still held, in a memory that is not full."""
        return state, Outputs({"memory": self._tell(state)} if state.held else {})

    def _take(self, states: list[ClusteringMemoryState], packets: list[Tokens]) -> None:
        """Update each state with a frame; memories of one capacity in one call."""
        groups: dict[int, list[tuple[_Generation, Tensor]]] = {}
        for state, packet in zip(states, packets, strict=True):
            # A copy, since arrays of packets are read-only.
            tokens = self._torch.from_numpy(packet.all.copy()).to(self._device)  # N, D
            state.epoch = packet.epoch
            state.capacity = self.config.size or 2 * tokens.shape[0]
            carried = self._times.MOMENTS if self.config.times else 0
            self._restart(state, packet.t, tokens.shape[1] + carried)
            state.held.append(packet.t)
            groups.setdefault(state.capacity, []).extend(
                (generation, self._timed(tokens, packet.t - generation.t_start)) for generation in state.generations
            )
        for capacity, group in groups.items():
            updated = self._kmeans(capacity).update_all([g.memory for g, _ in group], [tokens for _, tokens in group])
            for (generation, _), memory in zip(group, updated, strict=True):
                generation.memory = memory

    def _timed(self, tokens: Tensor, t: float) -> Tensor:
        """Tokens (N, D) of a frame as a memory takes them that started `t` seconds before."""
        if not self.config.times:
            return tokens
        return self._times.with_moments(tokens[None], self._torch.tensor([t], device=tokens.device))[0]

    def _kmeans(self, capacity: int) -> StreamingKMeans:
        carried = self._times.MOMENTS if self.config.times else 0
        return self._clustering.StreamingKMeans(capacity, self.config.iterations, carried=carried)

    def _full(self, state: ClusteringMemoryState) -> bool:
        return self._kmeans(state.capacity).ready(state.generations[0].memory)

    def _restart(self, state: ClusteringMemoryState, t: float, width: int) -> None:
        """Start a memory every half horizon, and drop the one before the one before."""
        if state.t_first is None:
            state.t_first = t
        horizon = self.config.horizon
        number = 0 if horizon is None else math.floor((t - state.t_first) / (horizon / 2))
        state.generations = [kept for kept in state.generations if kept.number >= number - 1]
        if not state.generations or state.generations[-1].number < number:
            empty = self._kmeans(state.capacity).initial_state(width, device=self._device)
            state.generations.append(_Generation(number, t, empty))

    def _outputs(self, state: ClusteringMemoryState, told: list[Packet]) -> Outputs:
        outputs = Outputs({"memory": told} if told else {})
        if state.held:
            # What is held comes later under its own, earlier time.
            outputs.watermarks["memory"] = math.nextafter(state.held[0], -math.inf)
        return outputs

    def _tell(self, state: ClusteringMemoryState) -> list[Packet]:
        """A packet for each held frame, all with the older memory as it is now."""
        older = state.generations[0]
        tokens, times = older.memory.tokens, None
        if self.config.times:
            tokens, spread = self._times.split_moments(tokens)
            times = spread.cpu().numpy()
        centers, counts = tokens.contiguous().cpu().numpy(), older.memory.counts.cpu().numpy()
        told, state.held = state.held, []
        return [
            Memory(state.stream, state.epoch, t, centers, counts, min(older.t_start, t), state.capacity, times)
            for t in told
        ]
