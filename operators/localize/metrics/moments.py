"""Two sets of rules to score predicted moments by: those of UnLoc's reference, and those that other papers use.

================  ============================================  =================================================
annotations       unloc                                         public
================  ============================================  =================================================
captions          recall of the 1 and 5 best at IoU .5 and .7   the same
queries           mAP, the predictions for all queries ranked   mAP of each query on its own first ten, averaged
                  together; recall is ours, it has none         over queries; recall of the first prediction
classes           mAP; a class that is neither true nor         mAP over the classes that are true somewhere
                  predicted counts as 0
================  ============================================  =================================================

Captions are those of Charades-STA, ActivityNet Captions and TACoS, with one moment each; queries those of
QVHighlights, with several (Lei et al. 2021 and its public evaluator); classes those of ActivityNet-1.3 (Caba Heilbron
et al. 2015 and its public evaluator). "First" is the order of the file, which the public evaluator of QVHighlights
trusts to be that of the scores. mAP is the mean over IoU .5, .55 ... .95.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from onlooker.operators.localize.metrics.detection import THRESHOLDS, VideoSegments, detection_scores
from onlooker.operators.localize.metrics.recall import recall_at

__all__ = ["PROTOCOLS", "Kind", "Protocol", "evaluate_moments"]

Kind = Literal["captions", "queries", "classes"]
Protocol = Literal["unloc", "public"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

_HEADLINE = np.linspace(0.5, 0.95, 10)
_ROUND = _HEADLINE.round(2)
"""The evaluator of QVHighlights rounds its thresholds, that of ActivityNet does not."""

_MEANS = {"mAP": [*_ROUND], "mAP@0.5": [0.5], "mAP@0.75": [0.75]}

_FIRST = 10
"""So many predictions of a query count in the evaluator of QVHighlights."""


def evaluate_moments(
    entries: Sequence[VideoSegments], kind: Kind, protocol: Protocol, num_classes: int = 1
) -> dict[str, float]:
    """Scores as fractions, by name: ``R1@0.5``, ``mAP`` (the mean over thresholds), ``mAP@0.75`` and the like.

    Args:
        entries: truth and predictions, one entry for each caption, query or video (classes), predictions in the order
            of their file.
        kind: what was annotated.
        protocol: whose rules, see above.
        num_classes: of annotations in classes.

    Returns:
        nan where nothing is true that a score could tell of.
    """
    if kind == "captions":
        return _recalls(entries, (1, 5))
    if kind == "queries":
        return _public_queries(entries) if protocol == "public" else _recalls(entries, (1, 5)) | _pooled(entries)
    if protocol == "unloc":
        return _pooled(entries, num_classes)
    scores = detection_scores(entries, num_classes, _HEADLINE)
    return {name: scores.mean(at, present_only=True) for name, at in _MEANS.items()}


def _recalls(entries: Sequence[VideoSegments], ranks: Sequence[int]) -> dict[str, float]:
    columns = ([entry.truth for entry in entries], [entry.detected for entry in entries], [e.scores for e in entries])
    return {f"R{rank}@{threshold}": value for (rank, threshold), value in recall_at(*columns, ranks).items()}


def _pooled(entries: Sequence[VideoSegments], num_classes: int = 1) -> dict[str, float]:
    scores = detection_scores(entries, num_classes, THRESHOLDS)
    return {name: scores.mean(at) for name, at in _MEANS.items()}


def _public_queries(entries: Sequence[VideoSegments]) -> dict[str, float]:
    true = [_first_ten(entry) for entry in entries if np.size(entry.truth)]
    in_order = [entry._replace(scores=-np.arange(np.size(entry.scores))) for entry in true]
    each = [detection_scores([entry], 1, _ROUND) for entry in true]
    means = {name: float(np.mean([scores.mean(at) for scores in each] or np.nan)) for name, at in _MEANS.items()}
    return _recalls(in_order, (1,)) | means


def _first_ten(entry: VideoSegments) -> VideoSegments:
    segments, scores, classes = (np.asarray(part)[:_FIRST] for part in (entry.detected, entry.scores, entry.classes))
    return entry._replace(detected=segments, scores=scores, classes=classes)
