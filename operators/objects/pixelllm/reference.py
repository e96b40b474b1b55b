"""Configurations of converted models: sizes are read off the tree, the rest is told by the reference's own names."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from onlooker.operators.caption.convert_config import decoder_sizes
from onlooker.operators.caption.git import GitConfig
from onlooker.operators.convert.tree import array_shape, count_layers, leaves
from onlooker.operators.errors import OnlookerError

from .config import AdapterConfig, EvaConfig, Fuse, MaskConfig, PixelLlmConfig, PointConfig, SamConfig

Options = Mapping[str, Any]

_OF = "a PixelLLM"
_shape, _count = partial(array_shape, of=_OF), partial(count_layers, of=_OF)

_HEAD = 64
"""Width of an attention head in the published EVA-02 and BERT."""
_RELEASED: dict[str, Any] = {
    "git_backbone_args.num_heads": None,
    "git_preprocess_args.image_size": (384, 384),
    "sam_preprocess_args.image_size": (384, 384),
    "text_decoder_args.num_heads": None,
    "text_decoder_args.out_feat_fuse_method": "",
    "point_predictor_args.num_classes": 1,
    "point_predictor_args.mlp_activation": "gelu",
    "prompt_fuse_fn": "sparse",
    "box_points_per_side": 2,
    "point_output_ignore": "^end-1",
    "begin_token_id": 101,
    "end_token_id": 102,
    "label_smooth": 0.1,
}
"""What the tree does not tell, as released; None = by the width."""


class PixelLlmConfigError(OnlookerError):
    """A configuration of the reference that cannot be taken over; the message names the option."""


class Configured(NamedTuple):
    """A model's configuration and where it comes from."""

    config: PixelLlmConfig
    assumed: dict[str, Any]
    """Options that neither the tree nor the user told, as released."""


class _Told:
    """Options by name, and which of them nobody told."""

    def __init__(self, file: Options, changes: Options) -> None:
        for name in changes:
            if name not in _RELEASED:
                near = difflib.get_close_matches(name, _RELEASED, n=1, cutoff=0.5)
                told = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_RELEASED)}"
                raise PixelLlmConfigError(f"unknown option {name!r}: {told}")
        self._given = {**file, **changes}
        self.assumed: dict[str, Any] = {}

    def __call__(self, name: str, otherwise: Any = None) -> Any:
        if name in self._given:
            return self._given[name]
        value = _RELEASED[name] if _RELEASED[name] is not None else otherwise
        self.assumed[name] = value
        return value


def pixelllm_config(tree: Mapping[str, Any], file: Options | None = None, changes: Options | None = None) -> Configured:
    """The config of a model.

    Args:
        tree: arrays (or anything with a shape) by path.
        file: the reference's whole `config.model`, nested or flat; what is absent is as released.
        changes: options that go before all others, by their full name.

    Raises:
        ReferenceTreeError: an array that tells a size is missing or has another number of axes.
        PixelLlmConfigError: an option is unknown or cannot be, or contradicts the tree.
    """
    told = _Told(dict(leaves(file or {})), dict(leaves(changes or {})))
    fuse, layers = _fuse(told("text_decoder_args.out_feat_fuse_method"))
    try:
        config = PixelLlmConfig(
            eva=_eva(tree, told) if _has(tree, "git_backbone") else None,
            sam=_sam(tree, told) if _has(tree, "sam_backbone") else None,
            prompt_width=_shape(tree, "prompt_encoder/no_mask_embed.weight", 2)[1],
            adapter=_adapter(tree, told),
            decoder=_decoder(tree, told),
            points=_points(tree, told) if _has(tree, "point_predictor") else None,
            masks=_masks(tree) if _has(tree, "mask_decoder") else None,
            fuse=fuse,
            fuse_layers=layers,
            points_per_side=int(told("box_points_per_side")),
            located=str(told("point_output_ignore")),
            label_smoothing=float(told("label_smooth")),
        )
    except (TypeError, ValueError) as error:
        raise PixelLlmConfigError(f"a model of this configuration cannot be made: {error}") from error
    return Configured(config, told.assumed)


def _has(tree: Mapping[str, Any], part: str) -> bool:
    return any(path.startswith(f"{part}/") for path in tree)


def _size(value: Any) -> tuple[int, int]:
    height, width = value
    return int(height), int(width)


def _fuse(method: Any) -> tuple[Fuse, tuple[int, ...]]:
    """``concat:-2,-1`` as what to do and with which depths."""
    if not method:
        return "concat", ()
    kind, _, depths = str(method).partition(":")
    if kind not in ("concat", "sum") or not depths:
        raise PixelLlmConfigError(f"out_feat_fuse_method {method!r} is neither concat:... nor sum:...")
    return ("concat" if kind == "concat" else "sum"), tuple(int(depth) for depth in depths.split(","))


