"""The two ways in which the field scores dense captions, from predictions and ground truth in seconds.

``reference``: the evaluation that came with Streaming Dense Video Captioning and Vid2Seq (arXiv 2404.01297 and
2302.14115), whose numbers those papers report. ``activitynet``: the public ActivityNet Captions evaluator (Krishna et
al. 2017, in its current form, which scores video by video) with SODA_c as its authors publish it (Fujita et al. 2020),
whose numbers most other papers report. What they share stands in ``dense.py``. Where they differ:

================  ==========================================  ==================================================
what              reference                                   activitynet
================  ==========================================  ==================================================
time              whole microseconds                          seconds as they are
reversed times    turned round before the IoU                 taken as they are: they meet nothing
text              as it is                                    what is not ASCII becomes a blank
predictions       all                                         the first 1000 of a video
F1                per video, then the mean                    of the mean precision and the mean recall
SODA_c alignment  in the order of the files                   in the order of start times
================  ==========================================  ==================================================

The public evaluator prints METEOR, CIDEr, precision and recall (and BLEU and ROUGE, which are left out here); F1 of
its means is what papers add to it. Both average SODA_c over the videos of each annotator and then over the annotators;
its authors' program leaves out videos without prediction, here they score 0, as in every other metric. A filler word
stands where both draw a random one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from .activitynet import Joined, TimedCaption, join
from .dense import DenseScores, VideoCaptions, evaluate_dense_captions
from .detections import IOU_THRESHOLDS, f1_score
from .meteor import Meteor

__all__ = ["PROTOCOLS", "Protocol", "Report", "evaluate", "prepare"]

Protocol = Literal["reference", "activitynet"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

_MICROSECOND = 1e-6
_MOST_PREDICTIONS = 1000


@dataclass(frozen=True)
class Report:
    """Scores of a set of videos."""

    protocol: Protocol
    scores: dict[str, float]
    """Fractions by name: ``CIDEr``, ``METEOR``, ``SODA_c`` (without METEOR the last two are missing), ``F1``,
    ``precision``, ``recall`` (means over thresholds) and ``precision@t``, ``recall@t``."""
    predictions_per_video: float
    videos: DenseScores


def prepare(
    predictions: dict[str, list[TimedCaption]], truths: Sequence[dict[str, list[TimedCaption]]], protocol: Protocol
) -> Joined:
    """Bring predictions and annotators together as the protocol wants them."""
    if protocol == "reference":
        return join(predictions, truths, unit=_MICROSECOND)
    joined = join({key: told[:_MOST_PREDICTIONS] for key, told in predictions.items()}, truths)
    return replace(joined, videos=[_in_order(video) for video in joined.videos])


def evaluate(
    videos: Sequence[VideoCaptions],
    protocol: Protocol = "reference",
    *,
    meteor: Meteor | None = None,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
    progress: Callable[[], None] | None = None,
) -> Report:
    """Score what ``prepare`` gave, by the same protocol. Raises what ``evaluate_dense_captions`` raises."""
    result = evaluate_dense_captions(
        videos, meteor=meteor, thresholds=thresholds, sort_ends=protocol == "reference", progress=progress
    )
    precision, recall = result.mean("Precision_Mean"), result.mean("Recall_Mean")
    scores = {"CIDEr": result.mean("CIDER")}
    soda = result.soda_c()
    if meteor is not None and soda is not None:
        scores |= {"METEOR": result.mean("METEOR"), "SODA_c": soda}
    scores["F1"] = result.mean("F1_Score") if protocol == "reference" else f1_score(precision, recall)
    scores |= {"precision": precision, "recall": recall}
    for t in thresholds:
        scores |= {f"precision@{t}": result.mean(f"Precision@{t}"), f"recall@{t}": result.mean(f"Recall@{t}")}
    return Report(protocol, scores, result.mean("n_preds"), result)


def _in_order(video: VideoCaptions) -> VideoCaptions:
    """Events by their start, texts in ASCII."""
    told = np.argsort(video.predicted_segments[:, 0], kind="stable")
    true = np.argsort(video.true_segments[:, 0], kind="stable")
    return replace(
        video,
        predicted_segments=video.predicted_segments[told],
        predicted_captions=tuple(_ascii(video.predicted_captions[i]) for i in told),
        true_segments=video.true_segments[true],
        true_captions=tuple(_ascii(video.true_captions[i]) for i in true),
        splits=video.splits[true],
    )


def _ascii(text: str) -> str:
    return "".join(c if ord(c) < 128 else " " for c in text)
