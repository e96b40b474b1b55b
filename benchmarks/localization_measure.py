"""Figures of localized moments; see `localization.py`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from localization_data import Seen

from onlooker.operators.localize.metrics.detection import VideoSegments, detection_scores
from onlooker.operators.localize.metrics.recall import recall_at, segment_iou

STRICT = np.linspace(0.5, 0.95, 10)
"""IoU thresholds of mAP."""


@dataclass(frozen=True)
class Moment:
    """A moment that was found."""

    start: float
    end: float
    score: float
    seen: float = float("nan")
    """Media time at which its end was told, where it was found on the way."""


Found = list[list[Moment]]
"""For each query of a video what was found."""


@dataclass
class Result:
    """What one form of the localizer found in all videos."""

    told: list[Found] = field(default_factory=list)
    """Above the thresholds, as events."""
    ranked: list[Found] = field(default_factory=list)
    """All that it would propose, to be ranked by score."""


def figures(videos: Sequence[Seen], result: Result) -> dict[str, float]:
    """Everything that is a number."""
    told = _pairs(videos, result.told)
    ranked = _pairs(videos, result.ranked)
    hits, predicted, true = _matches(told)
    recall, recall_told = _recall(ranked), _recall(told)
    delays = latencies(videos, result.told)
    return {
        "R@1 IoU .5": recall[1, 0.5],
        "R@1 IoU .7": recall[1, 0.7],
        "mAP .5:.95": _precision(ranked),
        "R@1 IoU .5, events": recall_told[1, 0.5],
        "R@1 IoU .7, events": recall_told[1, 0.7],
        "mAP .5:.95, events": _precision(told),
        "F1 IoU .5, events": 2 * hits / max(predicted + true, 1),
        "false events per absent query and 10 min": false_events(videos, result.told, ("absent",)),
        "the same, of those that resemble a scene": false_events(videos, result.told, ("hard absent",)),
        "the same, all absent": false_events(videos, result.told, ("absent", "hard absent", "absent class")),
        "latency of `end`, median, s": float(np.median(delays)) if len(delays) else float("nan"),
        "latency of `end`, 9 of 10 within, s": float(np.percentile(delays, 90)) if len(delays) else float("nan"),
        "latency of `end`, most, s": float(delays.max(initial=-np.inf)) if len(delays) else float("nan"),
    }


def by_kind(videos: Sequence[Seen], result: Result) -> dict[str, float]:
    """R@1 at IoU .5 of each kind of query that has moments."""
    return {
        kind: _recall(_pairs(videos, result.ranked, kind))[1, 0.5]
        for kind in ("one", "several", "class")
        if any(query.kind == kind for video in videos for query in video.queries)
    }


def false_events(videos: Sequence[Seen], found: Sequence[Found], kinds: Sequence[str]) -> float:
    """Events about absent things, per query and ten minutes."""
    events, minutes = 0, 0.0
    for video, moments in zip(videos, found, strict=True):
        for query, told in zip(video.queries, moments, strict=True):
            if query.kind in kinds:
                events += len(told)
                minutes += video.end / 60
    return events / (minutes / 10) if minutes else float("nan")


def latencies(videos: Sequence[Seen], found: Sequence[Found]) -> np.ndarray:
    """Seconds of media time from the true end of each moment that was found (IoU .5) to its `end`.

    What ends with the video is left out: its end is told because the video is over.
    """
    delays = []
    for video, moments in zip(videos, found, strict=True):
        for query, told in zip(video.queries, moments, strict=True):
            for start, end in query.moments:
                met = [one for one in told if segment_iou([(one.start, one.end)], [(start, end)])[0, 0] >= 0.5]
                delays += [min(one.seen for one in met) - end] if met and end < video.end - 0.5 else []
    return np.array([delay for delay in delays if np.isfinite(delay)])


_Pair = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Moments (G, 2), found (P, 2), scores (P,)."""


def _pairs(videos: Sequence[Seen], found: Sequence[Found], kind: str | None = None) -> list[_Pair]:
    pairs = []
    for video, moments in zip(videos, found, strict=True):
        for query, told in zip(video.queries, moments, strict=True):
            if kind in (None, query.kind):
                spans = np.array([(one.start, one.end) for one in told]).reshape(-1, 2)
                truth = np.array(query.moments, float).reshape(-1, 2)
                pairs.append((truth, spans, np.array([one.score for one in told])))
    return pairs


def _recall(pairs: Iterable[_Pair]) -> dict[tuple[int, float], float]:
    truth, spans, scores = zip(*pairs, strict=True)
    return recall_at(truth, spans, scores, ranks=(1,))


def _precision(pairs: Iterable[_Pair]) -> float:
    """One list of all findings in all pairs of video and query, absent queries included."""
    rows = [VideoSegments(t, np.zeros(len(t), int), p, s, np.zeros(len(p), int)) for t, p, s in pairs]
    return detection_scores(rows, 1, STRICT).mean()


def _matches(pairs: Iterable[_Pair]) -> tuple[int, int, int]:
    """True moments that were met at IoU .5, findings, and true moments."""
    hits = predicted = true = 0
    for truth, spans, _ in pairs:
        predicted, true = predicted + len(spans), true + len(truth)
        hits += int((segment_iou(truth, spans) >= 0.5).any(axis=1).sum()) if len(truth) and len(spans) else 0
    return hits, predicted, true