def _eva(tree: Mapping[str, Any], told: _Told) -> EvaConfig:
    patch, _, _, width = _shape(tree, "git_backbone/patch_embed.proj/kernel", 4)
    side = math.isqrt(_shape(tree, "git_backbone/pos_embed", 3)[1] - 1)
    return EvaConfig(
        input_size=_size(told("git_preprocess_args.image_size")),
        position_size=side * patch,
        patch_size=patch,
        width=width,
        num_layers=_count(tree, "git_backbone/blocks."),
        num_heads=int(told("git_backbone_args.num_heads", max(width // _HEAD, 1))),
        mlp_size=_shape(tree, "git_backbone/blocks.0/mlp/w1/kernel", 2)[1],
        final_norm="git_backbone/ln_post/scale" in tree,
    )


def _sam(tree: Mapping[str, Any], told: _Told) -> SamConfig:
    patch, _, _, width = _shape(tree, "sam_backbone/patch_embed.proj/kernel", 4)
    side = _shape(tree, "sam_backbone/pos_embed", 4)[1]
    layers = _count(tree, "sam_backbone/blocks.")
    tables = [_shape(tree, f"sam_backbone/blocks.{layer}/attn/rel_pos_h", 2) for layer in range(layers)]
    windows = {layer: (rows + 1) // 2 for layer, (rows, _) in enumerate(tables) if (rows + 1) // 2 != side}
    if len(set(windows.values())) > 1:
        raise PixelLlmConfigError(f"the windows of sam_backbone differ in size: {sorted(set(windows.values()))}")
    return SamConfig(
        input_size=_size(told("sam_preprocess_args.image_size")),
        position_size=side * patch,
        patch_size=patch,
        width=width,
        num_layers=layers,
        num_heads=width // tables[0][1],
        mlp_ratio=_shape(tree, "sam_backbone/blocks.0/mlp/lin1/kernel", 2)[1] / width,
        window_size=next(iter(windows.values()), side),
        window_blocks=tuple(windows),
        channels=_shape(tree, "sam_backbone/neck/0/kernel", 4)[3],
    )


def _adapter(tree: Mapping[str, Any], told: _Told) -> AdapterConfig:
    outputs, width = _shape(tree, "prompt_adapter/output_tokens.weight", 2)
    fused = told("prompt_fuse_fn")
    if fused not in ("sparse", "dense"):
        raise PixelLlmConfigError(f"prompt_fuse_fn {fused!r} is neither 'sparse' nor 'dense'")
    return AdapterConfig(
        depth=_count(tree, "prompt_adapter/transformer/layers."),
        width=width,
        mlp_size=_shape(tree, "prompt_adapter/transformer/layers.0/mlp/lin1/kernel", 2)[1],
        num_outputs=outputs,
        output_width=_shape(tree, "prompt_adapter/dense_output_mlp/layers.0/kernel", 2)[1],
        dense=fused == "dense",
    )


def _decoder(tree: Mapping[str, Any], told: _Told) -> GitConfig:
    sizes = decoder_sizes(tree, "textual", "visual_projection.0", of=_OF)
    return GitConfig(
        **sizes,
        num_heads=int(told("text_decoder_args.num_heads", max(sizes["hidden_size"] // _HEAD, 1))),
        begin_token=int(told("begin_token_id")),
        end_token=int(told("end_token_id")),
    )


def _points(tree: Mapping[str, Any], told: _Told) -> PointConfig:
    depth = _count(tree, "point_predictor/mlp/layers.")
    classes = int(told("point_predictor_args.num_classes"))
    outputs = _shape(tree, f"point_predictor/mlp/layers.{depth - 1}/kernel", 2)[1]
    if outputs % (3 + classes):
        raise PixelLlmConfigError(f"{outputs} outputs of the point predictor are no points with {classes} classes")
    activation = told("point_predictor_args.mlp_activation")
    if activation not in ("gelu", "relu"):
        raise PixelLlmConfigError(f"mlp_activation {activation!r} is neither 'gelu' nor 'relu'")
    return PointConfig(
        num_points=outputs // (3 + classes),
        num_classes=classes,
        hidden_size=_shape(tree, "point_predictor/mlp/layers.0/kernel", 2)[1],
        depth=depth,
        pre_norm="point_predictor/LayerNorm_0/scale" in tree,
        activation=activation,
    )


def _masks(tree: Mapping[str, Any]) -> MaskConfig:
    adapted = _has(tree, "mask_adapter")
    return MaskConfig(
        depth=_count(tree, "mask_decoder/transformer/layers."),
        mlp_size=_shape(tree, "mask_decoder/transformer/layers.0/mlp/lin1/kernel", 2)[1],
        num_masks=_shape(tree, "mask_decoder/mask_tokens.weight", 2)[0] - 1,
        head_size=_shape(tree, "mask_decoder/iou_prediction_head/layers.0/kernel", 2)[1],
        head_depth=_count(tree, "mask_decoder/iou_prediction_head/layers."),
        adapter_depth=_count(tree, "mask_adapter/transformer/layers.") if adapted else None,
        gated="mask_adapter/alpha_output.weight" in tree or not adapted,
    )
