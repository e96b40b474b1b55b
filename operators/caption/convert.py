"""Weights of the reference GIT text decoder (a flax tree) under our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

# In this order: longer names first where one contains another.
_PARTS = (
    ("visual_projection.0/", "visual_projection/"),
    ("visual_projection.1/", "visual_norm/"),
    ("embedding/words/", "words/"),
    ("embedding/positions/", "positions/"),
    ("embedding/layer_norm/", "embedding_norm/"),
    ("transformer/encoder/layer.", "layers/"),
    ("attention/self/", "attention/"),
    ("attention/output/LayerNorm/", "attention/norm/"),
    ("attention/output/dense/", "attention/dense/"),
    ("intermediate/dense/", "intermediate/"),
    ("output/LayerNorm/", "norm/"),
    ("output/dense/", "output/"),
)


def decoder_state_from_reference(params: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of a `GitDecoder` from the subtree `textual` of a reference checkpoint.

    Args:
        params: arrays by their path below `textual`, parts joined by "/"; kernels are (in, out).
    """
    state = {}
    for path, array in params.items():
        name, tensor = path, torch.from_numpy(np.array(array, dtype=np.float32))
        for theirs, ours in _PARTS:
            name = name.replace(theirs, ours)
        stem, _, leaf = name.rpartition("/")
        if leaf == "kernel":
            tensor = tensor.T.contiguous()
        leaf = {"kernel": "weight", "scale": "weight", "embedding": "weight"}.get(leaf, leaf)
        state[f"{stem}/{leaf}".replace("/", ".")] = tensor
    return state
