"""Configurations of converted models: sizes are read off the tree, the rest is told by the reference's own names."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, cast

from onlooker.operators.convert.read import ReferenceTreeError
from onlooker.operators.convert.tree import array_shape, leaves
from onlooker.operators.errors import OnlookerError

from .config import TASKS, FusionConfig, HeadConfig, ImageTowerConfig, Task, TextTowerConfig, UnlocConfig

Options = Mapping[str, Any]

_shape = partial(array_shape, of="an UnLoc model")

_FUSION = "video_text_fusion/video_text_encoder"
_BLOCK = f"{_FUSION}/encoderblock_0"
_DOWNSAMPLE = {"strided_depthwise_conv": "depthwise_conv", "strided_conv": "conv"}
_FRAMES = ("num_features_level0", "num_frames", "T")
# What the tree does not tell, by the last part of its name; the reference's own defaults.
_DEFAULTS: dict[str, Any] = {
    "self_attention_encoder_name": None,
    "feature_pyramid_levels": None,
    "feature_pyramid_downsample_stride": 2,
    "downsample_strategy": "max_pool",
    "positional_embedding": "learned",
    "use_all_text_tokens": False,
    "text_tower_classifier": "eos",
    "distance_normalizer": "relu",
    "output_per_class_displacements": True,
    "init_classification_head_bias": 0.0,
    "init_regression_head_bias": 0.0,
    "init_head_bias": 0.0,
    "video_tower_config.freeze": False,
    "text_tower_config.freeze": False,
    **dict.fromkeys(_FRAMES),
}
_SHIPPED = {"self_attention_encoder_name": "simple_pyramid", "positional_embedding": "sinusoid"}
# Sizes, which must agree with the tree's: the end of their name, and what they are of.
_SIZES = {
    "self_attention_encoder_config.num_heads": "fusion.heads",
    "self_attention_encoder_config.num_layers": "fusion.layers",
    "self_attention_encoder_config.mlp_dim": "fusion.mlp_width",
    "image_encoder_config.features": "image.width",
    "image_encoder_config.num_heads": "image.heads",
    "image_encoder_config.num_layers": "image.layers",
    "image_encoder_config.classifier": "image.pool",
    "text_tower_config.encoder_config.hidden_size": "text.width",
    "text_tower_config.encoder_config.num_heads": "text.heads",
    "text_tower_config.encoder_config.num_layers": "text.layers",
    "text_tower_config.encoder_config.vocab_size": "text.vocabulary",
    "video_tower_config.projection_size": "fusion.width",
    "text_tower_config.projection_size": "fusion.width",
    "num_conv_layers": "head.convs",
    "kernel_size": "head.kernel",
    "weight_sharing": "head.shared",
}
_UNSUPPORTED = ("modality_configs", "positional_embedding_max_length")


class UnlocConfigError(OnlookerError):
    """A configuration of the reference that cannot be taken over; the message names the option."""


class Configured(NamedTuple):
    """A model's configuration and where it comes from."""

    config: UnlocConfig
    assumed: dict[str, Any]
    """Options that neither the tree nor the user told."""


def unloc_config(tree: Mapping[str, Any], file: Options | None, changes: Options) -> Configured:
    """The config of a model.

    Args:
        tree: arrays (or anything with a shape) by path.
        file: the reference's whole configuration, or its `model`; what is absent has the reference's defaults. None =
            as in most shipped configurations.
        changes: options that go before all others, by the last part of their name or more of it.

    Raises:
        ReferenceTreeError: an array that tells a size is missing or has another number of axes.
        UnlocConfigError: an option that is unknown or not supported, or contradicts the tree.
    """
    known = dict(leaves(file.get("model", file))) if file is not None else {}
    given = {name: value for name, value in dict(leaves(file or {})).items() if name in _FRAMES} | known
    told = _Told(given, dict(leaves(changes)), file is None)
    task = _task(tree)
    fusion, frames = _fusion(tree, told)
    image, text = _image(tree), _text(tree, told)
    try:
        config = UnlocConfig(
            task=task,
            frames=frames,
            image=image,
            text=text,
            video_width=_width(tree, "video", image.width if image else fusion.width),
            text_width=_width(tree, "text", text.width if text else fusion.width),
            fusion=fusion,
            head=_head(tree, task, told),
            project_video="video_projection/kernel" in tree,
            project_text="text_projection/kernel" in tree,
            projection_bias="video_projection/bias" in tree or "text_projection/bias" in tree,
            freeze_image=told("video_tower_config.freeze"),
            freeze_text=told("text_tower_config.freeze"),
        )
    except (TypeError, ValueError) as error:
        raise UnlocConfigError(f"a model of this configuration cannot be made: {error}") from error
    told.check_sizes(config)
    return Configured(config, told.assumed)


