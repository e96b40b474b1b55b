"""What Ray costs per frame: batches of 8 frames of 224 x 224 through an operator that does next to nothing.

    python -m benchmarks.ray_overhead [--batches 200]

Start-up is not counted: the clock runs from the second batch of results to the last.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from onlooker.operators.contract import (
    Config,
    Context,
    End,
    Inputs,
    Operator,
    Outputs,
    Port,
    Source,
    SourceInfo,
    SourceOutputs,
)
from onlooker.operators.packets import Embedding, Frame, Packet
from onlooker.pipeline.config import RuntimeSpec, StageSpec
from onlooker.pipeline.graph import Graph, Node
from onlooker.pipeline.runtime.batch import SourceSpec
from onlooker.pipeline.runtime.local import LocalRunner
from onlooker.pipeline.runtime.ray_runner import RayRunner
from onlooker.pipeline.session import Runner

BATCH = 8
SIZE = 224


class NoiseConfig(Config):
    """How much to deliver."""

    batches: int = 200


class Noise(Source[int]):
    """Batches of fresh frames, filled so that their memory is touched."""

    Config = NoiseConfig
    outputs = {"frames": Frame}
    config: NoiseConfig

    def open(self, context: Context) -> SourceInfo:
        """Nothing to open."""
        return SourceInfo(self.stream, 0, SIZE, SIZE)

    def initial_cursor(self) -> int:
        """Frame 0."""
        return 0

    def read(self, cursor: int) -> tuple[int, SourceOutputs]:
        """One batch."""
        stop = cursor + BATCH
        frames: list[Packet] = [
            Frame(self.stream, 0, float(i), np.full((SIZE, SIZE, 3), i % 251, np.uint8), i, (SIZE, SIZE))
            for i in range(cursor, stop)
        ]
        end = End("complete", float(stop)) if stop >= self.config.batches * BATCH else None
        return stop, SourceOutputs({"frames": frames}, float(stop - 1), end)


class Glance(Operator[None]):
    """Looks at one line of each frame."""

    inputs: ClassVar[Mapping[str, Port]] = {"frames": Port(Frame)}
    outputs = {"mean": Embedding}
    keyed = False

    def initial_state(self, stream: str) -> None:
        """No state."""
        return None

    def process_batch(self, states: list[None], inputs: list[Inputs]) -> list[tuple[None, Outputs]]:
        """The mean of the first line."""
        return [
            (None, Outputs({"mean": [Embedding(f.stream, 0, f.t, f.pixels[0].mean(0, dtype=np.float32)) for f in fs]}))
            for fs in (one.packets.get("frames", []) for one in inputs)
        ]


def noise_graph(batches: int) -> Graph:
    """noise -> glance."""
    nodes = (
        Node("noise", "noise", Noise, NoiseConfig(batches=batches), {}, "decode"),
        Node("glance", "glance", Glance, Config(), {"frames": "noise.frames"}, "models"),
    )
    return Graph("overhead", "", nodes, RuntimeSpec(), {"models": StageSpec()})


def loop(batches: int) -> tuple[float, float]:
    """Seconds, and CPU seconds, per batch of the same source and operator without an engine."""
    source, operator = Noise(NoiseConfig(batches=batches), "", "noise"), Glance(Config())
    cursor = source.initial_cursor()
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(batches):
        cursor, outputs = source.read(cursor)
        operator.process(None, Inputs(outputs.packets, outputs.watermark, outputs.watermark))
    return (time.perf_counter() - began) / batches, (time.process_time() - cpu) / batches


def engine(make: type[Runner], batches: int) -> tuple[float, float]:
    """The same with an engine around it; CPU seconds are those of this process only."""
    runner = make(noise_graph(batches), frozenset({"glance.mean"}))  # type: ignore[call-arg]
    times = []
    for _ in runner.run([SourceSpec("noise", "noise")]):
        times.append((time.perf_counter(), time.process_time()))
    (first, first_cpu), (last, last_cpu) = times[1], times[-1]
    return (last - first) / (len(times) - 2), (last_cpu - first_cpu) / (len(times) - 2)


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, default=200, help="batches of 8 frames (default: %(default)s)")
    batches = parser.parse_args().batches
    rows = [
        ("plain loop", *loop(batches)),
        ("local", *engine(LocalRunner, batches)),
        ("ray", *engine(RayRunner, batches)),
    ]
    machine = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"{BATCH} frames of {SIZE} x {SIZE} a batch, {batches} batches, {machine}")
    print(f"{'engine':<12}{'ms/frame':>10}{'over loop':>11}{'driver CPU ms/frame':>21}")
    for name, wall, cpu in rows:
        per_frame, over = wall * 1e3 / BATCH, (wall - rows[0][1]) * 1e3 / BATCH
        print(f"{name:<12}{per_frame:>10.3f}{over:>11.3f}{cpu * 1e3 / BATCH:>21.3f}")


if __name__ == "__main__":
    main()
