"""Are captions and query events true? On generated videos whose truth is known.

Each video shows 20 photographs of a split that training has not seen. Queries are 10 captions of photographs that are
in the video and 10 of photographs that are not. The twins are the same outputs with their meaning destroyed: frames
shuffled in time, or queries swapped. A measure that a twin passes would measure nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import publish, table

from onlooker.operators.contract import SourceInfo
from onlooker.operators.localize.hysteresis import Hysteresis
from onlooker.operators.localize.node import default_thresholds
from onlooker.operators.packets import Packet, Scores
from onlooker.pipeline.assemble import make_plan, runner_factory, source_spec
from onlooker.pipeline.session import Session
from onlooker.pipeline.sinks.base import Sink
from onlooker.training.bleu import sentence_bleu
from onlooker.training.evaluate import auroc
from onlooker.training.flickr import read_split
from onlooker.training.scenes import Truth, VideoOptions, flickr_scenes, read_truth, write_scenes

Span = tuple[float, float]

FIRST_SEED = {"train": 0, "dev": 1000, "test": 2000}
"""Seed of each split's first video: those of two splits have nothing in common."""


@dataclass
class Query:
    """One query and where it is true; absent ones are true nowhere."""

    text: str
    span: Span | None


@dataclass
class Watched:
    """What came out of one video."""

    truth: Truth
    queries: list[Query]
    times: npt.NDArray[np.float64]
    """(T,) seconds."""
    scores: npt.NDArray[np.float32]
    """(T, Q)."""
    found: list[list[Span]]
    """Per query the intervals of its events."""
    captions: list[tuple[Span, str]]


class ScoreSink(Sink):
    """Collects the score curves."""

    ports = ("scores",)

    def __init__(self) -> None:
        """Start empty."""
        self.times: list[float] = []
        self.values: list[npt.NDArray[np.float32]] = []

    def open(self) -> None:
        """Nothing to prepare."""

    def start(self, info: SourceInfo, uri: str) -> None:
        """Nothing to prepare."""

    def packets(self, port: str, packets: Sequence[Packet]) -> None:
        """Keep the scores."""
        for packet in packets:
            assert isinstance(packet, Scores)
            self.times.append(packet.t)
            self.values.append(packet.values)

    def close(self) -> None:
        """Nothing to complete."""


def choose_queries(truth: Truth, data: Path, split: str, rng: np.random.Generator, count: int = 10) -> list[Query]:
    """``count`` captions of scenes in the video and as many of photographs that are not."""
    shown = rng.permutation(len(truth.scenes))[:count]
    queries = [
        Query(str(rng.choice(truth.scenes[i].captions)), (truth.scenes[i].t_start, truth.scenes[i].t_end))
        for i in shown
    ]
    photographs = read_split(data, split)
    inside = {scene.file for scene in truth.scenes}
    outside = [i for i, file in enumerate(photographs.files) if file not in inside]
    chosen = rng.choice(outside, count, replace=False)
    return queries + [Query(str(rng.choice(photographs.captions[i])), None) for i in chosen]


def watch(video: Path, truth: Truth, queries: list[Query], overrides: Sequence[str] = ()) -> Watched:
    """Run the file graph over one video."""
    graph = make_plan("file", queries=[q.text for q in queries], overrides=overrides).graph
    sink = ScoreSink()
    found: dict[str, list[Span]] = {q.text: [] for q in queries}
    captions: list[tuple[Span, str]] = []
    for event in Session(graph, runner_factory("local"), [source_spec(str(video))], [sink]).events():
        if event.phase != "end" or event.t_end is None:
            continue
        if event.kind == "caption":
            captions.append(((event.t_start, event.t_end), event.data.text))
        elif event.kind == "query":
            found[event.data.query].append((event.t_start, event.t_end))
    scores = np.stack(sink.values)
    return Watched(truth, queries, np.array(sink.times), scores, [found[q.text] for q in queries], captions)


def shuffled_frames(watched: Watched, rng: np.random.Generator) -> Watched:
    """Twin: the same samples in random order, and captions at other places."""
    scores = watched.scores[rng.permutation(len(watched.times))]
    ends = [*watched.times[1:], watched.truth.duration]
    found = [_intervals(watched.times, ends, scores[:, i]) for i in range(scores.shape[1])]
    texts = [watched.captions[i][1] for i in rng.permutation(len(watched.captions))]
    captions = [(span, text) for (span, _), text in zip(watched.captions, texts, strict=True)]
    return dataclasses.replace(watched, scores=scores, found=found, captions=captions)


def shuffled_queries(watched: Watched, rng: np.random.Generator) -> Watched:
    """Twin: what was found for one query is said of another."""
    back = rng.permutation(len(watched.queries))
    found = [watched.found[i] for i in back]
    half = len(watched.captions) // 2
    texts = [text for _, text in watched.captions[half:] + watched.captions[:half]]
    captions = [(span, text) for (span, _), text in zip(watched.captions, texts, strict=True)]
    return dataclasses.replace(watched, scores=watched.scores[:, back], found=found, captions=captions)


