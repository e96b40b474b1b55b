"""Object models for tests: small and random ones, and one whose association is always right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onlooker.operators.contract import Context, Inputs
from onlooker.operators.events import TrackEvent
from onlooker.operators.objects.densevoc.association import AssociationConfig
from onlooker.operators.objects.densevoc.config import DetectorConfig, ProposalConfig, RoiConfig
from onlooker.operators.objects.densevoc.load import save_object_model
from onlooker.operators.objects.densevoc.model import DenseVoc, DenseVocConfig, TrackingConfig
from onlooker.operators.objects.densevoc.trunk_pyramid import TrunkPyramidConfig
from onlooker.operators.objects.tracker_node import ObjectTracker, ObjectTrackerConfig
from onlooker.operators.packets import Detections, Frame, Packet, Tokens

FPS = 2.0
CHANNELS = 8
RESOLUTION = 2
KINDS = RESOLUTION**2 * CHANNELS
"""Objects that the right association can tell apart."""


def random_model(seed: int = 0, maps: tuple[int, ...] = (6, 10, 12)) -> DenseVoc:
    """A small model on a trunk's maps."""
    torch.manual_seed(seed)
    config = DetectorConfig(
        backbone=None,
        channels=CHANNELS,
        strides=(8, 16, 32),
        proposals=ProposalConfig(CHANNELS, 1, 2, 0.99, candidates=60, proposals=20),
        roi=RoiConfig(widths=(16,), resolution=3, nms_threshold=0.99, score_threshold=0.0, detections=6),
    )
    association = AssociationConfig(KINDS, KINDS, 4)
    tracking = TrackingConfig(resolution=RESOLUTION, threshold=0.7)
    return DenseVoc(DenseVocConfig(config, TrunkPyramidConfig(maps, CHANNELS, 2), association, None, tracking)).eval()


def right_model() -> DenseVoc:
    """A model that takes features for one object if they are the same unit vector, see `feature`."""
    model = random_model()
    with torch.no_grad():
        for parameter in model.association.parameters():
            parameter.zero_()
        model.association.fc1.weight.copy_(torch.eye(KINDS))
        model.association.fc2.weight.copy_(3 * torch.eye(KINDS))
        model.association.decoder.mlp_out.bias.fill_(-1)  # logits of 6 and -3
    return model


def save(folder: Path, model: DenseVoc, **settings: Any) -> Path:
    save_object_model(folder, model, tower="tiny", settings=settings)
    return folder


def feature(kind: int) -> Any:
    """What the right association knows object `kind` by."""
    return np.eye(KINDS, dtype=np.float32)[kind].reshape(RESOLUTION**2, CHANNELS)


def box_of(kind: int, t: float) -> list[float]:
    """Where object `kind` is at media time `t`."""
    x, y = 0.03 * (kind % 20), 0.02 * (t % 20)
    return [x, y, x + 0.2, y + 0.3]


def detections(
    frames: Iterable[Sequence[int]], score: float = 0.9, names: bool = False, start: int = 0
) -> list[Detections]:
    """One packet for each frame, with the objects that it shows."""
    packets = []
    for number, kinds in enumerate(frames, start):
        t = number / FPS
        boxes = np.float32([box_of(kind, t) for kind in kinds]).reshape(-1, 4)
        scores = np.full(len(kinds), score, np.float32)
        features = np.stack([feature(k) for k in kinds]) if kinds else np.zeros((0, RESOLUTION**2, CHANNELS), "f4")
        called = tuple(f"thing {kind}" for kind in kinds) if names else None
        looks = features.reshape(len(kinds), KINDS)
        packets.append(Detections("s", 0, t, boxes, scores, features, called, looks))
    return packets


def tokens(packets: Iterable[Detections], shape: tuple[int, int] = (3, 4), width: int = 5) -> list[Tokens]:
    """The tower's view of the same frames; cells tell the frame and their place."""
    found = []
    for packet in packets:
        grid = np.full((shape[0] * shape[1], width), packet.t, np.float32)
        grid[:, 0] = np.arange(len(grid))
        found.append(Tokens(packet.stream, packet.epoch, packet.t, grid, shape=shape))
    return found


