"""Detectors of Hugging Face transformers as a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..contract import Config, Context, Inputs, Operator, Outputs, Port
from ..packets import Detections, Frame

if TYPE_CHECKING:
    from .transformers_detector import TransformersDetector

__all__ = ["HfDetector", "HfDetectorConfig"]


class HfDetectorConfig(Config):
    """Settings of the detector."""

    model: str = Field(
        description="Folder or Hugging Face name: OWLv2, OWL-ViT, Grounding DINO (open vocabulary), RT-DETR, D-FINE."
    )
    names: tuple[str, ...] = Field(
        default=(), description="What to look for, in words; empty: all that a closed detector knows."
    )
    least_score: float | None = Field(
        default=None, ge=0, le=1, description="Detections below are left out; default: what is usual for the model."
    )
    nms: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Overlap at which the weaker of two boxes of a name goes; default: as usual.",
    )
    most: int = Field(default=32, ge=1, description="Detections of a frame, the best ones.")
    batch: int = Field(default=1, ge=1, description="Frames in one model call; fewer are filled up with black ones.")


class HfDetector(Operator[None]):
    """Finds named objects in frames, each frame by itself.

    Frames may be squashed; their aspect is restored where the model was trained with it. The frames for the tower are
    small for these models: connect previews, of a size that suits the model (`-o decode.preview=720`).
    """

    Config = HfDetectorConfig
    inputs = {"frames": Port(Frame)}
    outputs = {"detections": Detections}
    keyed = False

    config: HfDetectorConfig

    def open(self, context: Context) -> None:
        """Load the model.

        Raises:
            OnlookerError: there is no such model, or it does not know one of the names.
        """
        from .transformers_detector import load_transformers_detector

        config = self.config
        self._detector: TransformersDetector = load_transformers_detector(
            config.model, config.names, batch=config.batch, device=context.device
        )
        self._least = self._detector.least_score if config.least_score is None else config.least_score

    def initial_state(self, stream: str) -> None:
        """A detector remembers nothing."""

    def process_batch(self, states: list[None], inputs: list[Inputs]) -> list[tuple[None, Outputs]]:
        """Detect in the new frames of all streams."""
        frames = [frame for given in inputs for frame in given.packets.get("frames", ())]
        found = self._detector.detect(
            [frame.pixels for frame in frames],
            [frame.source_size for frame in frames],
            self._least,
            self.config.most,
            self.config.nms,
        )
        packets = iter(
            Detections(frame.stream, frame.epoch, frame.t, one.boxes, one.scores, names=one.names)
            for frame, one in zip(frames, found, strict=True)
        )
        return [
            (None, Outputs({"detections": [next(packets) for _ in given.packets.get("frames", ())]}))
            for given in inputs
        ]
