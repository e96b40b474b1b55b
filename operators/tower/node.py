"""The CLIP tower as a node: frames to grid tokens and embeddings, batched across streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from ..contract import Config, Context, Inputs, Operator, Outputs, Port
from ..packets import Embedding, FeatureMaps, Frame, Tokens

if TYPE_CHECKING:
    from .tower import Frames, Tower
    from .vision import TowerOutput

__all__ = ["ClipTower", "ClipTowerConfig"]


class ClipTowerConfig(Config):
    """Settings of the tower."""

    model: str = Field(default="tiny", description="tiny, an open_clip name, or a checkpoint folder.")
    pretrained: str | None = Field(default=None, description="open_clip pretrained tag or checkpoint file.")
    batch: int = Field(default=8, ge=1, description="Frames in one model call; fewer are padded with zeros.")


class ClipTower(Operator[None]):
    """Encodes every frame once; the tokens go to memories, the embedding to whatever compares it with texts.

    The feature maps of the trunk's stages go to detectors, so that one pass serves all.
    """

    Config = ClipTowerConfig
    inputs = {"frames": Port(Frame)}
    outputs = {"tokens": Tokens, "embedding": Embedding, "features": FeatureMaps}
    keyed = False

    config: ClipTowerConfig

    def open(self, context: Context) -> None:
        """Load the image side.

        Raises:
            TowerError: the model is unknown or its files are missing.
        """
        from .loading import load_tower

        self._tower: Tower = load_tower(self.config.model, self.config.pretrained, "image", context.device)
        self._wants = {port: context.wants(port) for port in self.outputs}

    def initial_state(self, stream: str) -> None:
        """A tower remembers nothing."""

    def process_batch(self, states: list[None], inputs: list[Inputs]) -> list[tuple[None, Outputs]]:
        """Encode the new frames of all streams in batches of one fixed shape."""
        frames = [frame for given in inputs for frame in given.packets.get("frames", ())]
        if not frames:
            return [(None, Outputs()) for _ in inputs]
        sizes = {frame.pixels.shape for frame in frames}
        if len(sizes) == 1:
            pixels: Frames = np.stack([f.pixels for f in frames])
        else:  # streams of different sizes: squash each to the tower's own size first
            pixels = self._tower.preprocess([f.pixels for f in frames])
        encoded = self._tower.encode_frames(pixels, self.config.batch, maps=self._wants["features"])
        results, start = [], 0
        for given in inputs:
            own: list[Frame] = list(given.packets.get("frames", ()))
            results.append((None, self._packets(own, encoded, start)))
            start += len(own)
        return results

    def _packets(self, frames: list[Frame], encoded: TowerOutput, start: int) -> Outputs:
        outputs = Outputs()
        for i, frame in enumerate(frames, start):
            if self._wants["tokens"]:
                cls = None if encoded.class_token is None else encoded.class_token[i].numpy()
                grid = encoded.tokens[i].numpy()
                tokens = Tokens(frame.stream, frame.epoch, frame.t, grid, cls, self._tower.grid)
                outputs.packets.setdefault("tokens", []).append(tokens)
            if self._wants["embedding"]:
                embedding = Embedding(frame.stream, frame.epoch, frame.t, encoded.features[i].numpy())
                outputs.packets.setdefault("embedding", []).append(embedding)
            if self._wants["features"]:
                maps = tuple(np.ascontiguousarray(level[i].permute(1, 2, 0).numpy()) for level in encoded.maps)
                features = FeatureMaps(frame.stream, frame.epoch, frame.t, maps)
                outputs.packets.setdefault("features", []).append(features)
        return outputs
