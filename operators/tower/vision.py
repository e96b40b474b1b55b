"""The image side of any open_clip tower: grid tokens and image features in one pass of the trunk.

open_clip's own ``encode_image`` yields features only, and its ``forward_intermediates`` does not reach the last
convolution of a timm CNN. Three readers cover every tower: timm trunks (CNN, windowed or plain transformers),
open_clip's vision transformers and its ModifiedResNet.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from .fold import fold_batch_norms


class TowerOutput(NamedTuple):
    """What a tower sees in B frames.

    Attributes:
        tokens: (B, N, D) float32 grid tokens, rows of the h x w grid first.
        class_token: (B, D) float32 token of a trunk that has one, else None.
        features: (B, E) float32 raw image features, equal to open_clip's ``encode_image``; not normalised.
        maps: (B, C, h, w) float32 each, what the trunk's stages saw, finest first; empty where nobody asked.
    """

    tokens: Tensor
    class_token: Tensor | None
    features: Tensor
    maps: tuple[Tensor, ...] = ()


class VisionReader(Protocol):
    """Reads normalised images (B, 3, H, W) float32."""

    def __call__(self, images: Tensor) -> TowerOutput:
        """Return tokens, class token and features."""
        ...


@runtime_checkable
class MapReader(VisionReader, Protocol):
    """A reader that can also tell what stages before the last one saw."""

    def read_maps(self, images: Tensor) -> TowerOutput:
        """The same numbers, with maps."""
        ...


_STRIDES = (4, 8, 16, 32)
"""Strides of the maps that detectors read."""


class TimmReader:
    """A timm trunk with open_clip's pooling and projection head."""

    def __init__(self, visual: Any) -> None:
        """Wrap open_clip's ``TimmModel``; batch norms are folded in place."""
        self.visual = visual
        fold_batch_norms(visual.trunk)

    def __call__(self, images: Tensor) -> TowerOutput:
        """See :class:`VisionReader`."""
        return self._output(self.visual.trunk.forward_features(images), ())

    def read_maps(self, images: Tensor) -> TowerOutput:
        """See :class:`MapReader`: the last stage of each stride of 4 to 32 pixels, before any last convolution."""
        trunk = self.visual.trunk
        stages = {info["reduction"]: i for i, info in enumerate(trunk.feature_info) if info["reduction"] in _STRIDES}
        grid, maps = trunk.forward_intermediates(images, indices=list(stages.values()))
        return self._output(grid, tuple(maps))

    def _output(self, grid: Tensor, maps: tuple[Tensor, ...]) -> TowerOutput:
        """Pool the last stage: (B, D, h, w), (B, h, w, D) or (B, prefix + N, D)."""
        trunk = self.visual.trunk
        features = self.visual.head(trunk.forward_head(grid))  # (B, E)
        class_token = None
        if grid.ndim == 4:
            channels_last = str(getattr(trunk, "output_fmt", "NCHW")).endswith("NHWC")
            tokens = grid.flatten(1, 2) if channels_last else grid.flatten(2).transpose(1, 2)
        else:
            prefix = int(getattr(trunk, "num_prefix_tokens", 0))
            tokens = grid[:, prefix:]
            class_token = grid[:, 0] if prefix and getattr(trunk, "cls_token", None) is not None else None
        return TowerOutput(tokens, class_token, features, maps)


class TransformerReader:
    """open_clip's own vision transformer: last block, final norm, all tokens."""

    def __init__(self, visual: Any) -> None:
        """Wrap open_clip's ``VisionTransformer``."""
        self.visual = visual

    def __call__(self, images: Tensor) -> TowerOutput:
        """See :class:`VisionReader`."""
        read = self.visual.forward_intermediates(
            images, indices=1, output_fmt="NLC", output_extra_tokens=True, normalize_intermediates=True
        )
        return TowerOutput(
            read["image_intermediates"][-1],  # (B, N, D)
            read["image_intermediates_prefix"][-1][:, 0],  # (B, D)
            read["image_features"],  # (B, E)
        )


class ResNetReader:
    """open_clip's ModifiedResNet: the last stage, then attention pooling."""

    def __init__(self, visual: Any) -> None:
        """Wrap open_clip's ``ModifiedResNet``."""
        self.visual = visual

    def __call__(self, images: Tensor) -> TowerOutput:
        """See :class:`VisionReader`."""
        read = self.visual.forward_intermediates(images, indices=1)
        grid = read["image_intermediates"][-1]  # (B, D, h, w)
        return TowerOutput(grid.flatten(2).transpose(1, 2), None, read["image_features"])


def vision_reader(visual: nn.Module) -> VisionReader:
    """Return the reader for the image side of an open_clip model."""
    if hasattr(visual, "trunk"):
        return TimmReader(visual)
    if hasattr(visual, "attnpool"):
        return ResNetReader(visual)
    return TransformerReader(visual)
