"""Runs the nodes of one stage over batches, in one thread. Both runners are made of these.

This is where the engine keeps the promises of the operator contract: alignment by media time, order, one flush.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from onlooker.operators.contract import Context, ContractError, Control, Inputs, Operator, Outputs
from onlooker.operators.packets import Packet

from ..graph import Edge, Graph, Node
from .batch import Batch
from .glibc import give_back_freed_memory

__all__ = ["Stage", "StageSnapshot"]


@dataclass(slots=True)
class _NodeStream:
    """What the stage remembers of one stream at one node."""

    state: Any
    queues: dict[str, list[Packet]] = field(default_factory=dict)
    """Packets per sync port that wait for the other ports."""
    watermarks: dict[str, float] = field(default_factory=dict)
    """Per input port."""
    joint: float = -math.inf
    """The joint watermark of the last call."""
    sent: dict[str, float] = field(default_factory=dict)
    """Time of the last packet per output port."""
    out_watermarks: dict[str, float] = field(default_factory=dict)
    wake_at: float | None = None
    fresh: bool = True
    """Whether the operator has not seen it yet."""
    flushed: bool = False


@dataclass(slots=True)
class StageSnapshot:
    """All that a stage remembers."""

    streams: dict[str, dict[str, _NodeStream]] = field(default_factory=dict)
    """Stream -> node -> state and bookkeeping."""
    epochs: dict[str, int] = field(default_factory=dict)
    """Stream -> the epoch that the states belong to."""
    controls: dict[str, list[Control]] = field(default_factory=dict)
    """Stream -> what it was told so far: a fresh state of the next epoch must hear it too."""
    wishes: list[Control] = field(default_factory=list)
    """What all streams were told: one that is added later must hear it too."""
    ended: set[str] = field(default_factory=set)
    """Streams that are over; what still comes for them, such as a late control packet, passes untouched."""


class Stage:
    """The nodes of one stage, their resources and the states of all streams."""

    def __init__(self, graph: Graph, name: str, sinks: frozenset[Edge]) -> None:
        """Prepare the stage.

        Args:
            graph: the whole graph.
            name: the stage to run.
            sinks: edges that the consumer of the batches reads, besides events.
        """
        self.name = name
        self._graph = graph
        self._sinks = sinks
        self._keep = graph.needed_after(graph.stages.index(name), sinks)
        self._nodes = graph.stage_nodes(name)
        self._operators: dict[str, Operator[Any]] = {}
        self._memory = StageSnapshot()

    def open(self, *, threads_set: bool = False) -> None:
        """Make the operators and open their resources.

        Args:
            threads_set: the process was started with ``runtime.threads`` in its environment. Else torch, whose results
                depend on them in the last bits, is imported to set them for the calling thread; that takes seconds and
                hundreds of MB, which a process whose operators do without torch can save.
        """
        threads = self._graph.runtime.threads
        if not threads_set:
            import torch

            torch.set_num_threads(threads)
        device = self._graph.stage_spec(self.name).device
        for node in self._nodes:
            cls: Any = node.cls
            operator: Operator[Any] = cls(node.config)
            operator.open(Context(threads, device, self._graph.read_ports(node, self._sinks)))
            self._operators[node.name] = operator
        give_back_freed_memory()

    def close(self) -> None:
        """Close the operators."""
        for operator in self._operators.values():
            operator.close()
        self._operators.clear()

    def snapshot(self) -> StageSnapshot:
        """All states, to be pickled or copied by the caller before the next ``step``."""
        return self._memory

    def restore(self, snapshot: StageSnapshot) -> None:
        """Go on from a snapshot."""
        self._memory = snapshot

    def step(self, batches: list[Batch]) -> list[Batch]:
        """Run the nodes over one batch each of different streams.

        Args:
            batches: at most one per stream; their packets are consumed.

        Returns:
            The batches with this stage's packets added and those nobody reads any more removed.

        Raises:
            ContractError: an operator broke the contract; names the node.
        """
        started = time.perf_counter()
        going_on = [batch for batch in batches if self._begin(batch)]
        for node in self._nodes:
            self._run_node(node, going_on)
        seconds = (time.perf_counter() - started) / len(batches)
        for batch in batches:
            batch.packets = {e: p for e, p in batch.packets.items() if e in self._keep}
            batch.watermarks = {e: w for e, w in batch.watermarks.items() if e in self._keep}
            batch.timing[self.name] = seconds
            if batch.end is not None:
                self._memory.streams.pop(batch.stream, None)
            if batch.final:
                self._forget(batch.stream)
        return batches

    def _begin(self, batch: Batch) -> bool:
        """Make room for the batch's stream and epoch; False where there is nothing to do for it."""
        memory, stream = self._memory, batch.stream
        if batch.info is not None or batch.packets:
            memory.ended.discard(stream)  # a stream that was removed may be added again
        if stream in memory.ended:
            return False
        for control in batch.control:
            if control.lasting:
                known = memory.wishes if control.stream is None else memory.controls.setdefault(stream, [])
                # Each stream brings it, and the same wish may come again and again: the last time counts.
                known[:] = [*(c for c in known if c != control), control]
        # Where the end of the epoch before went to another replica, or was lost with its source, it counts as over.
        if (batch.packets or batch.end is not None) and memory.epochs.setdefault(stream, batch.epoch) != batch.epoch:
            memory.epochs[stream] = batch.epoch
            memory.streams.pop(stream, None)
        brings = bool(batch.packets or batch.watermarks or batch.control)
        return brings or batch.info is not None or stream in memory.streams

    def _forget(self, stream: str) -> None:
        self._memory.epochs.pop(stream, None)
        self._memory.controls.pop(stream, None)
        self._memory.ended.add(stream)

    def holds_back(self, stream: str) -> str | None:
        """Name of a node that keeps packets of ``stream``, or a timer, for a later call; None if none does."""
        for name, memory in self._memory.streams.get(stream, {}).items():
            if memory.wake_at is not None or any(memory.queues.values()):
                return name
        return None

    def _run_node(self, node: Node, batches: list[Batch]) -> None:
        operator = self._operators[node.name]
        calls: list[tuple[Batch, _NodeStream, Inputs]] = []
        for batch in batches:
            memory = self._node_stream(node, operator, batch.stream)
            told = tuple(batch.control)
            if memory.fresh:
                lasting = (*self._memory.wishes, *self._memory.controls.get(batch.stream, ()))
                told = (*lasting, *(c for c in told if not c.lasting))
            inputs = _gather(node, memory, batch, told)
            if inputs is not None:
                calls.append((batch, memory, inputs))
        if calls:
            results = operator.process_batch([m.state for _, m, _ in calls], [i for _, _, i in calls])
            if len(results) != len(calls):
                raise ContractError(f"node {node.name!r}: {len(results)} results for {len(calls)} inputs")
            for (batch, memory, inputs), (state, outputs) in zip(calls, results, strict=True):
                memory.state = state
                memory.wake_at = outputs.wake_at
                if batch.end is not None:
                    # The instant of the end belongs to the flush: nothing before it may claim to be final up to there.
                    before_end = math.nextafter(batch.end.t, -math.inf)
                    outputs.watermarks = {
                        port: min(outputs.watermarks.get(port, inputs.watermark), before_end)
                        for port in node.cls.outputs
                    }
                _deliver(node, memory, batch, outputs, inputs.watermark)
        for batch in batches:
            memory = self._memory.streams[batch.stream][node.name]
            if batch.end is not None and not memory.flushed:
                memory.state, outputs = operator.flush(memory.state, batch.end.t)
                outputs.watermarks = {}
                _deliver(node, memory, batch, outputs, math.inf)
                memory.flushed = True
            for port in node.cls.outputs:
                batch.watermarks[f"{node.name}.{port}"] = memory.out_watermarks.get(port, -math.inf)

    def _node_stream(self, node: Node, operator: Operator[Any], stream: str) -> _NodeStream:
        nodes = self._memory.streams.setdefault(stream, {})
        if node.name not in nodes:
            nodes[node.name] = _NodeStream(operator.initial_state(stream))
        return nodes[node.name]


