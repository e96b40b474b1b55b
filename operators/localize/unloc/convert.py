"""Parameter trees of the reference (flax) as weights of an `Unloc`, and a model as such a tree.

Trees are flat: arrays by their path, parts joined by "/"; the dots in `resblocks.0` belong to the name. Kernels are
(in, out), those of attention (width, heads, head width) and back, those of convolutions (steps, in, out).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from onlooker.operators.convert.read import Array, ReferenceTreeError, Tree
from onlooker.operators.convert.tree import check_tree

from .blocks import Attention
from .model import Unloc

# Our module names to theirs, applied in this order to names whose parts are joined by "/".
_RENAMES = (
    (r"^image/patch\b", "video_encoder/conv1"),
    (r"^image/class_embedding$", "video_encoder/class_embedding"),
    (r"^image/positions$", "video_encoder/VisionTransformer/positional_embedding"),
    (r"^image/blocks/(\d+)/", r"video_encoder/VisionTransformer/transformer/resblocks.\1/"),
    (r"^image/", "video_encoder/VisionTransformer/"),
    (r"^text/words\b", "text_encoder/token_embedding"),
    (r"^text/positions$", "text_encoder/positional_embedding"),
    (r"^text/blocks/(\d+)/", r"text_encoder/transformer/resblocks.\1/"),
    (r"^text/norm\b", "text_encoder/ln_final"),
    (r"(resblocks\.\d+)/norm", r"\1/ln_"),
    (r"(resblocks\.\d+)/mlp_in\b", r"\1/mlp/c_fc"),
    (r"(resblocks\.\d+)/mlp_out\b", r"\1/mlp/c_proj"),
    (r"^fusion/positions$", "fusion/posembed_input/pos_embedding"),
    (r"^fusion/blocks/(\d+)/norm1\b", r"fusion/encoderblock_\1/LayerNorm_0"),
    (r"^fusion/blocks/(\d+)/norm2\b", r"fusion/encoderblock_\1/LayerNorm_1"),
    (r"^fusion/blocks/(\d+)/attn\b", r"fusion/encoderblock_\1/MultiHeadAttention_0"),
    (r"^fusion/blocks/(\d+)/mlp_in\b", r"fusion/encoderblock_\1/MlpBlock_0/Dense_0"),
    (r"^fusion/blocks/(\d+)/mlp_out\b", r"fusion/encoderblock_\1/MlpBlock_0/Dense_1"),
    (r"^fusion/norm\b", "fusion/encoder_norm"),
    (r"^fusion/(simple|fpn)/convs/(\d+)\b", r"fusion/output_conv_\2"),
    (r"^fusion/(simple|fpn)/norms/(\d+)\b", r"fusion/output_ln_\2"),
    (r"^fusion/fpn/downs/(\d+)\b", r"fusion/Conv_\1"),
    (r"^fusion/", "video_text_fusion/video_text_encoder/"),
    (r"^head/(classify|regress)/(\d+)/norms/(\d+)\b", r"head/\1/\2/ln\3"),
    (r"^head/(classify|regress)/(\d+)/convs/(\d+)\b", r"head/\1/\2/conv\3"),
    (r"^head/classify/(\d+)/", r"head/ClassificationHead_\1/"),
    (r"^head/regress/(\d+)/", r"head/RegressionHead_\1/"),
    (r"^head/(.*/)?output\b", r"head/\1output_projection"),
)
_QKV = ("query", "key", "value")


class Part(NamedTuple):
    """An array of theirs that is a parameter of ours, or some of its rows."""

    path: str
    shape: tuple[int, ...]
    flat: tuple[int, ...]
    """Its shape with axes joined, or axes of length 1 left out."""
    axes: tuple[int, ...]
    """The order of the axes of `flat` that is ours."""

    def ours(self, array: Array) -> Tensor:
        """The rows of our parameter."""
        return torch.from_numpy(np.array(array, np.float32)).reshape(self.flat).permute(self.axes)

    def theirs(self, rows: Tensor) -> Array:
        """The array of the reference."""
        order = tuple(int(axis) for axis in np.argsort(self.axes))
        array: Array = np.ascontiguousarray(rows.permute(order).reshape(self.shape).numpy())
        return array

    @property
    def rows(self) -> int:
        """How many of our parameter's rows it is."""
        return self.flat[self.axes[0]]


