"""The image encoder of a GIT checkpoint of transformers as a tower, for captioners that were trained with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onlooker.operators.git_checkpoint import GitCheckpointError, load_git_checkpoint
from onlooker.operators.tower.errors import TowerError
from onlooker.operators.tower.tower import Tower
from onlooker.operators.tower.vision import TowerOutput

GIT_PREFIX = "git:"


class GitReader:
    """GIT's image encoder. It has no projection: a frame's features are its class token."""

    def __init__(self, encoder: Any) -> None:
        """Wrap a `GitVisionModel`."""
        self.encoder = encoder

    def __call__(self, images: Tensor) -> TowerOutput:
        """See :class:`VisionReader`."""
        hidden = self.encoder(images).last_hidden_state  # (B, 1 + N, D)
        return TowerOutput(hidden[:, 1:], hidden[:, 0], hidden[:, 0])


def load_git_tower(full: str, parts: str, device: torch.device) -> Tower:
    """The tower ``git:owner/name`` or ``git:FOLDER``.

    Raises:
        TowerError: the checkpoint cannot be loaded, has no image processor, or its text side is asked for.
    """
    if parts == "text":
        raise TowerError(f"tower {full!r} has no text side: texts cannot be compared with its frames")
    try:
        checkpoint = load_git_checkpoint(full.removeprefix(GIT_PREFIX))
    except GitCheckpointError as error:
        raise TowerError(str(error)) from error
    processor = checkpoint.image_processor
    if processor is None:
        raise TowerError(f"tower {full!r} has no image processor (preprocessor_config.json): add it")
    encoder = checkpoint.model.git.image_encoder.requires_grad_(False).to(device)
    size = int(encoder.config.image_size)
    return Tower(
        name=full,
        image_size=(size, size),
        mean=processor.image_mean,
        std=processor.image_std,
        vision=GitReader(encoder),
        text=None,
        device=device,
    )
