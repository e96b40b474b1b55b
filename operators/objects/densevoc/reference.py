"""Configurations of converted models: sizes are read off the tree, the rest is told by the reference's own names."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from onlooker.operators.caption.convert_config import decoder_sizes
from onlooker.operators.caption.git import GitConfig
from onlooker.operators.convert.tree import array_shape, count_layers, leaves
from onlooker.operators.errors import OnlookerError

from .association import AssociationConfig
from .config import PIXEL_MEAN, PIXEL_STD, BackboneConfig, DetectorConfig, ProposalConfig, RoiConfig
from .convert import TEXT
from .model import DenseVocConfig, TrackingConfig

__all__ = ["Configured", "DenseVocConfigError", "densevoc_config"]

Options = Mapping[str, Any]
_Shapes = Mapping[str, Any]

_OF = "a Dense VOC model"
_shape, _count = partial(array_shape, of=_OF), partial(count_layers, of=_OF)

_HEAD = 64
"""Width of an attention head of the text decoder."""
_SCALES = {2: 4.0, 3: 2.0, 4: 1.0, 5: 0.5}
"""By the number in the name of a level of the simple feature pyramid."""
_BLOCK = "backbone/net/blocks."
_TRACKER = "tracking_transformer/encoder/encoderblock_0/self_attn/query/kernel"


class _Default(NamedTuple):
    """What an option is where nobody tells it: as in the released evaluation on VidSTG, and of the reference itself."""

    released: Any
    own: Any


_OPTIONS = {
    "drop_path_rate": _Default(0.1, 0.1),
    "pixel_mean": _Default(PIXEL_MEAN, PIXEL_MEAN),
    "pixel_std": _Default(PIXEL_STD, PIXEL_STD),
    "iou_thresh": _Default(0.9, 0.9),
    "pre_nms_topk_test": _Default(1000, 1000),
    "post_nms_topk_test": _Default(256, 256),
    "pre_nms_topk_train": _Default(2000, 2000),
    "post_nms_topk_train": _Default(1000, 1000),
    "roi_matching_threshold": _Default((0.6,), (0.6,)),
    "roi_nms_threshold": _Default(0.5, 0.7),
    "roi_score_threshold": _Default(0.5, 0.05),
    "roi_post_nms_num_detections": _Default(16, 100),
    "roi_mult_proposal_score": _Default(True, True),
    "object_feat_res": _Default(7, 14),
    "begin_token_id": _Default(101, 101),
    "end_token_id": _Default(102, 102),
    "max_caption_length": _Default(40, 40),
    "bg_proposal_thresh": _Default(0.1, 0.1),
    "tracking_score_thresh": _Default(0.7, 0.3),
    "hard_tracking": _Default(True, False),
    "use_tracked_object_features": _Default(False, False),
    "consistent_soft_track": _Default(False, False),
    "max_num_tracks": _Default(32, 4),
    "hard_tracking_frames": _Default(6, 6),
    "asso_windows": _Default(8, -1),
}
_ONLY = {
    "num_classes": -1,
    "use_ln_pre": True,
    "roi_conv_dims": [],
    "roi_class_box_regression": False,
    "roi_use_sigmoid_ce": False,
    "roi_add_box_pred_layers": False,
    "roi_use_zeroshot_cls": False,
    "roi_one_class_per_proposal": False,
    "mult_caption_score": False,
}
"""Options of which one value is known here."""


class DenseVocConfigError(OnlookerError):
    """A configuration of the reference that cannot be taken over; the message names the option."""


class Configured(NamedTuple):
    """A model's configuration and where it comes from."""

    config: DenseVocConfig
    assumed: dict[str, Any]
    """Options that neither the tree nor the user told."""


