"""Predicted moments as files, and their place beside annotations, to be scored.

Sources of the formats: QVHighlights (one JSON object a line, as its public evaluator reads), ActivityNet-1.3 (the
results of its challenge), and for captions the latter with sentences, as dense captions are handed in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from onlooker.operators.localize.metrics.detection import VideoSegments

from .annotations import Annotations, Collector, load_json, read_text

__all__ = ["Joined", "join_results"]


class Prediction(NamedTuple):
    """One predicted moment."""

    segment: tuple[float, float]
    """Seconds."""
    score: float
    label: int


Predictions = dict[str, list[Prediction]]
"""By caption, query or video; each list in the order of its file."""


@dataclass
class Joined:
    """What is scored, and what is not."""

    entries: list[VideoSegments] = field(default_factory=list)
    """One for each caption, query or video (classes)."""
    predictions: int = 0
    """Moments predicted in `entries`."""
    unpredicted: list[str] = field(default_factory=list)
    """Names of entries without prediction, where something is true."""
    unknown: list[str] = field(default_factory=list)
    """Names of predictions that the annotations do not ask for; they are left out."""


def join_results(path: str | Path, annotations: Annotations) -> Joined:
    """Read predictions and put them beside what they should be.

    The formats, by kind of annotation; without scores, the order of the file counts:

    * queries: lines ``{"qid", "vid", "pred_relevant_windows": [[start, end, score]]}``
    * captions: ``{"results": {video: [{"sentence", "timestamp": [start, end], "score"}]}}``
    * classes: ``{"results": {video: [{"label", "segment": [start, end], "score"}]}}``

    Raises:
        MomentFileError: the file cannot be read, or something in it is missing or wrong.
    """
    collector = Collector(Path(path).name)
    read = _read_queries if annotations.kind == "queries" else _read_results
    found = read(read_text(path), annotations, collector)
    joined, asked = Joined(), set()
    for name, segments, labels in _truth(annotations):
        told = found.get(name, [])
        asked.add(name)
        joined.predictions += len(told)
        if segments and not told:
            joined.unpredicted.append(name)
        columns = ([one.segment for one in told], [one.score for one in told], [one.label for one in told])
        joined.entries.append(VideoSegments(segments, labels, *columns))
    joined.unknown.extend(name for name in found if name not in asked)
    return joined


def _truth(annotations: Annotations) -> Iterator[tuple[str, list[tuple[float, float]], list[int]]]:
    """Name, segments and labels of every entry."""
    for video in annotations.videos:
        if annotations.kind == "captions":
            for moment in video.moments:
                yield _caption(video.id, moment.text), [(moment.t_start, moment.t_end)], [0]
        else:
            labels = [moment.label if annotations.kind == "classes" else 0 for moment in video.moments]
            yield video.id, [(moment.t_start, moment.t_end) for moment in video.moments], labels


def _caption(video: str, text: str) -> str:
    return f"{video}: {text}"


def _read_queries(text: str, annotations: Annotations, collector: Collector) -> Predictions:
    found: Predictions = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        row = load_json(line, collector.error, number)
        collector.need(row, ("qid", "vid", "pred_relevant_windows"), place)
        name = f"{row['vid']}#{row['qid']}"
        if name in found:
            raise collector.error(place, f"query {row['qid']!r} of video {row['vid']!r} is answered twice")
        told = found[name] = []
        for window in _list(row["pred_relevant_windows"], place, collector):
            segment, score = (
                (window[:2], window[2]) if isinstance(window, list) and len(window) == 3 else (window, None)
            )
            told.append(_prediction(segment, score, 0, len(told), place, collector))
    return found


def _read_results(text: str, annotations: Annotations, collector: Collector) -> Predictions:
    data = load_json(text, collector.error)
    results = data.get("results") if isinstance(data, dict) else None
    if not isinstance(results, dict):
        raise collector.error("line 1", 'expected {"results": {video: [...]}}')
    said, when = ("label", "segment") if annotations.kind == "classes" else ("sentence", "timestamp")
    numbers = {name: label for label, name in enumerate(annotations.classes)}
    found: Predictions = {}
    for video, rows in results.items():
        for number, row in enumerate(_list(rows, f"video {video!r}", collector), 1):
            place = f"video {video!r}, prediction {number}"
            collector.need(row, (said, when), place)
            words = collector.text(row[said], place)
            if annotations.kind == "classes" and words not in numbers:
                raise collector.error(place, f"{words!r} is no class of the annotations")
            told = found.setdefault(_caption(video, words) if annotations.kind == "captions" else video, [])
            told.append(_prediction(row[when], row.get("score"), numbers.get(words, 0), len(told), place, collector))
    return found


def _prediction(segment: Any, score: Any, label: int, rank: int, place: str, collector: Collector) -> Prediction:
    """One prediction; without score, the `rank`-th is worth less than those before it."""
    if score is None:
        score = -rank
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise collector.error(place, f"the score is {str(score)[:40]!r}, not a number")
    return Prediction(collector.segment(segment, place), float(score), label)


def _list(value: Any, place: str, collector: Collector) -> list[Any]:
    if not isinstance(value, list):
        raise collector.error(place, f"expected a list of predictions, got {str(value)[:40]!r}")
    return value
