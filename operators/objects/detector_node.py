"""The detector as a node: a tower's feature maps to boxes with features, batched across streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import Field

from ..contract import Config, Context, Inputs, Operator, Outputs, Port
from ..packets import Detections, FeatureMaps, FloatArray

if TYPE_CHECKING:
    from .detecting import FrameDetector, View

__all__ = ["ObjectDetector", "ObjectDetectorConfig"]


class ObjectDetectorConfig(Config):
    """Settings of the detector."""

    model: str = Field(default="tiny", description="Detector: tiny, which comes with the package, or a folder.")
    least_score: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Detections below are left out; default: the model's own, and all of another detector's.",
    )
    most: int = Field(default=16, ge=1, description="Detections of a frame, the best ones.")
    batch: int = Field(default=4, ge=1, description="Frames in one model call; fewer are filled up with zeros.")


class ObjectDetector(Operator[None]):
    """Finds the objects of every frame, whatever they are, in the maps that the tower's one pass left.

    With `proposals`, the detections of another detector are taken instead, the best `most` of a frame: their boxes,
    scores and names stay, and get the features by which an `object_tracker` tells objects apart. Scores of other
    detectors may mean something else: set the tracker's `birth_score` to what they begin a track at.
    """

    Config = ObjectDetectorConfig
    inputs = {"features": Port(FeatureMaps), "proposals": Port(Detections, optional=True)}
    outputs = {"detections": Detections}
    keyed = False

    config: ObjectDetectorConfig

    def open(self, context: Context) -> None:
        """Load the model.

        Raises:
            OnlookerError: there is no such model, or it does not read a tower's maps.
        """
        from .densevoc.load import load_object_model
        from .detecting import FrameDetector
        from .looks import looks_of

        loaded = load_object_model(self.config.model, context.device)
        self._detector: FrameDetector = FrameDetector(loaded, self.config.batch, context.device)
        self._looks_of = looks_of
        background = loaded.model.config.tracking.background
        self._least = background if self.config.least_score is None else self.config.least_score

    def initial_state(self, stream: str) -> None:
        """A detector remembers nothing."""

    def process_batch(self, states: list[None], inputs: list[Inputs]) -> list[tuple[None, Outputs]]:
        """Detect in the new frames of all streams, in calls of one fixed shape."""
        packets: list[FeatureMaps] = []
        proposals: list[Detections | None] = []
        for given in inputs:
            others = {packet.t: packet for packet in given.packets.get("proposals", ())}
            for packet in given.packets.get("features", ()):
                packets.append(packet)
                proposals.append(others.get(packet.t))
        found = iter(self._detect(packets, proposals))
        return [
            (None, Outputs({"detections": [next(found) for _ in given.packets.get("features", ())]}))
            for given in inputs
        ]

    def _detect(self, packets: Sequence[FeatureMaps], proposals: Sequence[Detections | None]) -> list[Detections]:
        """One packet for each frame, in their order. Frames of different sizes, and those with proposals, go apart."""
        kinds: dict[tuple[object, ...], list[int]] = {}
        for i, (packet, others) in enumerate(zip(packets, proposals, strict=True)):
            kinds.setdefault((others is None, *(level.shape for level in packet.maps)), []).append(i)
        found: dict[int, Detections] = {}
        for (own, *_), places in kinds.items():
            views = [packets[i].maps for i in places]
            given = [other for i in places if (other := proposals[i]) is not None]
            for i, objects in zip(places, self._own(views) if own else self._of_others(views, given), strict=True):
                frame = packets[i]
                looks = self._looks_of(frame.maps[0], objects.boxes)
                found[i] = Detections(frame.stream, frame.epoch, frame.t, *objects, looks)
        return [found[i] for i in range(len(packets))]

    def _own(self, views: Sequence[View]) -> list[_Objects]:
        chosen = []
        for found in self._detector.detect(views, self.config.most):
            kept = _best(found.scores, self._least, self.config.most)
            chosen.append(_Objects(np.clip(found.boxes[kept], 0, 1), found.scores[kept], found.features[kept], None))
        return chosen

    def _of_others(self, views: Sequence[View], proposals: Sequence[Detections]) -> list[_Objects]:
        chosen = []
        least = self.config.least_score or 0.0  # the model's own is on the scale of its own scores
        kept = [_best(packet.scores, least, self.config.most) for packet in proposals]
        boxes = [np.clip(packet.boxes[order], 0, 1) for packet, order in zip(proposals, kept, strict=True)]
        pooled = self._detector.pool(views, boxes, self.config.most)
        for packet, order, own, features in zip(proposals, kept, boxes, pooled, strict=True):
            names = None if packet.names is None else tuple(packet.names[i] for i in order)
            chosen.append(_Objects(own, packet.scores[order], features, names))
        return chosen


class _Objects(NamedTuple):
    """What a packet says of one frame, in the order of its fields."""

    boxes: FloatArray
    scores: FloatArray
    features: FloatArray
    names: tuple[str, ...] | None


def _best(scores: FloatArray, least: float, most: int) -> list[int]:
    """Numbers of the best scores from `least` on, best first."""
    order = np.argsort(-scores, kind="stable")[:most]
    return [int(i) for i in order if scores[i] >= least]
