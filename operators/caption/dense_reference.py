"""The reference's model configurations (the `config.model` of its files, or constructor arguments) as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onlooker.operators.caption.contexts import StreamingOptions
from onlooker.operators.caption.dense_config import (
    DenseConfig,
    FrameEncoderConfig,
    MemoryConfig,
    ParagraphConfig,
    SearchConfig,
)
from onlooker.operators.caption.git import GitConfig
from onlooker.operators.errors import OnlookerError
from onlooker.operators.tower.vit import PIXEL_MEAN, PIXEL_STD, VitConfig

_TRAINING = {
    "label_smooth",
    "loc_loss_weight",
    "show_densecap_loss",
    "ignore_empty_data",
    "dense_outputs_weight",
}
"""Read by the loss, which is no part of the model."""
_UNUSED = {"decode_feature_key", "backbone_param_name", "project_param_name", "ttm_output", "ttm_config", "model_name"}
"""Names of things, and attributes that nothing reads."""
_ONLY = {
    "backbone_name": "git_vit",
    "text_decoder_name": "git",
    "frame_fuse_fn": "concat",
    "project_layers_name": "none",
    "project_layers_args": {},
    "num_pooled_tokens": -1,
    "per_frame_qformer": False,
}
"""Options of which the released configurations use one value, the only one known here."""
_ONLY_VISION = {"in_chans": 3, "kernel_init": "normal", "freeze_vit_layer": -1}
_UNUSED_VISION = {"window_block_indexes", "use_rel_pos", "dtype"}
_ONLY_TEXT = {"stochastic_depth": 0.0, "approximate_gelu": False}


class ReferenceConfigError(OnlookerError):
    """A configuration of the reference asks for something that is not known here."""


class _Values:
    """A configuration of which every value must be asked for: `finish` refuses what is left."""

    def __init__(self, what: str, values: Mapping[str, Any], only: Mapping[str, Any], unused: set[str]) -> None:
        self.what = what
        self.rest = {name: value for name, value in values.items() if name not in unused}
        for name, known in only.items():
            given = self.rest.pop(name, known)
            if given != known:
                raise ReferenceConfigError(f"{what}: {name} = {given!r} is not supported, only {known!r} is")

    def take(self, name: str, default: Any) -> Any:
        return self.rest.pop(name, default)

    def finish(self) -> None:
        if self.rest:
            raise ReferenceConfigError(f"{self.what}: unknown option {sorted(self.rest)[0]!r}")


def dense_config(values: Mapping[str, Any]) -> DenseConfig:
    """The config of a `DenseCaptioner` from that of the reference's `streaming_dense_model`.

    Raises:
        ReferenceConfigError: an option that is unknown, or whose value is not supported.
    """
    given = _Values("dense model", values, _ONLY, _TRAINING | _UNUSED)
    vocabulary = given.take("vocab_size", 30522)
    encoder, decoder, search, length = _common(given, vocabulary)
    train_points = given.take("num_dense_outputs", -1)
    test_points = given.take("num_dense_outputs_test", -1)
    config = DenseConfig(
        encoder=encoder,
        decoder=decoder,
        search=search,
        memory=MemoryConfig(
            **_memory(given, iterations=2),
            points=given.take("streaming_feature_implementation", "fixed_checkpoints"),
            momentum=not given.take("no_momentum_in_memory", False),
        ),
        context=StreamingOptions(
            early_segments_as_context=given.take("early_segments_as_context", False),
            no_timestamp_in_context=given.take("no_timestamp_in_context", False),
            normalize_early_timestamps=given.take("normalize_early_timestamps", False),
            copy_context=given.take("copy_context", False),
            remove_segments_from_wrong_checkpoint=given.take("remove_segments_from_wrong_checkpoint", False),
        ),
        num_bins=given.take("num_bins", 100),
        max_length=length,
        train_points=train_points,
        test_points=test_points if test_points > 0 else train_points,
    )
    given.finish()
    return config


def paragraph_config(values: Mapping[str, Any]) -> ParagraphConfig:
    """The config of a `ParagraphCaptioner` from that of the reference's `streaming_model`.

    Raises:
        ReferenceConfigError: an option that is unknown, or whose value is not supported.
    """
    given = _Values("paragraph model", values, _ONLY, _TRAINING | _UNUSED | {"num_bins"})
    encoder, decoder, search, length = _common(given, given.take("vocab_size", 30522))
    memory = MemoryConfig(**_memory(given, iterations=-1))
    given.finish()
    return ParagraphConfig(encoder, decoder, memory, search, length)


def _common(given: _Values, vocabulary: int) -> tuple[FrameEncoderConfig, GitConfig, SearchConfig, int]:
    vision = _vision(given.take("backbone_args", {}))
    encoder = FrameEncoderConfig(
        vision=vision,
        num_frames=given.take("num_frames", 0),
        temporal_embedding=given.take("with_temp_emb", True),
        frozen=given.take("freeze_image_encoder", False),
        pixel_mean=tuple(given.take("pixel_mean", PIXEL_MEAN)),
        pixel_std=tuple(given.take("pixel_std", PIXEL_STD)),
    )
    text = _Values("text decoder", given.take("text_decoder_args", {}), _ONLY_TEXT, set())
    hidden = text.take("hidden_size", 768)
    decoder = GitConfig(
        vocab_size=vocabulary,
        visual_width=vision.width,
        hidden_size=hidden,
        num_heads=text.take("num_heads", 12),
        num_layers=text.take("num_hidden_layers", 6),
        ffn_size=4 * hidden,
        max_positions=text.take("max_caption_length", 1024),
        dropout=text.take("dropout", 0.1),
        attention_dropout=text.take("attention_dropout", 0.1),
        begin_token=given.take("begin_token_id", 101),
        end_token=given.take("end_token_id", 102),
    )
    text.finish()
    search = SearchConfig(
        method=given.take("decode_method", "greedy"),
        beam=given.take("decode_beam_size", 1),
        alpha=given.take("decode_brevity_penalty_alpha", 0.6),
    )
    return encoder, decoder, search, given.take("max_caption_length", 40)


def _memory(given: _Values, iterations: int) -> dict[str, Any]:
    return {
        "method": given.take("streaming_method", "none"),
        "size": given.take("streaming_buffer_size", -1),
        "iterations": given.take("kmeans_num_iters", iterations),
        "decay": given.take("ema_decay", 0.9),
    }


def _vision(values: Mapping[str, Any]) -> VitConfig:
    given = _Values("image encoder", values, _ONLY_VISION, _UNUSED_VISION)
    every, query_value = given.take("qkv_bias", True), given.take("beit_like_qkv_bias", False)
    scale = given.take("layer_scale_init_value", -1.0)
    config = VitConfig(
        image_size=given.take("pretrain_img_size", 224),
        patch_size=given.take("patch_size", 16),
        width=given.take("embed_dim", 768),
        num_layers=given.take("depth", 12),
        num_heads=given.take("num_heads", 12),
        mlp_ratio=given.take("mlp_ratio", 4.0),
        activation=given.take("mlp_activation", "quick_gelu"),
        qkv_bias="query_value" if query_value else "all" if every else "none",
        class_token=given.take("use_class_embedding", True),
        class_position=given.take("pretrain_use_cls_token", True),
        positions=given.take("use_abs_pos", True),
        patch_bias=given.take("pe_bias", True),
        norm_before=given.take("use_ln_pre", False),
        norm_after=given.take("use_ln_post", False),
        layer_scale=scale if scale > 0 else None,
        drop_path=given.take("drop_path_rate", 0.1),
    )
    given.finish()
    return config