def densevoc_config(
    tree: _Shapes, file: Options | None, changes: Options, pieces: Sequence[str] | None = None
) -> Configured:
    """The config of a model.

    Args:
        tree: arrays (or anything with a shape) by path.
        file: the reference's whole configuration, or its `model`; what is absent has the reference's defaults. None =
            as in the released evaluation on VidSTG.
        changes: options that go before all others, by the last part of their name.
        pieces: the words of its captions by their ids.

    Raises:
        ReferenceTreeError: an array that tells a size is missing or has another number of axes.
        DenseVocConfigError: an option that is unknown or not supported, or contradicts the tree.
    """
    told = _Told(_by_last_part(file.get("model", file)) if file is not None else None, _by_last_part(changes))
    for name, piece in (("begin_token_id", "[CLS]"), ("end_token_id", "[SEP]")):
        if pieces and piece in pieces:
            told.known[name] = pieces.index(piece)
    try:
        detector = _detector(tree, told)
        association = _association(tree)
        config = DenseVocConfig(
            detector=detector,
            association=association,
            captioner=_captioner(tree, told),
            tracking=_tracking(told, association, detector.channels),
        )
    except (TypeError, ValueError) as error:
        if isinstance(error, OnlookerError):
            raise
        raise DenseVocConfigError(f"a model of this configuration cannot be made: {error}") from error
    return Configured(config, told.assumed)


class _Told:
    """Options by the last part of their name; changes go before the file, the file before what is known otherwise."""

    def __init__(self, file: Options | None, changes: Options) -> None:
        for name in changes:
            if name not in _OPTIONS and name not in _ONLY:
                near = difflib.get_close_matches(name, _OPTIONS, n=1, cutoff=0.5)
                meant = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_OPTIONS)}"
                raise DenseVocConfigError(f"unknown option {name!r}: {meant}")
        self.given = {**(file or {}), **changes}
        for name, only in _ONLY.items():
            value = self.given.get(name, only)
            if (list(value) if isinstance(value, tuple) else value) != only:
                raise DenseVocConfigError(f"option {name} = {value!r} is not supported, only {only!r} is")
        self.released = file is None
        self.known: dict[str, Any] = {}
        self.assumed: dict[str, Any] = {}

    def __call__(self, name: str) -> Any:
        for options in (self.given, self.known):
            if name in options:
                value = options[name]
                return tuple(value) if isinstance(value, list) else value
        default = _OPTIONS[name].released if self.released else _OPTIONS[name].own
        if self.released:
            self.assumed[name] = default
        return default


def _by_last_part(options: Options) -> dict[str, Any]:
    return {name.rpartition(".")[2]: value for name, value in leaves(options)}


def _detector(tree: _Shapes, told: _Told) -> DetectorConfig:
    layers = sum(re.fullmatch(r"proposal_generator/bbox_tower/\d+/kernel", path) is not None for path in tree)
    entry = "bbox_tower/0" if layers else "bbox_pred"
    channels = _shape(tree, f"proposal_generator/{entry}/kernel", 4)[2]
    backbone = _backbone(tree, told)
    return DetectorConfig(
        backbone=backbone,
        channels=channels,
        strides=backbone.strides,
        proposals=ProposalConfig(
            width=_shape(tree, "proposal_generator/bbox_pred/kernel", 4)[2],
            num_layers=layers,
            nms_threshold=told("iou_thresh"),
            candidates=told("pre_nms_topk_test"),
            proposals=told("post_nms_topk_test"),
            train_candidates=told("pre_nms_topk_train"),
            train_proposals=told("post_nms_topk_train"),
        ),
        roi=_roi(tree, told, channels),
        pixel_mean=told("pixel_mean"),
        pixel_std=told("pixel_std"),
    )


