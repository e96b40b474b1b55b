"""Dense captions in the JSON of ActivityNet Captions (Krishna et al. 2017): reading and joining files to score.

Predictions: ``{"version": ..., "results": {video: [{"sentence": str, "timestamp": [start, end]}]}, ...}``.
Ground truth, one file per annotator: ``{video: {"duration": s, "timestamps": [[start, end]], "sentences": [str]}}``.
Times are seconds. Files may be compressed (``.gz``).
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onlooker.operators.errors import OnlookerError

from .dense import VideoCaptions

__all__ = ["CaptionFileError", "Joined", "TimedCaption", "join", "read_predictions", "read_truth"]


class CaptionFileError(OnlookerError):
    """A file of captions cannot be read or is not what the format wants."""


@dataclass(frozen=True)
class TimedCaption:
    """One caption and its interval in seconds."""

    start: float
    end: float
    text: str


def read_predictions(path: str | Path) -> dict[str, list[TimedCaption]]:
    """Captions per video from a results file.

    Raises:
        CaptionFileError: the file cannot be read, or something in it is missing; the message names the place.
    """
    data = _load(path)
    results = data.get("results") if isinstance(data, dict) else None
    if not isinstance(results, dict):
        raise CaptionFileError(f'{str(path)!r} has no "results": {{video: [{{"sentence", "timestamp"}}]}}.')
    found = {}
    for video, events in results.items():
        if not isinstance(events, list):
            raise CaptionFileError(f"{str(path)!r}, video {video!r}: its captions must be a list.")
        captions = []
        for number, event in enumerate(events):
            where = f"{str(path)!r}, video {video!r}, caption {number}"
            if not isinstance(event, dict) or not {"sentence", "timestamp"} <= event.keys():
                raise CaptionFileError(f'{where}: needs "sentence" and "timestamp".')
            captions.append(_caption(event["timestamp"], event["sentence"], where))
        found[video] = captions
    return found


def read_truth(path: str | Path) -> dict[str, list[TimedCaption]]:
    """Captions per video as one annotator wrote them. Raises what ``read_predictions`` raises."""
    data = _load(path)
    if not isinstance(data, dict) or "results" in data:
        raise CaptionFileError(
            f'{str(path)!r} is no ground truth; need {{video: {{"duration", "timestamps", "sentences"}}}}.'
        )
    found = {}
    for video, entry in data.items():
        where = f"{str(path)!r}, video {video!r}"
        if not isinstance(entry, dict) or not {"timestamps", "sentences"} <= entry.keys():
            raise CaptionFileError(f'{where}: needs "timestamps" and "sentences".')
        times, texts = entry["timestamps"], entry["sentences"]
        if not isinstance(times, list) or not isinstance(texts, list) or len(times) != len(texts):
            raise CaptionFileError(f"{where}: needs one sentence for each timestamp.")
        found[video] = [
            _caption(time, text, f"{where}, caption {i}")
            for i, (time, text) in enumerate(zip(times, texts, strict=True))
        ]
    return found


@dataclass(frozen=True)
class Joined:
    """Predictions beside the truth, and what did not fit together."""

    videos: list[VideoCaptions]
    unpredicted: list[str]
    """Videos with truth but without prediction: they are scored, as 0."""
    unknown: list[str]
    """Videos with predictions but without truth: they are not scored."""
    untold: list[str]
    """Videos whose truth holds no caption: they are not scored."""


def join(
    predictions: dict[str, list[TimedCaption]],
    truths: Sequence[dict[str, list[TimedCaption]]],
    *,
    unit: float = 1.0,
) -> Joined:
    """Put the annotators' captions (split 1, 2, ...) and the predictions of every video together.

    Args:
        predictions: of ``read_predictions``.
        truths: of ``read_truth``, one per annotator.
        unit: the unit of time of the scores in seconds. 1e-6 rounds to whole microseconds, which the reference uses:
            with the epsilon in the IoU this decides whether an exact ratio reaches a threshold.
    """
    videos, unpredicted, untold = [], [], []
    for key in dict.fromkeys(key for truth in truths for key in truth):
        true = [
            (caption, split)
            for split, truth in enumerate(truths, 1)
            for caption in truth.get(key, ())
            if caption.text.strip() not in ("", ".")  # nothing was told
        ]
        if not true:
            untold.append(key)
            continue
        if key not in predictions:
            unpredicted.append(key)
        told = predictions.get(key, [])
        videos.append(
            VideoCaptions.make(
                key,
                _segments(told, unit),
                [caption.text for caption in told],
                _segments([caption for caption, _ in true], unit),
                [caption.text for caption, _ in true],
                [split for _, split in true],
            )
        )
    known = {key for truth in truths for key in truth}
    return Joined(videos, unpredicted, [key for key in predictions if key not in known], untold)


def _segments(captions: Sequence[TimedCaption], unit: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    times = np.array([(c.start, c.end) for c in captions], np.float64).reshape(-1, 2)
    return times if unit == 1.0 else np.rint(times / unit)


def _load(path: str | Path) -> Any:
    try:
        raw = Path(path).read_bytes()
        return json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    except OSError as error:
        raise CaptionFileError(f"cannot read {str(path)!r}: {(error.strerror or str(error)).lower()}.") from error
    except (ValueError, EOFError, zlib.error, RecursionError) as error:
        raise CaptionFileError(f"{str(path)!r} is not JSON: {error}.") from error


def _caption(timestamp: Any, sentence: Any, where: str) -> TimedCaption:
    if not isinstance(sentence, str):
        raise CaptionFileError(f"{where}: its sentence is {str(sentence)[:40]!r}, not a text.")
    if (
        not isinstance(timestamp, list)
        or len(timestamp) != 2
        or not all(isinstance(t, int | float) and not isinstance(t, bool) and math.isfinite(t) for t in timestamp)
    ):
        raise CaptionFileError(f"{where}: its timestamp is {str(timestamp)[:40]!r}, not [start, end] in seconds.")
    return TimedCaption(float(timestamp[0]), float(timestamp[1]), sentence)
