"""The evaluator's files of Streaming Dense Video Captioning: predictions and truth by video, times in microseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onlooker.operators.errors import OnlookerError

from .dense import DenseScores, VideoCaptions, evaluate_dense_captions
from .detections import IOU_THRESHOLDS
from .meteor import Meteor

__all__ = ["evaluate_predictions"]


def evaluate_predictions(
    predictions: Mapping[str, Mapping[str, Any]],
    truth: Mapping[str, Mapping[str, Any]],
    *,
    meteor: Meteor | None = None,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> DenseScores:
    """Score decoded predictions; ``.means()`` of the result is what the reference's evaluator returns.

    Args:
        predictions: video -> ``pred_timestamps`` [[start, end]] in microseconds and ``pred_captions``. A video without
            an entry has no interval and one empty caption.
        truth: video -> ``gt_timestamps`` in microseconds, ``gt_captions``, ``splits`` (empty: one annotator). Videos
            are scored in this order; predictions of others are left out.
        meteor: see ``evaluate_dense_captions``.
        thresholds: of the IoU.

    Raises:
        OnlookerError: an entry lacks a field, or its lists do not fit together.
    """
    nothing: dict[str, Any] = {"pred_timestamps": [], "pred_captions": [""]}
    videos = []
    for key, true in truth.items():
        told = predictions.get(key, nothing)
        try:
            videos.append(
                VideoCaptions.make(
                    key,
                    told["pred_timestamps"],
                    told["pred_captions"],
                    true["gt_timestamps"],
                    true["gt_captions"],
                    true.get("splits"),
                )
            )
        except KeyError as error:
            raise OnlookerError(f"video {key!r} has no {error.args[0]!r}.") from error
    return evaluate_dense_captions(videos, meteor=meteor, thresholds=thresholds)