class Teller:
    """Describes a track by how many views it was shown and of when; remembers what it was asked."""

    def __init__(self, views: int = 6) -> None:
        self.views = views
        self.asked: list[list[float]] = []

    def tokens(self, grid: Any, boxes: Any) -> Any:
        assert grid.ndim == 3 and boxes.shape[1] == 4
        return np.tile(grid[0, 0], (len(boxes), 2, 1))

    def caption(self, tracks: Sequence[Any]) -> list[tuple[str, float]]:
        assert all(views.ndim == 3 and views.dtype == np.float32 for views in tracks)
        times = [views[:, 0, 1].tolist() for views in tracks]
        self.asked += times
        return [(f"seen {len(own)} times from {own[0]:.1f} to {own[-1]:.1f}", 0.5) for own in times]


class Watcher:
    """Describes a track by the sizes and the first bytes of its cut-outs."""

    views = 2

    def look(self, frame: Any, boxes: Any, aspect: float) -> list[Any]:
        assert frame.dtype == np.uint8 and boxes.shape[1] == 4 and aspect > 0
        sides = frame.shape[1::-1] * 2
        corners = (boxes * np.array(sides)).astype(int)
        return [frame[y0 : y1 + 1, x0 : x1 + 1] for x0, y0, x1, y1 in corners]

    def caption(self, tracks: Sequence[Any]) -> list[tuple[str, float]]:
        assert all(view.dtype == np.uint8 for views in tracks for view in views)
        return [(" ".join(str(view[0, 0].tolist()) for view in views), 0.5) for views in tracks]


def tracker(folder: Path, teller: Teller | Watcher | None = None, **config: Any) -> ObjectTracker:
    """An open tracker."""
    operator = ObjectTracker(ObjectTrackerConfig(model=str(folder), captioner=None, **config))
    operator.open(Context())
    operator._describer = teller
    return operator


def pictures(packets: Iterable[Detections], size: tuple[int, int] = (48, 64)) -> list[Frame]:
    """The same frames as noise; that of object `k` is where it is, and always the same."""
    found = []
    for index, packet in enumerate(packets):
        pixels = np.zeros((*size, 3), np.uint8)
        for feature_of, box in zip(packet.features, packet.boxes, strict=True):
            x0, y0, x1, y1 = (box * np.tile(size[::-1], 2)).astype(int)
            noise = np.random.default_rng(int(feature_of.argmax())).integers(0, 255, (*size, 3), np.uint8)
            pixels[y0:y1, x0:x1] = noise[: y1 - y0, : x1 - x0]
        found.append(Frame(packet.stream, packet.epoch, packet.t, pixels, index, size[::-1]))
    return found


def run(
    operator: ObjectTracker,
    packets: Sequence[Detections],
    seen: Sequence[Tokens] = (),
    chunk: int | None = None,
    frames: Sequence[Frame] = (),
) -> list[tuple[float, TrackEvent]]:
    """All events with the time they were told at; the stream ends one frame after its last."""
    chunk = chunk or max(1, len(packets))
    state, told = operator.initial_state("s"), []
    for start in range(0, len(packets), chunk):
        part = packets[start : start + chunk]
        given: dict[str, Sequence[Packet]] = {"detections": part}
        for port, others in (("tokens", seen), ("frames", frames)):
            given[port] = [packet for packet in others if part[0].t <= packet.t <= part[-1].t]
        state, outputs = operator.process(state, Inputs(given, part[-1].t, part[-1].t))
        told += outputs.packets.get("events", [])
    state, outputs = operator.flush(state, (packets[-1].t if packets else 0.0) + 1 / FPS)
    told += outputs.packets.get("events", [])
    assert [packet.t for packet in told] == sorted({packet.t for packet in told})
    return [(packet.t, event) for packet in told for event in packet.events]
