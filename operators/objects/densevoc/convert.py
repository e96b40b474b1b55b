"""Parameter trees of the reference (flax) as weights of Dense VOC, and a model as such a tree.

Trees are flat: arrays by their path, parts joined by "/"; the dots in `blocks.0` belong to the name. Kernels are
(in, out), those of the tracker's attention (width, heads, head width) and back, those of convolutions (height, width,
in, out). The kernel of a transposed convolution lies the other way round in both directions of the picture.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from onlooker.operators.convert.read import Array, Tree
from onlooker.operators.convert.tree import check_tree

from .association import AssociationAttention

__all__ = ["ReferenceArray", "load_reference", "reference_layout", "reference_shapes", "to_reference"]

# Our module names to theirs, applied in this order to names whose parts are joined by "/".
_RENAMES = (
    (r"^association/(fc[12])\b", r"tracking_layers/\1"),
    (r"^association/(encoder|decoder)/", r"tracking_transformer/\1/\1block_0/"),
    (r"encoderblock_0/attention/", "encoderblock_0/self_attn/"),
    (r"decoderblock_0/attention/", "decoderblock_0/cross_attn/"),
    (r"block_0/mlp_in\b", "block_0/mlp/Dense_0"),
    (r"block_0/mlp_out\b", "block_0/mlp/Dense_1"),
    (r"^captioner/visual_projection\b", "captioner/object_feature_projection.0"),
    (r"^captioner/visual_norm\b", "captioner/object_feature_projection.1"),
    (r"^captioner/(words|positions)\b", r"captioner/embedding/\1"),
    (r"^captioner/embedding_norm\b", "captioner/embedding/layer_norm"),
    (r"^captioner/layers/(\d+)/", r"captioner/transformer/encoder/layer.\1/"),
    (r"/(layer\.\d+)/attention/(query|key|value)\b", r"/\1/attention/self/\2"),
    (r"/(layer\.\d+)/attention/dense\b", r"/\1/attention/output/dense"),
    (r"/(layer\.\d+)/attention/norm\b", r"/\1/attention/output/LayerNorm"),
    (r"/(layer\.\d+)/intermediate\b", r"/\1/intermediate/dense"),
    (r"/(layer\.\d+)/output\b", r"/\1/output/dense"),
    (r"/(layer\.\d+)/norm\b", r"/\1/output/LayerNorm"),
    (r"^captioner/", "roi_heads.text_decoder.textual/"),
)


@dataclass(frozen=True)
class ReferenceArray:
    """Where a parameter of ours stands in the reference's tree.

    Attributes:
        path: its path there.
        shape: its shape there.
        flat: the same with axes joined, or axes of length 1 left out.
        axes: the order of the axes of `flat` that is ours.
        turned: axes of ours along which it lies the other way round.
    """

    path: str
    shape: tuple[int, ...]
    flat: tuple[int, ...]
    axes: tuple[int, ...]
    turned: tuple[int, ...] = ()

    def ours(self, array: Array) -> Tensor:
        """The parameter."""
        return torch.from_numpy(np.array(array, np.float32)).reshape(self.flat).permute(self.axes).flip(self.turned)

    def theirs(self, parameter: Tensor) -> Array:
        """The array of the reference."""
        order = tuple(int(axis) for axis in np.argsort(self.axes))
        own = parameter.detach().float().cpu().flip(self.turned)
        array: Array = np.ascontiguousarray(own.permute(order).reshape(self.shape).numpy())
        return array


def reference_layout(model: nn.Module, part: str = "") -> dict[str, ReferenceArray]:
    """For every parameter by its name: the array of the reference that it is. Works on the `meta` device.

    Args:
        model: a `DenseVoc`, or one of its parts.
        part: the name of that part in `DenseVoc`, as "association"; empty for the whole.
    """
    layout = {}
    for prefix, module in model.named_modules():
        holder = model.get_submodule(prefix.rpartition(".")[0])
        for leaf, parameter in module.named_parameters(recurse=False):
            name = f"{prefix}.{leaf}" if prefix else leaf
            path = "/".join([*([part] if part else []), *name.split(".")])
            for pattern, replacement in _RENAMES:
                path = re.sub(pattern, replacement, path)
            if isinstance(holder, AssociationAttention):
                layout[name] = _attention(path, parameter, holder.heads)
            else:
                layout[name] = _plain(path, module, parameter)
    return layout


def _attention(path: str, parameter: Tensor, heads: int) -> ReferenceArray:
    """The reference's attention tells heads apart."""
    stem, _, leaf = path.rpartition("/")
    width, own = len(parameter), tuple(parameter.shape)
    split = (heads, width // heads)
    if leaf == "bias":
        return ReferenceArray(path, own if stem.endswith("/out") else split, own, (0,))
    shape = (*split, width) if stem.endswith("/out") else (width, *split)
    return ReferenceArray(f"{stem}/kernel", shape, own, (1, 0))


def _plain(path: str, module: nn.Module, parameter: Tensor) -> ReferenceArray:
    shape = tuple(parameter.shape)
    stem, _, leaf = path.rpartition("/")
    axes, theirs = tuple(range(len(shape))), leaf
    turned: tuple[int, ...] = ()
    if leaf == "weight":
        theirs = "scale"
        if isinstance(module, nn.Embedding):
            theirs = "embedding"
        elif isinstance(module, nn.Linear):
            theirs, axes = "kernel", (1, 0)
        elif isinstance(module, nn.Conv2d):
            theirs, axes = "kernel", (3, 2, 0, 1)
        elif isinstance(module, nn.ConvTranspose2d):
            theirs, axes, turned = "kernel", (2, 3, 0, 1), (2, 3)
    flat = [0] * len(axes)
    for ours, axis in enumerate(axes):
        flat[axis] = shape[ours]
    return ReferenceArray(f"{stem}/{theirs}", tuple(flat), tuple(flat), axes, turned)


def reference_shapes(model: nn.Module, part: str = "") -> dict[str, tuple[int, ...]]:
    """Path and shape of every array of the reference's tree for a model; arguments as for `reference_layout`."""
    return {array.path: array.shape for array in reference_layout(model, part).values()}


def load_reference(model: nn.Module, tree: Tree, part: str = "") -> None:
    """Put the arrays of a tree into a model of their sizes, or into one of its parts.

    Args:
        model: see `reference_layout`.
        tree: all its arrays, no others. See `convert.read.read_tree`.
        part: see `reference_layout`.

    Raises:
        ReferenceTreeError: arrays are missing, unknown or have another shape; nothing was loaded.
    """
    layout = reference_layout(model, part)
    check_tree({array.path: array.shape for array in layout.values()}, tree)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, array in layout.items():
            parameters[name].copy_(array.ours(tree[array.path]))


def to_reference(model: nn.Module, part: str = "") -> dict[str, Array]:
    """The parameters of a model as the reference's tree, float32; arguments as for `reference_layout`."""
    parameters = dict(model.named_parameters())
    return {array.path: array.theirs(parameters[name]) for name, array in reference_layout(model, part).items()}
