"""A detector's ViT out of CLIP's image side, from which the training of Dense VOC starts."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from onlooker.operators.errors import OnlookerError

from .vit import DetectionVit

__all__ = ["ClipWeightsError", "load_clip"]

_NAMES = (
    (r"^conv1\.", "patch_embed.proj."),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^positional_embedding$", "pos_embed"),
)
_UNUSED = ("class_embedding", "ln_post.weight", "ln_post.bias", "proj")
_IMAGE_SIDE = "visual."


class ClipWeightsError(OnlookerError):
    """Weights that are not those of a CLIP whose image side is this ViT; the message says what differs."""


def load_clip(vit: DetectionVit, weights: Mapping[str, Tensor]) -> None:
    """Put the image side of a CLIP, as OpenAI and open_clip name its weights, into a ViT of its sizes.

    What CLIP has not starts without effect: relative positions and the bias of the patches at 0. CLIP's class token and
    what follows its last block are left out. Blocks compute an exact GELU where OpenAI's CLIP has an approximation.

    Args:
        vit: `pretrain_size` is the size that CLIP saw.
        weights: by name, with or without the text side.

    Raises:
        ClipWeightsError: weights are missing, unknown or have another shape; nothing was loaded.
    """
    image_side = {
        name.removeprefix(_IMAGE_SIDE): value for name, value in weights.items() if name.startswith(_IMAGE_SIDE)
    }
    given = {_renamed(name): value for name, value in (image_side or weights).items() if name not in _UNUSED}
    if "pos_embed" in given:
        given["pos_embed"] = given["pos_embed"][None]
    own = dict(vit.named_parameters())
    fresh = {name for name in own if "rel_pos" in name} | {"patch_embed.proj.bias"}
    for name in sorted((own.keys() - fresh) ^ (given.keys() - {"patch_embed.proj.bias"})):
        raise ClipWeightsError(f"the CLIP weights {'lack' if name in own else 'have unknown'} {name}: give a ViT's")
    for name, value in given.items():
        if value.shape != own[name].shape:
            told = f"{tuple(value.shape)} instead of {tuple(own[name].shape)}"
            raise ClipWeightsError(f"the CLIP weights have {name} {told}: give those of a ViT of this size")
    with torch.no_grad():
        for name, parameter in own.items():
            if name in given:
                parameter.copy_(given[name])
            else:
                parameter.zero_()


def _renamed(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name
