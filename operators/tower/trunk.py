"""The trunk inside a dense or paragraph captioner's folder as a tower, for the captioner that was trained with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from onlooker.operators.tower.errors import TowerError
from onlooker.operators.tower.tower import Tower
from onlooker.operators.tower.vision import TowerOutput
from onlooker.operators.tower.vit import VisionTransformer, VitConfig

TRUNK_PREFIX = "trunk:"
_PARAMETERS = "encoder.vision."


class TrunkReader:
    """The ViT of Streaming DVC. It has no projection: a frame's features are its class token, or its tokens' mean."""

    def __init__(self, vision: VisionTransformer) -> None:
        """Wrap a trunk."""
        self.vision = vision

    def __call__(self, images: Tensor) -> TowerOutput:
        """See :class:`VisionReader`."""
        tokens = self.vision(images.movedim(1, -1))  # (B, N, D)
        if self.vision.class_embedding is None:
            return TowerOutput(tokens, None, tokens.mean(1))
        return TowerOutput(tokens[:, 1:], tokens[:, 0], tokens[:, 0])


def load_trunk_tower(full: str, parts: str, device: torch.device) -> Tower:
    """The tower ``trunk:FOLDER``, where `onlooker convert` or `save_video_captioner` wrote the folder.

    Raises:
        TowerError: the folder holds no captioner with a trunk, or its text side is asked for.
    """
    if parts == "text":
        raise TowerError(f"tower {full!r} has no text side: texts cannot be compared with its frames")
    folder = Path(full.removeprefix(TRUNK_PREFIX))
    try:
        encoder: dict[str, Any] | None = json.loads((folder / "config.json").read_text(encoding="utf-8"))["encoder"]
        if encoder is None:
            raise TowerError(f"the captioner in {str(folder)!r} has no trunk: use the tower it was trained with")
        config = VitConfig(**encoder["vision"])
        with torch.device("meta"):
            vision = VisionTransformer(config)
        with safe_open(folder / "model.safetensors", "pt") as weights:
            names = [name for name in weights.keys() if name.startswith(_PARAMETERS)]  # noqa: SIM118
            state = {name.removeprefix(_PARAMETERS): weights.get_tensor(name).float() for name in names}
        vision.load_state_dict(state, assign=True)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TowerError(f"tower {full!r}: the folder holds no captioner with a trunk ({reason})") from error
    return Tower(
        name=full,
        image_size=(config.image_size, config.image_size),
        mean=[value / 255 for value in encoder["pixel_mean"]],
        std=[value / 255 for value in encoder["pixel_std"]],
        vision=TrunkReader(vision.requires_grad_(False).eval().to(device)),
        text=None,
        device=device,
    )
