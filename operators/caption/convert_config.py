"""Configurations of converted GIT models: sizes are read off the tree, the rest is told or as it was released.

Options have the names of the reference's configuration (`dense_reference`), so that one of its files can be given too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from onlooker.operators.caption.dense_config import DenseConfig, ParagraphConfig
from onlooker.operators.caption.dense_reference import ReferenceConfigError, dense_config, paragraph_config
from onlooker.operators.convert.tree import array_shape, count_layers

Options = Mapping[str, Any]

_OF = "the reference's streaming GIT model"
_shape, _count = partial(array_shape, of=_OF), partial(count_layers, of=_OF)

_HEAD = 64
"""Width of an attention head in all published models."""
_WORDS = "textual/embedding/words/embedding"
_RELEASED = {
    "streaming_method": "kmeans",
    "kmeans_num_iters": 2,
    "freeze_image_encoder": True,
    "decode_method": "beam",
    "decode_beam_size": 4,
}
_DENSE = {
    **_RELEASED,
    "num_dense_outputs": 16,
    "num_dense_outputs_test": 2,
    "early_segments_as_context": True,
    "normalize_early_timestamps": True,
    "no_timestamp_in_context": True,
    "streaming_feature_implementation": "given_checkpoints",
    "max_caption_length": 256,
}
_PARAGRAPH = {**_RELEASED, "max_caption_length": 128}


class Configured(NamedTuple):
    """A model's configuration and where it comes from."""

    config: DenseConfig | ParagraphConfig
    assumed: dict[str, Any]
    """Options that neither the tree nor the user told, as in the released configurations."""


def vocabulary_rows(tree: Mapping[str, Any]) -> int:
    """Words and time tokens that a GIT tree knows.

    Raises:
        ReferenceTreeError: it has no embedding of them.
    """
    return _shape(tree, _WORDS, 2)[0]


def decoder_sizes(tree: Mapping[str, Any], part: str, projection: str, *, of: str) -> dict[str, Any]:
    """The sizes of a `GitConfig` that the tree of a decoder tells, all but its heads.

    Args:
        tree: arrays (or anything with a shape) by path.
        part: where the decoder is in the tree.
        projection: of what it is told about, in there.
        of: what the tree should be one of, for the message.

    Raises:
        ReferenceTreeError: an array that tells a size is missing or has another number of axes.
    """
    layers = f"{part}/transformer/encoder/layer."
    words, hidden = array_shape(tree, f"{part}/embedding/words/embedding", 2, of=of)
    return {
        "vocab_size": words,
        "visual_width": array_shape(tree, f"{part}/{projection}/kernel", 2, of=of)[0],
        "hidden_size": hidden,
        "num_layers": count_layers(tree, layers, of=of),
        "ffn_size": array_shape(tree, f"{layers}0/intermediate/dense/kernel", 2, of=of)[1],
        "max_positions": array_shape(tree, f"{part}/embedding/positions/embedding", 2, of=of)[0],
    }


def git_config(
    tree: Mapping[str, Any], dense: bool, pieces: Sequence[str], file: Options | None, changes: Options
) -> Configured:
    """The config of a dense (or paragraph) captioner.

    Args:
        tree: arrays by path.
        dense: which of the two models it is.
        pieces: the words of the vocabulary.
        file: a complete configuration of the reference, in which what is absent has the reference's own default;
            None = as in the released configurations.
        changes: options that go before all others.

    Raises:
        ReferenceTreeError: an array that tells a size is missing or has another number of axes.
        ReferenceConfigError: an option that is unknown, or whose value is not supported.
    """
    told = _merged(_merged(_told(tree, pieces), file or {}), changes)
    try:
        assumed = {} if file is not None else _released(told, dense)
        values = _merged(assumed, told)
        config = dense_config(values) if dense else paragraph_config(values)
    except ReferenceConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ReferenceConfigError(f"a model of this configuration cannot be made: {error}") from error
    return Configured(config, {name: value for name, value in assumed.items() if name not in told})


