"""A whole video by a model with a backbone of its own: frames of any size to tracks with captions.

Everything is as in the evaluation of Dense VOC's reference: pictures keep their shape, are brought to one longer side
and filled up to a square at their right and lower ends; all frames are seen at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from onlooker.operators.caption.dense_events import wordpiece_text

from .load import ObjectModel, ObjectModelError

__all__ = ["DescribedTrack", "describe_video", "fit_frames", "fitted_size"]


@dataclass(frozen=True)
class DescribedTrack:
    """One object of a video.

    Attributes:
        identity: 1, 2, ..., tracks with more support first.
        frames: numbers of the frames it was seen in, increasing.
        boxes: (n, 4) float32 x0, y0, x1, y1 in pixels of the frames as they were given.
        scores: (n,) float32 of the detections.
        caption: what it is told to be or do; None if the model has no captioner, or no words for it.
    """

    identity: int
    frames: tuple[int, ...]
    boxes: Tensor
    scores: Tensor
    caption: str | None


def fitted_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width in pixels at which a picture's longer side is `side`, or one less, as rounding has it."""
    short, long = sorted((height, width))
    small = max(1, int(side * short / long))
    large = min(side, int(small * (long / short)))
    return (small, large) if height <= width else (large, small)


def fit_frames(frames: Tensor, side: int) -> Tensor:
    """Frames (T, H, W, 3), 0 to 255, as squares (T, side, side, 3) float32: resized, black to the right and below."""
    height, width = fitted_size(frames.shape[1], frames.shape[2], side)
    pictures = frames.movedim(-1, 1).float()
    # Not antialiased, with pixels at the centres of their cells, as TensorFlow resizes.
    resized = F.interpolate(pictures, (height, width), mode="bilinear", align_corners=False)
    return F.pad(resized, (0, side - width, 0, side - height)).movedim(1, -1)


@torch.inference_mode()
def describe_video(loaded: ObjectModel, frames: Tensor) -> list[DescribedTrack]:
    """The objects of one video, each with its boxes and a caption.

    Args:
        loaded: a model with a backbone and an association.
        frames: (T, H, W, 3), RGB from 0 to 255. Every detection is compared with every other one, so memory grows with
            T squared; the reference's videos have up to 200 frames.

    Raises:
        ObjectModelError: the model reads a tower's features, or follows nothing.
    """
    model, device = loaded.model, loaded.model.detector.proposal_generator.agn_hm.weight.device
    backbone = model.config.detector.backbone
    if backbone is None or model.association is None:
        lacks = "sees no pictures but a tower's features" if backbone is None else "follows nothing"
        raise ObjectModelError(f"this object model {lacks}: convert one by `onlooker convert`.")
    if not len(frames):
        return []
    images = fit_frames(frames.to(device), backbone.image_size)
    found = model(images)
    assert found.identities is not None
    texts = model.describe(found).tokens if model.captioner is not None and loaded.pieces else None
    height, width = fitted_size(frames.shape[1], frames.shape[2], backbone.image_size)
    scale = images.new_tensor([frames.shape[2] / width, frames.shape[1] / height])
    limit = images.new_tensor([frames.shape[2], frames.shape[1]])
    boxes = (found.detected.boxes.unflatten(-1, (2, 2)) * scale).minimum(limit).flatten(-2).cpu()
    identities, scores = found.identities.cpu(), found.detected.scores.cpu()
    tracks = []
    for identity in range(1, int(identities.max()) + 1):
        own = identities == identity
        when = tuple(int(frame) for frame in own.nonzero()[:, 0])
        caption = None if texts is None else _text(texts[own.to(device)][0].tolist(), loaded)
        tracks.append(DescribedTrack(identity, when, boxes[own], scores[own], caption))
    return tracks


def _text(tokens: list[int], loaded: ObjectModel) -> str:
    """Words between begin and end; ids without a word, of a model with more rows than words, are left out."""
    assert loaded.model.captioner is not None
    end = loaded.model.captioner.config.end_token
    words = tokens[1 : tokens.index(end)]  # the last slot always holds it
    return wordpiece_text([word for word in words if word < len(loaded.pieces)], loaded.pieces)
