"""Parameter trees of the reference (flax) as weights of Dense VOC, and a model as such a tree.

As for the captioners (`caption.convert`), but the tracker's attention tells heads apart, (width, heads, head width)
and back, and the kernels of transposed convolutions lie the other way round along both sides of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from onlooker.operators.caption import convert as plain
from onlooker.operators.convert.read import Array, Tree
from onlooker.operators.convert.tree import check_tree

from .association import AssociationAttention

__all__ = ["TEXT", "load_reference", "reference_shapes", "to_reference"]

TEXT = "roi_heads.text_decoder.textual"
"""The text decoder in the reference's tree, as one name."""

_RENAMES: plain.Renames = (
    (r"^detector/", ""),
    (r"^backbone/net/patch_embed/proj/", "backbone/net/patch_embed.proj/"),
    (r"^backbone/net/blocks/(\d+)/", r"backbone/net/blocks.\1/"),
    (r"^backbone/(simfp_\d)/(\d+)/norm/", r"backbone/\1.\2.norm/"),
    (r"^backbone/(simfp_\d)/(\d+)/", r"backbone/\1.\2/"),
    (r"^proposal_generator/scales/(\d+)/", r"proposal_generator/scales.\1/"),
    (r"^roi_heads/box_head/(\d+)/", r"roi_heads/box_head.\1/"),
    (r"^association/(fc[12])/", r"tracking_layers/\1/"),
    (r"^association/(encoder|decoder)/", r"tracking_transformer/\1/\1block_0/"),
    (r"/encoderblock_0/attention/", "/encoderblock_0/self_attn/"),
    (r"/decoderblock_0/attention/", "/decoderblock_0/cross_attn/"),
    (r"block_0/mlp_in/", "block_0/mlp/Dense_0/"),
    (r"block_0/mlp_out/", "block_0/mlp/Dense_1/"),
    (r"^captioner/visual_projection/", "captioner/object_feature_projection.0/"),
    (r"^captioner/visual_norm/", "captioner/object_feature_projection.1/"),
    (r"^captioner/", "decoder/"),
    *plain.RENAMES,
    (r"^textual/", f"{TEXT}/"),
)


@dataclass(frozen=True)
class _Special:
    """An array that differs from what `caption.convert` takes.

    Attributes:
        shape: its shape in the reference's tree.
        plain: its shape as `caption.convert` has it.
        transposed: it is the kernel of a transposed convolution, (height, width, in, out) and the other way round.
    """

    shape: tuple[int, ...]
    plain: tuple[int, ...]
    transposed: bool = False

    def ours(self, array: Array) -> Array:
        """As `caption.convert` has it."""
        return np.flip(array, (0, 1)).swapaxes(2, 3) if self.transposed else array.reshape(self.plain)

    def theirs(self, array: Array) -> Array:
        """As the reference has it."""
        array = np.flip(array, (0, 1)).swapaxes(2, 3) if self.transposed else array.reshape(self.shape)
        return np.ascontiguousarray(array)


def reference_shapes(model: nn.Module, part: str = "") -> dict[str, tuple[int, ...]]:
    """Path and shape of every array of the reference's tree for a model. Works on the `meta` device.

    Args:
        model: a `DenseVoc`, or one of its parts.
        part: the name of that part in `DenseVoc`, as "association"; empty for the whole.
    """
    shapes = plain.reference_shapes(_whole(model, part), _RENAMES)
    return shapes | {path: special.shape for path, special in _specials(_whole(model, part)).items()}


def load_reference(model: nn.Module, tree: Tree, part: str = "") -> None:
    """Put the arrays of a tree into a model of their sizes, or into one of its parts.

    Args:
        model: see `reference_shapes`.
        tree: all its arrays, no others. See `convert.read.read_tree`.
        part: see `reference_shapes`.

    Raises:
        ReferenceTreeError: arrays are missing, unknown or have another shape; nothing was loaded.
    """
    check_tree(reference_shapes(model, part), tree)
    arrays = dict(tree)
    for path, special in _specials(_whole(model, part)).items():
        arrays[path] = special.ours(tree[path])
    plain.load_reference(_whole(model, part), arrays, renames=_RENAMES)


def to_reference(model: nn.Module, part: str = "") -> dict[str, Array]:
    """The parameters of a model as the reference's tree, float32; arguments as for `reference_shapes`."""
    tree = plain.to_reference(_whole(model, part), _RENAMES)
    for path, special in _specials(_whole(model, part)).items():
        tree[path] = special.theirs(tree[path])
    return tree


def _whole(model: nn.Module, part: str) -> nn.Module:
    """Something in which the parameters of a part have the names that they have in a `DenseVoc`."""
    return nn.ModuleDict({part: model}) if part else model


def _specials(model: nn.Module) -> Mapping[str, _Special]:
    layout = plain.reference_layout(model, _RENAMES)
    specials = {}
    for prefix, module in model.named_modules():
        if isinstance(module, nn.ConvTranspose2d):
            array = layout[f"{prefix}.weight"]
            height, width, outputs, inputs = array.shape
            specials[array.path] = _Special((height, width, inputs, outputs), array.shape, transposed=True)
        if isinstance(module, AssociationAttention):
            for name, parameter in module.named_parameters(prefix):
                array, width = layout[name], len(parameter)
                split = (module.heads, width // module.heads)
                if ".out." not in name:
                    specials[array.path] = _Special((*array.shape[:-1], *split), array.shape)
                elif parameter.ndim == 2:
                    specials[array.path] = _Special((*split, width), array.shape)
    return specials
