"""Weights for other sizes than they were trained for, as the reference starts one training from another."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from onlooker.operators.convert.read import Array, Tree
from onlooker.operators.errors import OnlookerError

from .convert import reference_shapes
from .model import Unloc

_CLASS = "video_encoder/class_embedding"
_GRID = "video_encoder/VisionTransformer/positional_embedding"
_TEXT = "text_encoder/positional_embedding"


class ResizeError(OnlookerError):
    """A table that cannot be brought to another size."""


def resize_class_embedding(table: Tensor, frames: int) -> Tensor:
    """Class tokens of (T, width) places in time as those of `frames`: linear between them, ends meet ends."""
    stretched = F.interpolate(table.T[None].float(), frames, mode="linear", align_corners=True)
    return stretched[0].T


def resize_positions(table: Tensor, patches: int, *, from_token: bool = True, to_token: bool = True) -> Tensor:
    """Positions of a square of patches as those of another square.

    Args:
        table: (1 + n, width), or (n, width) without a class token.
        patches: of the other square.
        from_token: the first row of the table is a class token's.
        to_token: keep that row. There must be one to keep.

    Raises:
        ResizeError: `patches`, or those of the table, are not a square.
    """
    own, grid = table[: int(from_token)].float(), table[int(from_token) :].float()
    if to_token and not from_token:
        raise ResizeError("positions without a class token's row cannot become some with one")
    if len(grid) != patches:
        side, new = math.isqrt(len(grid)), math.isqrt(patches)
        if side**2 != len(grid) or new**2 != patches:
            raise ResizeError(f"positions of {len(grid)} patches cannot become {patches}: both must be squares")
        square = grid.T.reshape(1, -1, side, side)
        grid = F.interpolate(square, (new, new), mode="bilinear", align_corners=True)[0].flatten(1).T
    return torch.cat([own, grid]) if to_token else grid


def resize_text_positions(table: Tensor, own: Tensor) -> Tensor:
    """Positions of texts as those of `own`'s length: cut, or the first of `own`, whose others stay as they are."""
    return torch.cat([table[: len(own)], own[len(table) :]])


def adapted(tree: Tree, model: Unloc) -> dict[str, Array]:
    """A tree trained for another number of frames, patches or words, in the sizes of a model.

    What the sizes do not touch is passed on as it is; `load_reference` then tells what does not fit.
    """
    given = dict(tree)
    shapes = reference_shapes(model)

    def resized(path: str) -> bool:
        return path in given and path in shapes and tuple(given[path].shape) != shapes[path]

    def tensor(path: str) -> Tensor:
        return torch.from_numpy(np.array(given[path], np.float32))

    from_token, to_token = _CLASS in given, _CLASS in shapes
    if resized(_GRID):
        patches = shapes[_GRID][0] - int(to_token)
        given[_GRID] = resize_positions(tensor(_GRID), patches, from_token=from_token, to_token=to_token).numpy()
    if from_token and not to_token:
        del given[_CLASS]  # the mean patch takes its place
    if resized(_CLASS):
        given[_CLASS] = resize_class_embedding(tensor(_CLASS), shapes[_CLASS][0]).numpy()
    if resized(_TEXT) and model.text is not None:
        given[_TEXT] = resize_text_positions(tensor(_TEXT), model.text.positions.detach().cpu()).numpy()
    return given