def _intervals(times: npt.NDArray[np.float64], ends: Sequence[float], scores: npt.NDArray[np.float32]) -> list[Span]:
    on, off = default_thresholds(calibrated=True)
    state, found = Hysteresis(), []
    for t, score in zip(times, scores, strict=True):
        if state.step(float(t), float(score), on, off) == "finish":
            assert state.t_start is not None
            found.append((state.t_start, float(t)))
            state.reset()
    if state.t_start is not None:
        found.append((state.t_start, float(ends[-1])))
    return found


def iou(a: Span, b: Span) -> float:
    """Intersection over union of two spans."""
    overlap = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return overlap / (a[1] - a[0] + b[1] - b[0] - overlap)


def measure(videos: Sequence[Watched], seed: int = 0) -> dict[str, float]:
    """All figures over a set of videos."""
    rng = np.random.default_rng(seed)
    scores, labels = [], []
    hits = predictions = truths = true_only = false_absent = 0
    absent_minutes = 0.0
    better = captions = 0
    for video in videos:
        for i, query in enumerate(video.queries):
            span = query.span
            inside = np.zeros(len(video.times), bool)
            if span is not None:
                inside = (video.times >= span[0]) & (video.times < span[1])
                truths += 1
                hit = any(iou(found, span) >= 0.5 for found in video.found[i])
                hits += hit
                true_only += len(video.found[i])
            else:
                false_absent += len(video.found[i])
                absent_minutes += video.truth.duration / 60
            predictions += len(video.found[i])
            scores.append(video.scores[:, i])
            labels.append(inside)
        for (start, end), text in video.captions:
            own = max(video.truth.scenes, key=lambda s: min(s.t_end, end) - max(s.t_start, start))
            others = [s for s in video.truth.scenes if s.file != own.file]
            other = others[rng.integers(len(others))]
            better += sentence_bleu(text, own.captions) > sentence_bleu(text, other.captions)
            captions += 1

    all_scores, all_labels = np.concatenate(scores), np.concatenate(labels)

    def f1(count: int) -> float:
        return 2 * hits / max(count + truths, 1)

    return {
        "frame AUROC": auroc(all_scores[all_labels], all_scores[~all_labels]),
        "event F1@.5": f1(predictions),
        "event F1@.5, true queries": f1(true_only),
        "false events per absent query and 10 min": false_absent / (absent_minutes / 10),
        "captions nearer to own scene": better / max(captions, 1),
    }


def make_videos(folder: Path, data: Path, split: str, count: int, scenes: int) -> list[Path]:
    """Write the videos that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{split}{i:02d}.mp4" for i in range(count)]
    for number, path in enumerate(paths):
        if not path.with_suffix(".json").exists():
            options = VideoOptions(width=480, height=270, fps=10, noise=3.0, crf=28)
            seed = FIRST_SEED[split] + number
            write_scenes(flickr_scenes(data, split, scenes, seed), path, seed=seed, options=options)
    return paths


def main() -> None:
    """Watch all videos and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("ONLOOKER_DATA"), help="folder that holds flickr8k/")
    parser.add_argument("--videos", default="cache/quality", help="where videos are kept (default: %(default)s)")
    parser.add_argument("--split", default="test", choices=["train", "dev", "test"])
    parser.add_argument("--count", type=int, default=30, help="videos (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=20, help="scenes in each (default: %(default)s)")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="NODE.KEY=VALUE")
    parser.add_argument("--out", help="also write the table to this Markdown file")
    args = parser.parse_args()
    if not args.data:
        parser.error("name the data folder by --data or ONLOOKER_DATA")
    data = Path(args.data)
    watched = []
    for seed, path in enumerate(make_videos(Path(args.videos), data, args.split, args.count, args.scenes)):
        truth = read_truth(path.with_suffix(".json"))
        queries = choose_queries(truth, data, args.split, np.random.default_rng([seed, 7]))
        watched.append(watch(path, truth, queries, args.overrides))
        print(f"{path.name}: {measure(watched[-1:])}", file=sys.stderr, flush=True)
    rng = np.random.default_rng(0)
    columns = {
        "onlooker": measure(watched),
        "twin: frames shuffled": measure([shuffled_frames(w, rng) for w in watched]),
        "twin: queries swapped": measure([shuffled_queries(w, rng) for w in watched]),
    }
    goals = [">= .90", ">= .5", "", "<= 1", ">= .85"]
    rows = [
        [name, goal, *(column[name] for column in columns.values())]
        for name, goal in zip(columns["onlooker"], goals, strict=True)
    ]
    minutes = sum(w.truth.duration for w in watched) / 60
    body = table(["measure", "goal", *columns], rows)
    body += f"\n\n{len(watched)} videos of {args.scenes} scenes of Flickr8k {args.split}, {minutes:.0f} minutes, "
    body += "10 true and 10 absent queries each."
    publish("Truth of captions and query events", body, args.out)


if __name__ == "__main__":
    main()
