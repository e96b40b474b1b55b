"""What the benchmarks of dense captions share: streams of scenes, captioning them, and scoring what was told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from onlooker.operators.caption.dense_node import DenseCaptioner
from onlooker.operators.caption.metrics.dense import VideoCaptions
from onlooker.operators.caption.metrics.meteor import Meteor
from onlooker.operators.caption.metrics.protocols import evaluate
from onlooker.operators.caption.wordpiece import WordPiece
from onlooker.operators.contract import Context, Inputs
from onlooker.operators.memory.node import ClusteringMemory
from onlooker.operators.packets import Tokens
from onlooker.operators.tower import load_tower
from onlooker.training.captions import Split
from onlooker.training.dvc_scenes import SceneRecipe, SceneVideos
from onlooker.training.flickr import read_split

SCORES = ("CIDEr", "METEOR", "SODA_c", "F1", "precision", "recall")


@dataclass(frozen=True)
class Told:
    """One caption and its time, seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class SceneStream:
    """What a tower sees of a stream, one frame a second, and what happens in it."""

    tokens: torch.Tensor
    """(T, N, D) float32."""
    truth: list[Told]


def encoded(data: Path, split: str, count: int) -> Split:
    """The first photographs of a split as the `tiny` tower sees them, one view each."""
    photographs = read_split(data, split)
    tower = load_tower("tiny", parts="image")
    tokens = []
    for name in track(photographs.files[:count], f"encoding photographs of {split}"):
        with Image.open(photographs.images / name) as image:
            tokens.append(tower.encode_frames(tower.preprocess([image.convert("RGB")]), batch=1).tokens)
    views = torch.stack(tokens).numpy().astype(np.float16)  # P, 1, N, D
    captions = [list(texts) for texts in photographs.captions[:count]]
    return Split(views, np.ones(views.shape[:2], np.bool_), captions)


def draw_streams(
    photographs: Split, vocabulary: WordPiece, count: int, recipe: SceneRecipe, seed: int = 0
) -> list[SceneStream]:
    """Random streams of photographs, the same for the same seed; every event has its photograph's first caption."""
    videos = SceneVideos(photographs, vocabulary, recipe)
    streams = []
    for number in range(count):
        video, shown = videos.draw(np.random.default_rng([seed, number]))
        times = zip(video.events.start_us, video.events.end_us, strict=True)
        truth = [
            Told(float(start) / 1e6, float(end) / 1e6, photographs.captions[photograph][0])
            for (start, end), photograph in zip(times, shown, strict=True)
        ]
        streams.append(SceneStream(video.tokens, truth))
    return streams


class Watcher:
    """Captions streams as the graph `dense` does, with its memory and its decoder."""

    def __init__(self, model: str, horizon: float, interval: float, beam: int | None = None) -> None:
        """Load the model."""
        self.memory = ClusteringMemory(ClusteringMemory.Config(horizon=horizon, times=True))
        config = DenseCaptioner.Config(model=model, interval=interval, beam=beam, shortest=1.0)  # as in the graph
        self.captioner = DenseCaptioner(config)
        self.memory.open(Context())
        self.captioner.open(Context())

    def __call__(self, tokens: torch.Tensor) -> list[Told]:
        """The captions of one stream (T, N, D) at one frame a second, as they stand in the end."""
        kept, state = self.memory.initial_state("s"), self.captioner.initial_state("s")
        events = []
        for second, frame in enumerate(tokens.numpy()):
            t = float(second)
            kept, made = self.memory.process(kept, Inputs({"tokens": [Tokens("s", 0, t, frame)]}, t, t))
            mark = made.watermarks.get("memory", t)
            state, told = self.captioner.process(state, Inputs({"memory": made.packets.get("memory", [])}, mark, t))
            events += told.packets.get("events", [])
        end = float(len(tokens))
        kept, made = self.memory.flush(kept, end)
        if made.packets:
            state, told = self.captioner.process(state, Inputs({"memory": made.packets["memory"]}, end, end))
            events += told.packets.get("events", [])
        _, told = self.captioner.flush(state, end)
        events += told.packets.get("events", [])
        ended = [event.data for packet in events for event in packet.events if event.data.phase == "end"]
        return sorted((Told(e.t_start, e.t_end, e.text) for e in ended), key=lambda caption: caption.start)


def in_chunks(watch: Watcher, tokens: torch.Tensor, seconds: int) -> list[Told]:
    """One caption for every `seconds` of the stream, each written from those frames alone by the same decoder."""
    told = []
    for start in range(0, len(tokens), seconds):
        frames = tokens[start : start + seconds]
        captions = watch(frames)
        if captions:
            longest = max(captions, key=lambda caption: caption.end - caption.start)
            told.append(Told(float(start), float(start + len(frames)), longest.text))
    return told


def score(streams: Sequence[SceneStream], told: Sequence[list[Told]], meteor: Meteor | None) -> dict[str, float]:
    """Scores by the reference's protocol (see `onlooker eval dense-captions`), and captions per true event."""
    videos = [
        VideoCaptions.make(
            str(number),
            [(c.start * 1e6, c.end * 1e6) for c in captions],
            [c.text for c in captions] or [""],
            [(c.start * 1e6, c.end * 1e6) for c in stream.truth],
            [c.text for c in stream.truth],
        )
        for number, (stream, captions) in enumerate(zip(streams, told, strict=True))
    ]
    report = evaluate(videos, "reference", meteor=meteor)
    per_event = sum(map(len, told)) / sum(len(stream.truth) for stream in streams)
    return {**report.scores, "captions per event": per_event}