def _backbone(tree: _Shapes, told: _Told) -> BackboneConfig:
    """Blocks whose tables of relative positions are shorter than the longest see windows."""
    patch, _, _, width = _shape(tree, "backbone/net/patch_embed.proj/kernel", 4)
    count = _count(tree, _BLOCK)
    tables = [_shape(tree, f"{_BLOCK}{number}/attn/rel_pos_h", 2) for number in range(count)]
    sides = [(length + 1) // 2 for length, _ in tables]
    windows = tuple(number for number, side in enumerate(sides) if side < max(sides))
    names = (re.match(r"backbone/simfp_(\d)\.", path) for path in tree)
    levels = {int(name[1]) for name in names if name}
    finest = f"backbone/simfp_{min(levels, default=0)}.0/kernel"  # of those that are finer than the tokens
    middle = 2 * _shape(tree, finest, 4)[3] if levels & {2, 3} else width
    return BackboneConfig(
        image_size=max(sides) * patch,
        patch_size=patch,
        width=width,
        num_layers=count,
        num_heads=width // tables[0][1],
        mlp_ratio=_shape(tree, f"{_BLOCK}0/mlp/fc1/kernel", 2)[1] / width,
        window_size=min(sides),
        window_blocks=windows,
        pretrain_size=math.isqrt(_shape(tree, "backbone/net/pos_embed", 3)[1] - 1) * patch,
        drop_path=told("drop_path_rate"),
        scales=tuple(_SCALES[level] for level in sorted(levels) if level in _SCALES),
        top_blocks=2 if "backbone/top_block/p6/kernel" in tree else 0,
        pyramid_width=None if middle == width else middle,
    )


def _roi(tree: _Shapes, told: _Told, channels: int) -> RoiConfig:
    stages, head = _count(tree, "roi_heads/box_head."), "roi_heads/box_head.0"
    depth = _count(tree, f"{head}/fc")  # they are counted from 1
    widths = [_shape(tree, f"{head}/fc{number}/kernel", 2) for number in range(1, depth)]
    thresholds = told("roi_matching_threshold")
    thresholds = thresholds if isinstance(thresholds, tuple) else (thresholds,)
    if len(thresholds) != stages:
        raise DenseVocConfigError(f"option roi_matching_threshold is {thresholds}, but the tree has {stages} stages")
    return RoiConfig(
        num_classes=_shape(tree, f"{head}/cls_score/kernel", 2)[1] - 1,
        widths=tuple(outputs for _, outputs in widths),
        resolution=math.isqrt(widths[0][0] // channels),
        match_thresholds=thresholds,
        nms_threshold=told("roi_nms_threshold"),
        score_threshold=told("roi_score_threshold"),
        detections=told("roi_post_nms_num_detections"),
        use_proposal_score=told("roi_mult_proposal_score"),
    )


def _association(tree: _Shapes) -> AssociationConfig | None:
    if "tracking_layers/fc1/kernel" not in tree:
        return None
    size, width = _shape(tree, "tracking_layers/fc1/kernel", 2)
    return AssociationConfig(size, width, _shape(tree, _TRACKER, 3)[1])


def _captioner(tree: _Shapes, told: _Told) -> GitConfig | None:
    if not any(path.startswith(f"{TEXT}/") for path in tree):
        return None
    sizes = decoder_sizes(tree, TEXT, "object_feature_projection.0", of=_OF)
    hidden = sizes["hidden_size"]
    if hidden % _HEAD:
        raise DenseVocConfigError(f"a text decoder of width {hidden} has no heads of {_HEAD}, as the reference's have")
    return GitConfig(
        **sizes,
        num_heads=hidden // _HEAD,
        begin_token=told("begin_token_id"),
        end_token=told("end_token_id"),
    )


def _tracking(told: _Told, association: AssociationConfig | None, channels: int) -> TrackingConfig:
    if association is not None:
        told.known["object_feat_res"] = math.isqrt(association.feature_size // channels)
    options: dict[str, Any] = {"aggregation": "none"}
    if association is not None and told("hard_tracking"):
        options = {
            "aggregation": "hard",
            "tracks": told("max_num_tracks"),
            "frames": told("hard_tracking_frames"),
        }
    elif association is not None and told("use_tracked_object_features"):
        options = {
            "aggregation": "soft",
            "window": told("asso_windows"),
            "consistent": told("consistent_soft_track"),
        }
    if association is not None:
        options["threshold"] = told("tracking_score_thresh")
    return TrackingConfig(
        resolution=told("object_feat_res"),
        background=told("bg_proposal_thresh"),
        max_length=told("max_caption_length"),
        **options,
    )
