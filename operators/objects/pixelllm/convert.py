"""Parameter trees of the reference (flax) as weights of a `PixelLlm`, and a model as such a tree.

`caption.convert` does the work, by other names; the decoder is the one of captions.
"""

from __future__ import annotations

from torch import nn

from onlooker.operators.caption import convert as captions
from onlooker.operators.convert.read import Array, Tree

RENAMES: captions.Renames = (
    (r"^eva/patch/", "git_backbone/patch_embed.proj/"),
    (r"^eva/", "git_backbone/"),
    (r"^(git_backbone/.*)/([qv])_proj/bias$", r"\1/\2_bias"),
    (r"^sam/patch/", "sam_backbone/patch_embed.proj/"),
    (r"^sam/neck/conv1/", "sam_backbone/neck/0/"),
    (r"^sam/neck/norm1/", "sam_backbone/neck/1/"),
    (r"^sam/neck/conv2/", "sam_backbone/neck/2/"),
    (r"^sam/neck/norm2/", "sam_backbone/neck/3/"),
    (r"^sam/(.*)/mlp/fc([12])/", r"sam_backbone/\1/mlp/lin\2/"),
    (r"^sam/", "sam_backbone/"),
    (r"^prompt_encoder/point_embeddings/(\d+)$", r"prompt_encoder/point_embeddings.\1.weight"),
    (r"/(not_a_point_embed|no_mask_embed|output_tokens|iou_token|mask_tokens)$", r"/\1.weight"),
    (r"^adapter/", "prompt_adapter/"),
    (r"^prompt_adapter/prompt_projection/", "prompt_adapter/prompt_embedding_projection/"),
    (r"^prompt_adapter/place_projection/", "prompt_adapter/image_pe_projection/"),
    (r"^prompt_adapter/(\w*_projection|dense_output)/", r"prompt_adapter/\1_mlp/layers.0/"),
    (r"^prompt_adapter/outputs/(\d+)/", r"prompt_adapter/output_hypernetworks_mlps.\1/layers.0/"),
    (r"^mask_adapter/text_projection/", "mask_adapter/textual_projection/"),
    (r"^mask_adapter/(\w+_projection)/norm/", r"mask_adapter/\1_mlp/LayerNorm_0/"),
    (r"^mask_adapter/(\w+_projection)/linear/", r"mask_adapter/\1_mlp/layers.0/"),
    (r"^mask_adapter/alpha$", "mask_adapter/alpha_output.weight"),
    (r"^mask_decoder/upscaling/first/", "mask_decoder/output_upscaling/0/"),
    (r"^mask_decoder/upscaling/norm/", "mask_decoder/output_upscaling/1/"),
    (r"^mask_decoder/upscaling/second/", "mask_decoder/output_upscaling/3/"),
    (r"^mask_decoder/mask_heads/(\d+)/", r"mask_decoder/output_hypernetworks_mlps.\1/"),
    (r"^mask_decoder/iou_head/", "mask_decoder/iou_prediction_head/"),
    (r"^point_head/norm/", "point_predictor/LayerNorm_0/"),
    (r"^point_head/", "point_predictor/mlp/"),
    *captions.RENAMES,
    (r"/layers/(\d+)/", r"/layers.\1/"),
)
"""Our module names to theirs. Parts of a `PixelLlm` may be held by a `ModuleDict` under their own names."""


def reference_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Path and shape of every array of the reference's tree for a model, which may be on the `meta` device."""
    return captions.reference_shapes(model, RENAMES)


def load_reference(model: nn.Module, tree: Tree) -> None:
    """Put the arrays of a tree into a model of their sizes.

    Raises:
        ReferenceTreeError: arrays are missing, unknown or have another shape; nothing was loaded.
    """
    captions.load_reference(model, tree, renames=RENAMES)


def to_reference(model: nn.Module) -> dict[str, Array]:
    """The parameters of a model as the reference's tree, float32."""
    return captions.to_reference(model, RENAMES)
