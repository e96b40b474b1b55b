"""The reference's Vid2Seq configurations as ours; sizes are read off the parameter tree and must agree with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import OnlookerError
from ..contexts import StreamingOptions
from ..dense_config import SearchConfig
from ..dense_reference import ReferenceConfigError
from .config import Vid2SeqConfig
from .convert import config_from_reference

_OPTIONS = {
    "max_caption_length": "max_length",
    "begin_token_id": "begin_token",
    "end_token_id": "end_token",
    "num_bins": "num_bins",
    "dtype": "dtype",
}
_POINTS = {"num_dense_outputs": "train_points", "num_dense_outputs_test": "test_points"}
_SEARCH = {"decode_method": "method", "decode_beam_size": "beam", "decode_brevity_penalty_alpha": "alpha"}
_CONTEXT = (
    "early_segments_as_context",
    "no_timestamp_in_context",
    "normalize_early_timestamps",
    "copy_context",
    "remove_segments_from_wrong_checkpoint",
)
_SIZES = {
    "vocab_size": "vocab_size",
    "emb_dim": "width",
    "num_heads": "num_heads",
    "num_encoder_layers": "encoder_layers",
    "num_decoder_layers": "decoder_layers",
    "head_dim": "head_dim",
    "mlp_dim": "ffn_size",
    "logits_via_embedding": "tie_word_embeddings",
    # of the visual encoder:
    "dim": "visual_ffn_size",
    "heads": "visual_heads",
    "layers": "visual_layers",
    "proj_dim": "width",
}
_ONLY: dict[str, tuple[Any, ...]] = {
    "mlp_activations": (["gelu", "linear"],),
    "pos_embed": ("learned_1d",),
    "encoder_type": ("vit", "cat_encoder"),
    "stochastic_depth": (0.0,),
}
_UNUSED = {
    *("pretrained_config", "share_encoder", "decode_feature_key", "model_name"),
    *("dropout_rate", "t5_dropout_rate", "label_smooth", "label_smooth_bias", "ignore_empty_data"),
}
"""Names of things, and what only training reads."""
_PARTS = {"model", "encoder", "decoder", "cat_encoder", "t5_decoder", "t5"}
"""Where the reference nests its options; their names say all."""


def vid2seq_config(
    tree: Mapping[str, Any], file: Mapping[str, Any] | None, changes: Mapping[str, Any]
) -> Vid2SeqConfig:
    """The config of a Vid2Seq model.

    Args:
        tree: arrays by path.
        file: a complete configuration of the reference, in which what is absent has the reference's own default;
            None = as in the released configurations, with as many time tokens as frames, as its data asks for.
        changes: options that go before all others.

    Raises:
        ReferenceTreeError: an array that tells a size is missing or has another number of axes.
        ReferenceConfigError: an option that is unknown, not supported, or does not fit the tree.
    """
    pairs = [*_flat(file or {}), *_flat(changes)]
    _check(pairs)
    values = dict(pairs)
    try:
        config = _config(tree, values, released=file is None)
    except OnlookerError:
        raise
    except (TypeError, ValueError) as error:
        raise ReferenceConfigError(f"a Vid2Seq model of this configuration cannot be made: {error}") from error
    for theirs, ours in _SIZES.items():
        if values.get(theirs, getattr(config, ours)) != getattr(config, ours):
            raise ReferenceConfigError(f"{theirs} = {values[theirs]!r}, but the tree says {getattr(config, ours)}")
    return config


def _config(tree: Mapping[str, Any], values: Mapping[str, Any], released: bool) -> Vid2SeqConfig:
    def ours(names: Mapping[str, str]) -> dict[str, Any]:
        return {own: values[theirs] for theirs, own in names.items() if theirs in values}

    options, points, search = ours(_OPTIONS), ours(_POINTS), SearchConfig(**ours(_SEARCH))
    context = {name: values[name] for name in _CONTEXT if name in values}
    if released:
        plain = config_from_reference(tree, num_bins=2, test_points=1, train_points=1)
        options = {"num_bins": plain.num_frames} | options
        points = {name: min(getattr(Vid2SeqConfig, name), plain.num_frames) for name in _POINTS.values()} | points
    else:
        # Absent or negative: plain Vid2Seq, which is one point at the end of the video.
        points = {name: max(1, points.get(name, -1)) for name in _POINTS.values()}
        context.setdefault("early_segments_as_context", False)
    return config_from_reference(tree, **options, **points, search=search, context=StreamingOptions(**context))


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and name in _PARTS:
            yield from _flat(value)
        else:
            yield name, value


def _check(pairs: list[tuple[str, Any]]) -> None:
    known = {*_UNUSED, *_OPTIONS, *_POINTS, *_SEARCH, *_CONTEXT, *_SIZES}
    for name, value in pairs:
        if name in _ONLY and value not in _ONLY[name]:
            raise ReferenceConfigError(f"Vid2Seq: {name} = {value!r} is not supported, only {_ONLY[name][0]!r} is")
        if name not in _ONLY and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ReferenceConfigError(f"Vid2Seq: unknown option {name!r}{hint}")
