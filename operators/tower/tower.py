"""A tower: one CLIP model of any make, seen through one interface."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from onlooker.operators.tower.calibration import Calibration
from onlooker.operators.tower.text import TextReader
from onlooker.operators.tower.vision import MapReader, TowerOutput, VisionReader

Frames = Tensor | npt.NDArray[np.uint8]


class Tower:
    """Turns frames into tokens and features, and sentences into features of the same space.

    Every model call has a fixed shape: frames and sentences run in batches of a constant size, short ones filled
    up, so that a row's result is the same bits whatever stands beside it (given one machine, one thread count).

    Attributes:
        name: what it was loaded as, for messages and logs.
        image_size: (height, width) of the pixels the trunk takes.
        grid: (h, w) of the token grid; ``h * w`` tokens a frame.
        token_width: D, the width of a token.
        embed_dim: E, the width of image and text features.
        calibration: score moments over ordinary photographs, or None for a tower that ships none.
    """

    def __init__(
        self,
        name: str,
        image_size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        vision: VisionReader | None,
        text: TextReader | None,
        calibration: Calibration | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Take the two sides of a loaded model; either may be absent, but not both."""
        self.name = name
        self.image_size = image_size
        self.calibration = calibration
        self._device = device or torch.device("cpu")
        # Normalising uint8 values: (x / 255 - mean) / std as one multiply and add.
        self._scale = torch.tensor([1.0 / (255.0 * s) for s in std], device=self._device).view(1, 3, 1, 1)
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=self._device).view(
            1, 3, 1, 1
        )
        self._vision = vision
        self._text = text
        self.grid: tuple[int, int] = (0, 0)
        self.token_width = 0
        if vision is not None:
            probe = self._read(torch.zeros(1, *image_size, 3, dtype=torch.uint8))
            self.grid = grid_shape(probe.tokens.shape[1], image_size)
            self.token_width = probe.tokens.shape[2]
            self.embed_dim = probe.features.shape[1]
        elif text is not None:
            self.embed_dim = text([], 1).shape[1]
        else:
            raise ValueError(f"tower {name!r} was asked for with neither side: parts must hold 'image' or 'text'")

    def encode_frames(self, pixels: Frames, batch: int = 8, maps: bool = False) -> TowerOutput:
        """Return tokens, class token and raw features of B frames, in one pass of the trunk.

        Args:
            pixels: (B, H, W, 3) uint8 RGB; frames that are not ``image_size`` are squashed to it.
            batch: frames a model call; the last call is filled with zeros, which are cut off again.
            maps: give the maps of the trunk's stages too; towers that cannot tell them give the token grid as one.

        Raises:
            ValueError: another shape or dtype, or a batch below 1.
            RuntimeError: the tower was loaded without its image side.
        """
        if self._vision is None:
            raise RuntimeError(f"tower {self.name!r} was loaded without its image side: load it with parts='both'")
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        frames = self._fit(as_frames(pixels))
        parts = [self._padded(frames[start : start + batch], batch, maps) for start in range(0, len(frames), batch)]
        if not parts:
            empty = self._read(torch.zeros(1, *self.image_size, 3, dtype=torch.uint8), maps)
            parts = [_cut(empty, 0)]
        class_tokens = [part.class_token for part in parts if part.class_token is not None]
        return TowerOutput(
            torch.cat([part.tokens for part in parts]),
            torch.cat(class_tokens) if class_tokens else None,
            torch.cat([part.features for part in parts]),
            tuple(torch.cat(level) for level in zip(*(part.maps for part in parts), strict=True)),
        )

    @property
    def reads_texts(self) -> bool:
        """Whether the text side is there."""
        return self._text is not None

    def encode_texts(self, texts: Sequence[str], batch: int = 8) -> Tensor:
        """Return raw text features (n, E) float32 of n sentences, in batches of a fixed size.

        Raises:
            TypeError: something other than a sequence of strings.
            RuntimeError: the tower was loaded without its text side.
        """
        if self._text is None:
            raise RuntimeError(f"tower {self.name!r} was loaded without its text side: load it with parts='both'")
        return self._text(texts, batch)

    def preprocess(self, images: Sequence[Image.Image | npt.NDArray[np.uint8]]) -> Tensor:
        """Return pixels (B, H, W, 3) uint8 of ``image_size`` from pictures of any size.

        The whole picture is squashed with Pillow's antialiased bicubic filter, open_clip's ``squash`` mode: what
        happens at the edge of a frame counts, so nothing is cropped.
        """
        height, width = self.image_size
        rows = []
        for image in images:
            picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
            picture = picture.convert("RGB")
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BICUBIC)
            rows.append(torch.from_numpy(np.array(picture)))
        return torch.stack(rows) if rows else torch.zeros(0, height, width, 3, dtype=torch.uint8)

    def _fit(self, frames: Tensor) -> Tensor:
        """Squash frames (B, H, W, 3) uint8 to ``image_size``, each on its own."""
        if tuple(frames.shape[1:3]) == self.image_size or len(frames) == 0:
            return frames
        fitted = [
            F.interpolate(frame.permute(2, 0, 1)[None].float(), self.image_size, mode="bicubic", antialias=True)
            .round()
            .clamp_(0, 255)
            .to(torch.uint8)[0]
            .permute(1, 2, 0)
            for frame in frames
        ]
        return torch.stack(fitted)

    def _padded(self, frames: Tensor, batch: int, maps: bool) -> TowerOutput:
        """Run up to ``batch`` frames as exactly ``batch``."""
        count = len(frames)
        if count < batch:
            frames = torch.cat([frames, frames.new_zeros(batch - count, *frames.shape[1:])])
        return _cut(self._read(frames, maps), count)

    @torch.inference_mode()
    def _read(self, frames: Tensor, maps: bool = False) -> TowerOutput:
        """One model call on (batch, H, W, 3) uint8."""
        assert self._vision is not None
        staged = self._vision.read_maps if maps and isinstance(self._vision, MapReader) else None
        images = frames.to(self._device).permute(0, 3, 1, 2).to(torch.float32)  # (B, 3, H, W), channels last
        read = (staged or self._vision)(images * self._scale + self._shift)
        class_token = None if read.class_token is None else read.class_token.float().cpu()
        tokens = read.tokens.float().cpu()
        levels = tuple(level.float().cpu() for level in read.maps)
        if maps and staged is None:
            levels = (tokens.transpose(1, 2).reshape(len(tokens), -1, *self.grid),)  # (B, D, h, w)
        return TowerOutput(tokens, class_token, read.features.float().cpu(), levels)


def as_frames(pixels: Frames) -> Tensor:
    """Return pixels as a uint8 tensor (B, H, W, 3).

    Raises:
        ValueError: another shape or dtype.
    """
    frames = torch.from_numpy(np.ascontiguousarray(pixels)) if isinstance(pixels, np.ndarray) else pixels
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(f"frames must be uint8 (B, H, W, 3) RGB, got {frames.dtype} {tuple(frames.shape)}")
    return frames


def grid_shape(tokens: int, image_size: tuple[int, int]) -> tuple[int, int]:
    """Return (h, w) of a grid of ``tokens`` cells over an image of (height, width), cells as square as possible."""
    wanted = math.log(image_size[0] / image_size[1])
    pairs = [(h, tokens // h) for h in range(1, tokens + 1) if tokens % h == 0]
    return min(pairs, key=lambda pair: abs(math.log(pair[0] / pair[1]) - wanted))


def _cut(output: TowerOutput, count: int) -> TowerOutput:
    """Keep the first ``count`` rows."""
    class_token = None if output.class_token is None else output.class_token[:count]
    maps = tuple(level[:count] for level in output.maps)
    return TowerOutput(output.tokens[:count], class_token, output.features[:count], maps)
