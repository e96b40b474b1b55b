"""What does one update of the clustering memory cost, next to the matrix products that it cannot do without?

An update with two K-means steps needs two products of all points with all centres. In turns, on the same tokens:

* products: those two products alone;
* update: `StreamingKMeans.update`, with the assignments of the explicit formula;
* rough: distances by product, averages by one-hot product, rounding ignored;
* explicit: differences of all pairs (left out in most rounds, it is slow).

The tokens are those of a stream in its tenth frame, of several kinds: the harder for rounding, the more pairs have to
be measured explicitly. `streams` updates several memories in one call.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from unittest.mock import patch

import torch
from common import publish, spread, table
from torch import Tensor

from onlooker.operators.memory import nearest
from onlooker.operators.memory.clustering import MemoryState, StreamingKMeans

SIZES = {"published": (514, 1024, 257), "tiny": (98, 1280, 49)}
"""K memory tokens of width D, N new ones."""
ITERATIONS = 2


def unrelated(tokens: int, width: int, seed: int) -> Iterator[Tensor]:
    """Frames of independent noise."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(tokens, width, generator=generator)


def camera(tokens: int, width: int, seed: int) -> Iterator[Tensor]:
    """A quiet scene: what all tokens share, what each place shows, and a little noise on it."""
    generator = torch.Generator().manual_seed(seed)
    place = 5.0 * torch.randn(width, generator=generator) + torch.randn(tokens, width, generator=generator)
    while True:
        yield place + 0.05 * torch.randn(tokens, width, generator=generator)


def still(tokens: int, width: int, seed: int) -> Iterator[Tensor]:
    """The same frame again and again: every centre has a twin that rounding moves by a last bit."""
    frame = next(camera(tokens, width, seed))
    while True:
        yield frame


KINDS: dict[str, Callable[[int, int, int], Iterator[Tensor]]] = {
    "unrelated frames": unrelated,
    "quiet camera": camera,
    "still picture": still,
}


def stream(kind: str, size: str, seed: int = 0, frames: int = 10) -> tuple[MemoryState, Tensor]:
    """A memory after some frames, and the next frame."""
    capacity, width, tokens = SIZES[size]
    memory, source = StreamingKMeans(capacity, ITERATIONS), KINDS[kind](tokens, width, seed)
    state = memory.initial_state(width)
    for _ in range(frames):
        state = memory.update(state, next(source))
    return state, next(source)


def products(state: MemoryState, frame: Tensor) -> None:
    """The products of all points with all centres that the steps need."""
    data = torch.cat([state.tokens, frame])
    for _ in range(ITERATIONS):
        data @ state.tokens.T


def by_distance(measure: Callable[[Tensor, Tensor], Tensor], state: MemoryState, frame: Tensor) -> None:
    """The plain update: distances (n, K) of all pairs by `measure`, averages by a one-hot product."""
    data = torch.cat([state.tokens, frame])
    weights = torch.cat([state.counts, torch.ones(len(frame), dtype=torch.int32)])
    centers = state.tokens
    for _ in range(ITERATIONS):
        member = torch.nn.functional.one_hot(measure(data, centers).argmin(1), len(centers)) * weights[:, None]
        counts = member.sum(0)[:, None]
        centers = torch.where(counts != 0, member.float().T @ data / counts.clamp(min=1), centers)


def rough(data: Tensor, centers: Tensor) -> Tensor:
    """Squared distances less |x|^2, as one product rounds them."""
    return torch.addmm(centers.square().sum(1), data, centers.T, alpha=-2.0)


def explicit(data: Tensor, centers: Tensor) -> Tensor:
    """Distances by differences, a point at a time so that they fit into the cache."""
    return torch.stack([(point - centers).square().sum(1).sqrt() for point in data])


def seconds(call: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Time of one call; by default CPU seconds, which other processes of the machine disturb least."""
    started = clock()
    call()
    return clock() - started


def measured_pairs(call: Callable[[], object]) -> int:
    """How many distances are taken explicitly during a call."""
    counted = 0

    def count(points: Tensor, row: Tensor, centers: Tensor, column: Tensor) -> Tensor:
        nonlocal counted
        counted += len(row)
        return measure(points, row, centers, column)

    measure = nearest.paired_distance
    with patch.object(nearest, "paired_distance", count):
        call()
    return counted


def compare(kind: str, size: str, rounds: int) -> list[object]:
    """One row of the table: all ways in turns."""
    state, frame = stream(kind, size)
    memory = StreamingKMeans(SIZES[size][0], ITERATIONS)
    ways: dict[str, Callable[[], object]] = {
        "products": lambda: products(state, frame),
        "update": lambda: memory.update(state, frame),
        "rough": lambda: by_distance(rough, state, frame),
        "explicit": lambda: by_distance(explicit, state, frame),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, call in ways.items():
            if name == "explicit" and turn > 3:
                continue
            took = seconds(call)
            if turn:  # the first round warms caches up
                found[name].append(took * 1e3)
    ratio = statistics.median(u / p for u, p in zip(found["update"], found["products"], strict=True))
    pairs = measured_pairs(ways["update"])
    return [size, kind, *(spread(found[name]) for name in ways), ratio, pairs]


def batched(size: str, streams: int, rounds: int, device: str) -> list[object]:
    """Several memories in one call against one after the other: milliseconds per memory."""
    pairs = [stream("quiet camera", size, seed) for seed in range(streams)]
    states = [MemoryState(s.tokens.to(device), s.counts.to(device), s.frames) for s, _ in pairs]
    frames = [frame.to(device) for _, frame in pairs]
    memory = StreamingKMeans(SIZES[size][0], ITERATIONS)

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    def singly() -> None:
        for state, frame in zip(states, frames, strict=True):
            memory.update(state, frame)
        wait()

    def together() -> None:
        memory.update_all(states, frames)
        wait()

    clock = time.process_time if device == "cpu" else time.perf_counter
    one, all_ = [], []
    for turn in range(rounds + 1):
        took = seconds(singly, clock), seconds(together, clock)
        if turn:
            one.append(took[0] * 1e3 / streams)
            all_.append(took[1] * 1e3 / streams)
    gain = statistics.median(a / b for a, b in zip(one, all_, strict=True))
    return [size, streams, device, spread(one), spread(all_), gain]


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each way (default: %(default)s)")
    parser.add_argument("--streams", type=int, nargs="*", default=[2, 8, 64], help="memories per call")
    parser.add_argument("--device", default="cpu", help="of the table of streams (default: %(default)s)")
    parser.add_argument("--out", help="also write the tables to this Markdown file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [compare(kind, size, args.rounds) for size in SIZES for kind in KINDS]
    header = ["size", "tokens", "products, ms", "update, ms", "rough, ms", "explicit, ms", "update / products", "pairs"]
    body = table(header, rows)
    body += "\n\n" + table(
        ["size", "streams", "device", "one by one, ms a memory", "in one call, ms a memory", "gain"],
        [batched("tiny", count, max(3, args.rounds // 3), args.device) for count in args.streams],
    )
    sizes = "; ".join(f"{name}: K={k}, D={d}, {n} new tokens" for name, (k, d, n) in SIZES.items())
    body += (
        f"\n\n{sizes}; {ITERATIONS} steps. CPU time of one thread (wall time on other devices); {args.rounds} rounds, "
    )
    body += (
        "median (min-max), the ratio is the median of theirs. `pairs` are measured explicitly, of all (K + N) x K in "
    )
    body += "each step."
    publish("Update of the clustering memory", body, args.out)


if __name__ == "__main__":
    main()