def _released(told: Options, dense: bool) -> dict[str, Any]:
    """The options of the released configurations; those that depend on sizes fit the sizes that are told."""
    vision, text = told["backbone_args"], told["text_decoder_args"]
    # The released dense models have as many frames as time tokens, which their data asks for.
    frames = told.get("num_frames", told["num_bins"] if dense else 64)
    values: dict[str, Any] = {**(_DENSE if dense else _PARAGRAPH), "num_frames": frames}
    for name in ("num_dense_outputs", "num_dense_outputs_test"):
        if dense:
            values[name] = min(values[name], frames)
    values["max_caption_length"] = min(values["max_caption_length"], text["max_caption_length"])
    patches = (vision["pretrain_img_size"] // vision["patch_size"]) ** 2
    values["streaming_buffer_size"] = 2 * (patches + int(vision["use_class_embedding"]))
    for part, width in (("backbone_args", "embed_dim"), ("text_decoder_args", "hidden_size")):
        if "num_heads" in told[part]:
            continue
        if told[part][width] % _HEAD:
            raise ReferenceConfigError(f"the tree does not tell its attention heads: give {part}.num_heads")
        values[part] = {"num_heads": told[part][width] // _HEAD}  # as wide as in all published models
    return values


def _told(tree: Mapping[str, Any], pieces: Sequence[str]) -> dict[str, Any]:
    """What a tree and its vocabulary say, in the reference's names."""
    rows, hidden = _shape(tree, _WORDS, 2)
    told: dict[str, Any] = {
        "vocab_size": rows,
        "num_bins": rows - len(pieces),
        "with_temp_emb": "temperal_embedding" in tree,
        "backbone_args": _vision(tree),
        "text_decoder_args": {
            "hidden_size": hidden,
            "num_hidden_layers": _count(tree, "textual/transformer/encoder/layer."),
            "max_caption_length": _shape(tree, "textual/embedding/positions/embedding", 2)[0],
        },
    }
    if told["with_temp_emb"]:
        told["num_frames"] = _shape(tree, "temperal_embedding", 4)[0]
    for name, piece in (("begin_token_id", "[CLS]"), ("end_token_id", "[SEP]")):
        if piece in pieces:
            told[name] = pieces.index(piece)
    return told


def _vision(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes and options of the trunk."""
    root, block = "image_encoder", "image_encoder/blocks.0"
    patch, _, _, width = _shape(tree, f"{root}/patch_embed.proj/kernel", 4)
    told: dict[str, Any] = {
        "embed_dim": width,
        "patch_size": patch,
        "depth": _count(tree, f"{root}/blocks."),
        "mlp_ratio": _shape(tree, f"{block}/mlp/fc1/kernel", 2)[1] / width,
        "pe_bias": f"{root}/patch_embed.proj/bias" in tree,
        "qkv_bias": f"{block}/attn/qkv/bias" in tree,
        "beit_like_qkv_bias": f"{block}/attn/q_bias" in tree,
        "use_class_embedding": f"{root}/class_embedding" in tree,
        "use_abs_pos": f"{root}/pos_embed" in tree,
        "use_ln_pre": f"{root}/ln_pre/scale" in tree,
        "use_ln_post": f"{root}/ln_post/scale" in tree,
        "layer_scale_init_value": 0.1 if f"{block}/gamma_1" in tree else -1.0,
        "pretrain_img_size": 224,
    }
    if told["use_abs_pos"]:
        rows = _shape(tree, f"{root}/pos_embed", 3)[1]
        # One row more than a square of patches is that of the class token, used or not.
        told["pretrain_use_cls_token"] = math.isqrt(rows) ** 2 != rows
        told["pretrain_img_size"] = math.isqrt(rows - int(told["pretrain_use_cls_token"])) * patch
    return told


def _merged(values: Options, changes: Options) -> dict[str, Any]:
    """Both, nested options one by one; `changes` win."""
    merged = dict(values)
    for name, value in changes.items():
        own = merged.get(name)
        merged[name] = _merged(own, value) if isinstance(own, dict) and isinstance(value, dict) else value
    return merged
