"""Videos with queries whose truth is known, and what a tower sees of them; see `localization.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onlooker.operators.contract import SourceInfo
from onlooker.operators.packets import Embedding, Packet
from onlooker.pipeline.assemble import make_plan, runner_factory, source_spec
from onlooker.pipeline.session import Session
from onlooker.pipeline.sinks.base import Sink
from onlooker.training.moment_scenes import MomentLibrary, MomentQuery, read_moment_video, write_moment_video

Array = npt.NDArray[np.float32]

GRAPH = Path(__file__).with_name("localization.yaml")
FIRST_SEED = {"dev": 1500, "test": 2500}
"""Seed of each split's first video."""


@dataclass(frozen=True)
class Seen:
    """One video as the tower sees it, and what is asked about it."""

    name: str
    path: Path
    times: npt.NDArray[np.float64]
    """(T,) seconds of the samples."""
    features: Array
    """(T, E) as the tower gives them."""
    end: float
    """Seconds."""
    queries: tuple[MomentQuery, ...]

    def packets(self) -> list[Embedding]:
        """What comes out of the tower's node."""
        return [Embedding(self.name, 0, float(t), f) for t, f in zip(self.times, self.features, strict=True)]


class EmbeddingSink(Sink):
    """Collects what the tower gives."""

    ports = ("embedding",)

    def __init__(self) -> None:
        self.packets_seen: list[Embedding] = []

    def open(self) -> None:
        """Nothing to prepare."""

    def start(self, info: SourceInfo, uri: str) -> None:
        """Nothing to prepare."""

    def packets(self, port: str, packets: Sequence[Packet]) -> None:
        self.packets_seen += [p for p in packets if isinstance(p, Embedding)]

    def close(self) -> None:
        """Nothing to complete."""


def make_videos(folder: Path, data: Path, split: str, count: int) -> list[Path]:
    """Write the videos of a split that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{split}{i:02d}.mp4" for i in range(count)]
    missing = [path for path in paths if not path.with_suffix(".queries.json").exists()]
    if missing:
        library = MomentLibrary(data, split)
        for path in missing:
            print(f"writing {path.name}", file=sys.stderr, flush=True)
            write_moment_video(library, path, seed=FIRST_SEED[split] + int(path.stem.removeprefix(split)))
    return paths


def see(path: Path) -> Seen:
    """Decode a video and encode its samples as graphs do; kept in a file beside the video."""
    asked = read_moment_video(path)
    kept = path.with_suffix(".npz")
    if not kept.exists():
        times, features = watch_features(path)
        np.savez(kept, times=times, features=features)
    with np.load(kept) as arrays:
        times, features = arrays["times"], arrays["features"]
    return Seen(path.stem, path, times, features, asked.truth.duration, asked.queries)


def watch_features(path: Path) -> tuple[npt.NDArray[np.float64], Array]:
    """Times (T,) and raw features (T, E) of the samples of a video, from decoder and tower of the graph."""
    graph = make_plan(str(GRAPH), queries=["anything"]).graph.without(["moments"])
    sink = EmbeddingSink()
    for _ in Session(graph, runner_factory("local"), [source_spec(str(path))], [sink]).events():
        pass
    seen = sink.packets_seen
    return np.array([p.t for p in seen]), np.stack([p.features for p in seen])
