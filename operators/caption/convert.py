"""Parameter trees of the reference (flax) as weights of our models, and our models as such trees.

A tree is flat here: arrays by their path, parts joined by "/". Kernels of linear layers are (in, out), those of
convolutions (height, width, in, out); dots inside a part, as in `layer.0`, belong to its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from onlooker.operators.convert.read import Array, Tree
from onlooker.operators.convert.tree import check_tree

Renames = tuple[tuple[str, str], ...]
RENAMES: Renames = (
    (r"^encoder/vision/", "image_encoder/"),
    (r"^encoder/temporal_embedding$", "temperal_embedding"),
    (r"^image_encoder/patch/", "image_encoder/patch_embed.proj/"),
    (r"/blocks/(\d+)/", r"/blocks.\1/"),
    (r"^decoder/", "textual/"),
    (r"^textual/visual_projection/", "textual/visual_projection.0/"),
    (r"^textual/visual_norm/", "textual/visual_projection.1/"),
    (r"^textual/(words|positions)/", r"textual/embedding/\1/"),
    (r"^textual/embedding_norm/", "textual/embedding/layer_norm/"),
    (r"^textual/layers/(\d+)/", r"textual/transformer/encoder/layer.\1/"),
    (r"/attention/(query|key|value)/", r"/attention/self/\1/"),
    (r"/attention/dense/", "/attention/output/dense/"),
    (r"/attention/norm/", "/attention/output/LayerNorm/"),
    (r"/(layer\.\d+)/intermediate/", r"/\1/intermediate/dense/"),
    (r"/(layer\.\d+)/output/", r"/\1/output/dense/"),
    (r"/(layer\.\d+)/norm/", r"/\1/output/LayerNorm/"),
)
"""Our module names to theirs, applied in this order to names whose parts are joined by "/"."""
_VOCABULARY = ("textual/embedding/words/embedding", "textual/output/kernel", "textual/output/bias")


@dataclass(frozen=True)
class ReferenceArray:
    """Where a parameter of ours stands in the reference's tree.

    Attributes:
        path: its path there.
        shape: its shape there.
        axes: the order of its axes that turns it into ours, after which only axes of length 1 differ.
    """

    path: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]


def reference_layout(model: nn.Module, renames: Renames = RENAMES) -> dict[str, ReferenceArray]:
    """For every parameter of a model by its name: the array it comes from.

    Works on models on the `meta` device, which hold no numbers.

    Args:
        model: a dense or paragraph captioner, or one whose names `renames` tells.
        renames: see `RENAMES`.
    """
    layout = {}
    for prefix, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            name = f"{prefix}.{leaf}" if prefix else leaf
            theirs, axes = _leaf(module, leaf, parameter)
            path = "/".join([*name.split(".")[:-1], theirs])
            for pattern, replacement in renames:
                path = re.sub(pattern, replacement, path)
            shape = [0] * len(axes)
            for ours, axis in enumerate(axes):
                shape[axis] = parameter.shape[ours]
            if path == "temperal_embedding":
                # Theirs has one axis of length 1 more: (T, 1, 1, D).
                shape, axes = [shape[0], 1, *shape[1:]], (0, 1, 2, 3)
            layout[name] = ReferenceArray(path, tuple(shape), axes)
    return layout


def reference_shapes(model: nn.Module, renames: Renames = RENAMES) -> dict[str, tuple[int, ...]]:
    """Path and shape of every array of the reference's tree; arguments as for `reference_layout`."""
    return {array.path: array.shape for array in reference_layout(model, renames).values()}


def _leaf(module: nn.Module, leaf: str, parameter: Tensor) -> tuple[str, tuple[int, ...]]:
    """The reference's name of a parameter of `module`, and the order of its axes that is ours."""
    if leaf == "weight":
        if isinstance(module, nn.Linear):
            return "kernel", (1, 0)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):  # the latter's as with flax's `transpose_kernel`
            return "kernel", (3, 2, 0, 1)
        return ("embedding" if isinstance(module, nn.Embedding) else "scale"), tuple(range(parameter.ndim))
    return leaf, tuple(range(parameter.ndim))


def load_reference(model: nn.Module, tree: Tree, *, grow_vocabulary: bool = False, renames: Renames = RENAMES) -> None:
    """Put the arrays of a tree into a model.

    Args:
        model: built with the sizes of the checkpoint.
        tree: all its arrays, no others. See `convert.read.read_tree`.
        grow_vocabulary: the tree may know fewer tokens than the model, as image captioners lack time tokens: its
            rows become the first ones, the others keep their values.
        renames: see `RENAMES`.

    Raises:
        ReferenceTreeError: arrays are missing, unknown or have another shape; nothing was loaded.
    """
    layout = reference_layout(model, renames)
    check_tree(reference_shapes(model, renames), tree, _VOCABULARY if grow_vocabulary else ())
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, array in layout.items():
            own = parameters[name]
            given = torch.from_numpy(np.array(tree[array.path], np.float32)).permute(array.axes)
            if given.numel() == own.numel():
                own.copy_(given.reshape(own.shape))
            else:
                own[: len(given)].copy_(given)  # rows of a smaller vocabulary


def to_reference(model: nn.Module, renames: Renames = RENAMES) -> dict[str, Array]:
    """The parameters of a model as the reference's tree, float32; arguments as for `reference_layout`."""
    parameters = dict(model.named_parameters())
    tree = {}
    for name, array in reference_layout(model, renames).items():
        ours = parameters[name].detach().float().cpu()
        shape = [array.shape[axis] for axis in array.axes]
        tree[array.path] = np.ascontiguousarray(ours.reshape(shape).permute(tuple(np.argsort(array.axes))).numpy())
    return tree