def reference_layout(model: Unloc) -> dict[str, tuple[Part, ...]]:
    """For every parameter by its name: the arrays it is made of, one after another along its first axis.

    Works on models on the `meta` device.

    Raises:
        ReferenceTreeError: the model has parts that the reference has not.
    """
    if model.similarity is not None:
        raise ReferenceTreeError("a model that reads its tower's similarity has no place in the reference's trees")
    layout = {}
    for prefix, module in model.named_modules():
        attention = model.get_submodule(prefix.rpartition(".")[0])
        for leaf, parameter in module.named_parameters(recurse=False):
            path = _renamed(model, f"{prefix}.{leaf}")
            if isinstance(attention, Attention):
                parts = _attention(path, parameter, attention.heads)
            elif leaf in ("scales", "shifts"):
                each = path.removesuffix("s")
                parts = tuple(Part(f"{each}_{level}", (1,), (1,), (0,)) for level in range(len(parameter)))
            else:
                parts = (_plain(path, module, parameter),)
            layout[f"{prefix}.{leaf}"] = parts
    return layout


def _renamed(model: Unloc, name: str) -> str:
    path = name.replace(".", "/")
    for pattern, replacement in _RENAMES:
        path = re.sub(pattern, replacement, path)
    if model.config.head.shared:
        path = re.sub(r"(ClassificationHead|RegressionHead)_0\b", r"\1", path)
    return re.sub(r"^head\b", f"{model.config.task}_head", path)


def _attention(path: str, parameter: Tensor, heads: int) -> tuple[Part, ...]:
    """Queries, keys and values are one layer of ours; theirs tell heads apart."""
    stem, layer, leaf = path.rsplit("/", 2)
    width = parameter.shape[-1]
    if layer == "out":
        if leaf == "bias":
            return (Part(path, (width,), (width,), (0,)),)
        return (Part(f"{stem}/out/kernel", (heads, width // heads, width), (width, width), (1, 0)),)
    if leaf == "bias":
        each = width // 3
        return tuple(Part(f"{stem}/{name}/bias", (heads, each // heads), (each,), (0,)) for name in _QKV)
    shape = (width, heads, width // heads)
    return tuple(Part(f"{stem}/{name}/kernel", shape, (width, width), (1, 0)) for name in _QKV)


def _plain(path: str, module: nn.Module, parameter: Tensor) -> Part:
    shape = tuple(parameter.shape)
    stem, _, leaf = path.rpartition("/")
    if leaf == "weight" and isinstance(module, nn.Linear | nn.Conv1d):
        return Part(f"{stem}/kernel", shape[::-1], shape[::-1], tuple(reversed(range(len(shape)))))
    axes = tuple(range(len(shape)))
    if leaf == "weight":
        return Part(f"{stem}/{'embedding' if isinstance(module, nn.Embedding) else 'scale'}", shape, shape, axes)
    return Part(path, (1, *shape) if leaf == "pos_embedding" else shape, shape, axes)


def reference_shapes(model: Unloc) -> dict[str, tuple[int, ...]]:
    """Path and shape of every array of the reference's tree for a model."""
    return _shapes(reference_layout(model))


def _shapes(layout: Mapping[str, tuple[Part, ...]]) -> dict[str, tuple[int, ...]]:
    return {part.path: part.shape for parts in layout.values() for part in parts}


def load_reference(model: Unloc, tree: Tree) -> None:
    """Put the arrays of a tree into a model of their sizes; for other sizes see `resize.adapted`.

    Raises:
        ReferenceTreeError: arrays are missing, unknown or have another shape; nothing was loaded.
    """
    layout = reference_layout(model)
    check_tree(_shapes(layout), tree)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parts in layout.items():
            parameters[name].copy_(torch.cat([part.ours(tree[part.path]) for part in parts]))


def to_reference(model: Unloc) -> dict[str, Array]:
    """The parameters of a model as the reference's tree, float32."""
    return dict(_arrays(model))


def _arrays(model: Unloc) -> Iterator[tuple[str, Array]]:
    parameters = dict(model.named_parameters())
    for name, parts in reference_layout(model).items():
        ours = parameters[name].detach().float().cpu()
        for part, rows in zip(parts, torch.split(ours, [part.rows for part in parts]), strict=True):
            yield part.path, part.theirs(rows)