def _gather(node: Node, memory: _NodeStream, batch: Batch, told: Sequence[Control]) -> Inputs | None:
    """The inputs of one call, aligned up to the joint watermark; None if there is nothing to do."""
    memory.fresh = False
    packets: dict[str, list[Packet]] = {}
    joint = math.inf
    for port, edge in node.inputs.items():
        arrived = batch.packets.get(edge, [])
        if node.ports[port].mode == "latest":
            if arrived:
                packets[port] = arrived
            continue
        memory.queues.setdefault(port, []).extend(arrived)
        memory.watermarks[port] = max(memory.watermarks.get(port, -math.inf), batch.watermarks.get(edge, -math.inf))
        joint = min(joint, memory.watermarks[port])
    for port, queue in memory.queues.items():
        cut = next((i for i, packet in enumerate(queue) if packet.t > joint), len(queue))
        if cut:
            packets[port] = queue[:cut]
            memory.queues[port] = queue[cut:]
    control = tuple(c for c in told if c.stream in (None, batch.stream))
    due = memory.wake_at is not None and memory.wake_at <= batch.now
    if not (packets or control or due or joint > memory.joint) or memory.flushed:
        return None
    memory.joint = max(joint, memory.joint)
    return Inputs(packets, watermark=joint, now=batch.now, control=control)


def _deliver(node: Node, memory: _NodeStream, batch: Batch, outputs: Outputs, default_watermark: float) -> None:
    """Put a call's outputs on the batch, after checking that they keep the contract."""
    unknown = (set(outputs.packets) | set(outputs.watermarks)) - set(node.cls.outputs)
    if unknown:
        raise ContractError(f"node {node.name!r} has no output {sorted(unknown)[0]!r}")
    for port, kind in node.cls.outputs.items():
        for packet in outputs.packets.get(port, []):
            if not isinstance(packet, kind):
                raise ContractError(f"node {node.name!r}: {port!r} gives {kind.__name__}, not {type(packet).__name__}")
            last = max(memory.sent.get(port, -math.inf), memory.out_watermarks.get(port, -math.inf))
            if packet.t <= last:
                raise ContractError(f"node {node.name!r}: {port!r} at {packet.t = } after {last}")
            memory.sent[port] = packet.t
            batch.packets.setdefault(f"{node.name}.{port}", []).append(packet)
        watermark = outputs.watermarks.get(port, default_watermark)
        memory.out_watermarks[port] = max(watermark, memory.out_watermarks.get(port, -math.inf))
