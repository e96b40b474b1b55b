"""Scores of dense video captions, video by video, as Streaming Dense Video Captioning computes them.

All rules are those of the evaluation that came with the paper (arXiv 2404.01297): precision and recall want an IoU
*above* a threshold, pairs of captions one *at or above* it; a prediction that meets no true event is compared with
a word it cannot match; every score is computed per video, so CIDEr's document frequencies come from that video alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onlooker.operators.errors import OnlookerError

from .cider import cider
from .detections import IOU_THRESHOLDS, f1_score, interval_iou, score_detections, segments_array
from .meteor import Meteor
from .ptb import caption_tokens
from .soda import soda_f1

__all__ = ["ABSENT", "DenseScores", "VideoCaptions", "evaluate_dense_captions", "match_captions"]

ABSENT = -1.0
"""SODA_c of an annotator that did not see the video. The reference averages it in; ``DenseScores.mean`` can skip it."""

_FILLER = "xqzjvkwqzx"
"""Reference of a prediction that meets nothing: matches no word, stem, synonym or paraphrase. The paper's code draws
a random word of 10 to 20 letters instead; which one does not change any score."""


@dataclass(frozen=True)
class VideoCaptions:
    """What was told and what happened in one video; all times in one unit."""

    key: str
    predicted_segments: NDArray[np.float64]
    """(P, 2) start and end."""
    predicted_captions: Sequence[str]
    """P captions; a video without prediction has no segment and one empty caption, or none."""
    true_segments: NDArray[np.float64]
    """(G, 2), G > 0."""
    true_captions: Sequence[str]
    splits: NDArray[np.int64]
    """(G,) annotator of each true event, 1 or 2."""

    @classmethod
    def make(
        cls,
        key: str,
        predicted_segments: ArrayLike,
        predicted_captions: Sequence[str],
        true_segments: ArrayLike,
        true_captions: Sequence[str],
        splits: ArrayLike | None = None,
    ) -> VideoCaptions:
        """Check and convert; without ``splits`` (None or empty) there was one annotator.

        Raises:
            OnlookerError: lengths differ, a time is not a number, or nothing is true.
        """
        try:
            predicted, true = segments_array(predicted_segments), segments_array(true_segments)
        except (TypeError, ValueError) as error:
            raise OnlookerError(f"video {key!r}: {error}.") from error
        labels = np.asarray([] if splits is None else splits, np.int64)
        labels = labels if labels.size else np.ones(len(true), np.int64)
        if not len(true) == len(true_captions) == len(labels) > 0:
            raise OnlookerError(
                f"video {key!r} has {len(true)} true intervals, {len(true_captions)} captions and {len(labels)} splits;"
                " need as many of each, at least one."
            )
        if len(predicted) != len(predicted_captions) and (len(predicted) or list(predicted_captions) != [""]):
            raise OnlookerError(
                f"video {key!r} has {len(predicted)} predicted intervals and {len(predicted_captions)} captions; "
                "need as many of both."
            )
        return cls(key, predicted, tuple(predicted_captions), true, tuple(true_captions), labels)


@dataclass(frozen=True)
class DenseScores:
    """All scores of all videos, as fractions (papers print them times 100)."""

    keys: tuple[str, ...]
    per_video: dict[str, list[float]]
    """Per metric one value a video, in the order of ``keys``. A ``SODA_c_k`` with k other than 1 or 2 has only those
    of the videos that annotator k saw."""

    def mean(self, metric: str, *, skip_absent: bool = False) -> float:
        """Mean over the videos; ``skip_absent`` leaves out those that an annotator did not see (``ABSENT``)."""
        values = [v for v in self.per_video[metric] if not (skip_absent and v == ABSENT)]
        return float(np.mean(values)) if values else 0.0

    def means(self) -> dict[str, float]:
        """Plain means of all metrics, ``ABSENT`` included: the reference's evaluator prints these."""
        return {metric: self.mean(metric) for metric in self.per_video}

    def soda_c(self) -> float | None:
        """SODA_c as papers report it: per annotator over the videos it saw, then the mean over annotators."""
        splits = [m for m, v in self.per_video.items() if m.startswith("SODA_c_") and any(s != ABSENT for s in v)]
        return float(np.mean([self.mean(m, skip_absent=True) for m in splits])) if splits else None


def match_captions(
    video: VideoCaptions, thresholds: Sequence[float] = IOU_THRESHOLDS, *, sort_ends: bool = True
) -> list[list[tuple[int, int | None]]]:
    """Pairs (prediction, true event) to compare at each threshold.

    A prediction is paired with every true event of any split whose IoU is at least the threshold, or with None. True
    events that nobody met cost nothing here.
    """
    iou = interval_iou(video.predicted_segments, video.true_segments, sort_ends=sort_ends)  # (G, P)
    matches = []
    for threshold in thresholds:
        pairs: list[tuple[int, int | None]] = []
        for p in range(len(video.predicted_segments)):
            met = np.flatnonzero(iou[:, p] >= threshold).tolist()
            pairs += [(p, g) for g in met] or [(p, None)]
        matches.append(pairs)
    return matches