class _Told:
    """Options by the end of their full name; changes go before the file."""

    def __init__(self, file: Options, changes: Options, shipped: bool) -> None:
        for name in changes:
            wanted = [*_DEFAULTS, *_SIZES]
            if not any(_ends(name, end) or _ends(end, name) for end in wanted):
                ends = [end.rpartition(".")[2] for end in wanted]
                near = difflib.get_close_matches(name.rpartition(".")[2], ends, n=1, cutoff=0.5)
                raise UnlocConfigError(
                    f"unknown option {name!r}{f': did you mean {near[0]!r}?' if near else ': see the reference'}"
                )
        for name, value in (*file.items(), *changes.items()):
            if value is not None and any(part in _UNSUPPORTED for part in name.split(".")):
                raise UnlocConfigError(f"option {name!r} is not supported")
        self.file, self.changes, self.shipped = file, changes, shipped
        self.assumed: dict[str, Any] = {}

    def __call__(self, name: str) -> Any:
        for options in (self.changes, self.file):
            for given, value in options.items():
                if _ends(given, name) or (options is self.changes and _ends(name, given)):
                    return value
        default = _SHIPPED.get(name, _DEFAULTS[name]) if self.shipped else _DEFAULTS[name]
        if self.shipped and default is not None:
            self.assumed[name] = default
        return default

    def check_sizes(self, config: UnlocConfig) -> None:
        """Refuse sizes that are not the tree's."""
        for end, ours in _SIZES.items():
            part, _, attribute = ours.partition(".")
            own = getattr(getattr(config, part), attribute, None)
            for name, value in (*self.file.items(), *self.changes.items()):
                if _ends(name, end) and value is not None and own is not None and value != own:
                    raise UnlocConfigError(f"option {name} is {value!r}, but the tree's is {own!r}")


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith("." + end)


def _task(tree: Mapping[str, Any]) -> Task:
    heads = [task for task in TASKS if any(name.startswith(f"{task}_head/") for name in tree)]
    if len(heads) != 1:
        what = f"heads for {' and '.join(heads)}" if heads else "no head"
        raise ReferenceTreeError(f"the parameter tree has {what}: give that of an UnLoc model for one task")
    return heads[0]


def _fusion(tree: Mapping[str, Any], told: _Told) -> tuple[FusionConfig, int]:
    """The fusion, and T."""
    width, heads, _ = _shape(tree, f"{_BLOCK}/MultiHeadAttention_0/query/kernel", 3)
    layers, levels = _count(tree, f"{_FUSION}/encoderblock_"), _count(tree, f"{_FUSION}/output_conv_")
    learned = f"{_FUSION}/posembed_input/pos_embedding"
    kind: Any = "transformer" if not levels else told("self_attention_encoder_name")
    blocks = told("feature_pyramid_levels") if levels else None
    if kind is None or (kind == "fpn" and blocks is None):
        missing = "self_attention_encoder_name" if kind is None else "feature_pyramid_levels"
        raise UnlocConfigError(f"the tree does not tell {missing}: give it, as in the configuration of its training")
    if blocks is not None and len(blocks) != levels:
        raise UnlocConfigError(f"option feature_pyramid_levels is {blocks!r}, but the tree has {levels} levels")
    every = bool(told("use_all_text_tokens"))
    length = _shape(tree, "text_encoder/positional_embedding", 2)[0] if every else 1
    strategy = told("downsample_strategy") if kind == "fpn" else "max_pool"
    positions: Any = "learned" if learned in tree else told("positional_embedding")
    if positions == "learned" and learned not in tree:
        raise UnlocConfigError(f"option positional_embedding is 'learned', but the tree lacks {learned}")
    frames = _frames(tree, told, _shape(tree, learned, 3)[1] - length if learned in tree else None)
    try:
        fusion = FusionConfig(
            width=width,
            heads=heads,
            mlp_width=_shape(tree, f"{_BLOCK}/MlpBlock_0/Dense_0/kernel", 2)[1],
            layers=layers,
            kind=kind,
            levels=max(levels, 1),
            pyramid_blocks=tuple(blocks) if kind == "fpn" and blocks is not None else (),
            stride=told("feature_pyramid_downsample_stride") if levels else 1,
            downsample=cast(Any, _DOWNSAMPLE.get(strategy, strategy)),
            positions=positions,
            all_text_tokens=every,
            text_length=length,
        )
    except (TypeError, ValueError) as error:
        raise UnlocConfigError(f"a fusion of this configuration cannot be made: {error}") from error
    return fusion, frames


def _frames(tree: Mapping[str, Any], told: _Told, learned: int | None) -> int:
    options = (told(name) for name in _FRAMES)
    given = [int(value) for value in options if value is not None]
    if "video_encoder/class_embedding" in tree:
        given.append(_shape(tree, "video_encoder/class_embedding", 2)[0])
    if learned is not None:
        given.append(learned)
    if not given:
        raise UnlocConfigError("the tree does not tell how many frames it reads: give num_frames, as num_frames=128")
    if len(set(given)) > 1:
        raise UnlocConfigError(f"options and tree tell of {' and '.join(map(str, sorted(set(given))))} frames")
    return given[0]


def _image(tree: Mapping[str, Any]) -> ImageTowerConfig | None:
    root = "video_encoder/VisionTransformer"
    if "video_encoder/conv1/kernel" not in tree:
        return None
    numbers, width = _shape(tree, "video_encoder/conv1/kernel", 2)
    token = "video_encoder/class_embedding" in tree
    return ImageTowerConfig(
        width=width,
        layers=_count(tree, f"{root}/transformer/resblocks."),
        heads=_heads(tree, f"{root}/transformer/resblocks.0"),
        patch=math.isqrt(numbers // 3),
        patches=_shape(tree, f"{root}/positional_embedding", 2)[0] - int(token),
        pool="token" if token else "gap",
    )


def _text(tree: Mapping[str, Any], told: _Told) -> TextTowerConfig | None:
    if "text_encoder/token_embedding/embedding" not in tree:
        return None
    vocabulary, width = _shape(tree, "text_encoder/token_embedding/embedding", 2)
    pool = told("text_tower_classifier")
    if pool not in ("eos", "token", "gap"):
        raise UnlocConfigError(f"option text_tower_classifier is {pool!r}, known are 'eos', 'token' and 'gap'")
    return TextTowerConfig(
        vocabulary=vocabulary,
        width=width,
        layers=_count(tree, "text_encoder/transformer/resblocks."),
        heads=_heads(tree, "text_encoder/transformer/resblocks.0"),
        length=_shape(tree, "text_encoder/positional_embedding", 2)[0],
        pool=pool,
    )


def _head(tree: Mapping[str, Any], task: Task, told: _Told) -> HeadConfig:
    root = f"{task}_head"
    if f"{root}/output_projection/kernel" in tree:
        return HeadConfig(kind="linear", class_bias=told("init_head_bias"))
    shared = any(name.startswith(f"{root}/ClassificationHead/") for name in tree)
    tower = f"{root}/ClassificationHead{'' if shared else '_0'}"
    convs = _count(tree, f"{tower}/conv")
    return HeadConfig(
        convs=convs,
        shared=shared,
        class_bias=told("init_classification_head_bias"),
        box_bias=told("init_regression_head_bias"),
        normalizer=told("distance_normalizer"),
        per_class_displacements=told("output_per_class_displacements"),
        kernel=_shape(tree, f"{tower}/conv0/kernel", 3)[0] if convs else 3,
    )


def _width(tree: Mapping[str, Any], part: str, other: int) -> int:
    kernel = f"{part}_projection/kernel"
    return _shape(tree, kernel, 2)[0] if kernel in tree else other


def _heads(tree: Mapping[str, Any], block: str) -> int:
    return _shape(tree, f"{block}/attn/query/kernel", 3)[1] if f"{block}/attn/query/kernel" in tree else 1


def _count(tree: Mapping[str, Any], stem: str) -> int:
    """How many numbered parts a stem has."""
    pattern = re.compile(re.escape(stem) + r"(\d+)/")
    return len({match[1] for name in tree if (match := pattern.match(name))})