def evaluate_dense_captions(
    videos: Iterable[VideoCaptions],
    *,
    meteor: Meteor | None = None,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
    soda: bool = True,
    captions: bool = True,
    sort_ends: bool = True,
    progress: Callable[[], None] | None = None,
) -> DenseScores:
    """Score every video.

    Args:
        videos: each with a key of its own.
        meteor: without it neither METEOR nor SODA_c are computed, and their keys are not there.
        thresholds: of the IoU.
        soda: compute SODA_c (a METEOR score of every true with every predicted caption).
        captions: False computes precision, recall and F1 only.
        sort_ends: see ``interval_iou``.
        progress: called after each video.

    Returns:
        Per video: ``CIDER`` and ``METEOR`` (means over thresholds), ``Precision@t`` and ``Recall@t``, their means
        over the thresholds, ``F1_Score`` of those means, ``SODA_c_k`` per annotator k, ``n_preds``.

    Raises:
        OnlookerError: two videos have the same key, or there is none.
        MeteorError: the METEOR process failed.
    """
    keys: dict[str, None] = {}
    per_video: dict[str, list[float]] = {}
    for video in videos:
        if video.key in keys:
            raise OnlookerError(f"video {video.key!r} is given twice.")
        keys[video.key] = None
        row = _caption_scores(video, thresholds, meteor, sort_ends) if captions else {}
        row |= _detection_scores(video, thresholds, meteor if captions and soda else None, sort_ends)
        if soda and (meteor is not None or not captions):
            row = {"SODA_c_1": ABSENT, "SODA_c_2": ABSENT} | row
        for metric, value in row.items():
            per_video.setdefault(metric, []).append(value)
        if progress is not None:
            progress()
    if not keys:
        raise OnlookerError("there is no video to score.")
    return DenseScores(tuple(keys), per_video)


def _tokens(captions: Sequence[str]) -> list[str]:
    return [caption_tokens(caption) for caption in captions]


def _caption_scores(
    video: VideoCaptions, thresholds: Sequence[float], meteor: Meteor | None, sort_ends: bool
) -> dict[str, float]:
    predicted, true = _tokens(video.predicted_captions), _tokens(video.true_captions)
    filler = _FILLER
    while any(filler in text for text in predicted):
        filler += "q"
    ciders, meteors = [], []
    for pairs in match_captions(video, thresholds, sort_ends=sort_ends):
        hypotheses = [predicted[p] for p, _ in pairs]
        references = [[filler if g is None else true[g]] for _, g in pairs]
        ciders.append(cider(hypotheses, references)[0] if pairs else 0.0)
        if meteor is not None:
            meteors.append(meteor.corpus(hypotheses, references) if pairs else 0.0)
    scores = {"CIDER": float(np.mean(ciders))}
    return scores if meteor is None else scores | {"METEOR": float(np.mean(meteors))}


def _detection_scores(
    video: VideoCaptions, thresholds: Sequence[float], meteor: Meteor | None, sort_ends: bool
) -> dict[str, float]:
    """Precision, recall, F1 and the number of predictions; with METEOR also SODA_c of each annotator of the video."""
    found = score_detections(
        video.predicted_segments, video.true_segments, video.splits, thresholds, sort_ends=sort_ends
    )
    row = {f"Precision@{t}": p for t, p in zip(thresholds, found.precision, strict=True)}
    row |= {f"Recall@{t}": r for t, r in zip(thresholds, found.recall, strict=True)}
    precision, recall = sum(found.precision) / len(thresholds), sum(found.recall) / len(thresholds)
    row |= {"Precision_Mean": precision, "Recall_Mean": recall, "F1_Score": f1_score(precision, recall)}
    if meteor is not None:
        predicted, true = _tokens(video.predicted_captions), _tokens(video.true_captions)
        for split, iou in found.iou.items():
            texts = [text for text, label in zip(true, video.splits, strict=True) if label == split]
            row[f"SODA_c_{split}"] = _soda_c(predicted, texts, iou, meteor)
    return row | {"n_preds": float(len(video.predicted_captions))}


def _soda_c(predicted: Sequence[str], true: Sequence[str], iou: NDArray[np.float64], meteor: Meteor) -> float:
    """SODA_c against one annotator; ``iou`` is (G, P)."""
    if not iou.any():
        return 0.0
    # SODA's published code gives METEOR the true caption as hypothesis; METEOR is not symmetric, so this matters.
    hypotheses = [text for text in true for _ in predicted]
    references = [[text] for _ in true for text in predicted]
    scores = np.asarray(meteor.each(hypotheses, references)).reshape(len(true), len(predicted))
    return soda_f1(iou, scores)
