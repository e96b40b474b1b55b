"""Files of boxes, tracks and captions, as worlds to score.

Three formats. COCO JSON with ``video_id``, ``track_id`` and ``caption``, as Dense VOC's evaluation wants it; MOT text,
a box a line, of one video; and the event log of onlooker, which tells tracks in seconds, against a COCO JSON whose
images have ``t`` (seconds), ``width`` and ``height``. Files may be compressed (``.gz``).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .event_log import read_tracks
from .frames import Frames, ObjectFileError
from .world import Boxes, World

__all__ = ["read_world"]


def read_world(predictions: str | Path, truth: str | Path) -> World:
    """Read what was told and what is true.

    The format is told by the name: ``.txt`` is MOT text, ``.jsonl`` an event log, everything else JSON.

    Raises:
        ObjectFileError: a file cannot be read, something in it is missing, or the two do not fit together.
    """
    if _kind(truth) == "txt":
        if _kind(predictions) != "txt":
            raise ObjectFileError(f"{str(truth)!r} is MOT text: what was told has to be MOT text too, .txt.")
        return _mot_world(predictions, truth)
    if _kind(predictions) == "txt":
        raise ObjectFileError(f"{str(predictions)!r} is MOT text: the truth has to be MOT text too, .txt.")
    frames, true = _read_truth(truth)
    if _kind(predictions) == "jsonl":
        return World(frames.videos, _scaled(true, frames, truth), read_tracks(predictions, _text(predictions), frames))
    return World(frames.videos, true, _read_boxes(predictions, frames))


def _kind(path: str | Path) -> str:
    return Path(str(path).removesuffix(".gz")).suffix.removeprefix(".").lower()


def _text(path: str | Path) -> str:
    try:
        raw = Path(path).read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    except OSError as error:
        raise ObjectFileError(f"cannot read {str(path)!r}: {(error.strerror or str(error)).lower()}.") from error
    except (UnicodeDecodeError, EOFError, zlib.error) as error:
        raise ObjectFileError(f"{str(path)!r} is no text: {error}.") from error


def _json(path: str | Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ObjectFileError):
            raise
        raise ObjectFileError(f"{str(path)!r} is not JSON: {error}.") from error


def _read_truth(path: str | Path) -> tuple[Frames, Boxes]:
    """Images and annotations."""
    data = _json(path)
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        raise ObjectFileError(f'{str(path)!r} is no ground truth; need {{"images": [...], "annotations": [...]}}.')
    images = _rows(data["images"], ("id",), f"{str(path)!r}, image")
    # Images without a video are a video each: single photographs have no tracks in common.
    videos = [image.get("video_id", ("image", image["id"])) for image in images]
    first = {video: i for i, video in reversed(list(enumerate(videos)))}
    try:
        order = sorted(range(len(images)), key=lambda i: (first[videos[i]], images[i]["id"]))
    except TypeError as error:
        raise ObjectFileError(f"{str(path)!r}: ids of images are partly texts and partly numbers.") from error
    place = {images[row]["id"]: i for i, row in enumerate(order)}
    if len(place) < len(images):
        raise ObjectFileError(f"{str(path)!r}: two images have one id.")
    frames = Frames(tuple(videos[row] for row in order), place, tuple(images[row] for row in order))
    annotations = data.get("annotations")
    if not isinstance(annotations, list):
        raise ObjectFileError(f'{str(path)!r} has no "annotations": [{{"image_id", "bbox", "track_id"}}].')
    return frames, _boxes(annotations, frames, f"{str(path)!r}, annotation")


def _read_boxes(path: str | Path, frames: Frames) -> Boxes:
    """A list of predictions, or an object with ``annotations``."""
    data = _json(path)
    rows = data.get("annotations") if isinstance(data, dict) else data
    if not isinstance(rows, list):
        raise ObjectFileError(f'{str(path)!r} is no list of predictions [{{"image_id", "bbox", "track_id", "score"}}].')
    return _boxes(rows, frames, f"{str(path)!r}, prediction")


def _boxes(rows: Sequence[Any], frames: Frames, where: str) -> Boxes:
    """Rows of COCO; without identity each box is a track of its own."""
    checked = _rows(rows, ("image_id", "bbox"), where)
    for number, row in enumerate(checked):
        if row["image_id"] not in frames.place:
            raise ObjectFileError(f"{where} {number}: the truth has no image {row['image_id']!r}.")
        if not _is_box(row["bbox"]):
            raise ObjectFileError(
                f"{where} {number}: its bbox is {str(row['bbox'])[:40]!r}, not [left, top, width, height]."
            )
    try:
        return Boxes.make(
            [frames.place[row["image_id"]] for row in checked],
            [row["bbox"] for row in checked],
            [row.get("track_id", -1 - number) for number, row in enumerate(checked)],
            [row.get("score", 1.0) for row in checked],
            [str(row.get("caption") or "") for row in checked],
        )
    except (ValueError, TypeError) as error:
        raise ObjectFileError(f"{where}s: a track_id or score is no number: {error}.") from error


def _rows(rows: Sequence[Any], names: Sequence[str], where: str) -> list[dict[str, Any]]:
    """The rows as objects that have all the names."""
    for number, row in enumerate(rows):
        missing = [name for name in names if not isinstance(row, dict) or name not in row]
        if missing:
            raise ObjectFileError(f"{where} {number}: it lacks {missing[0]!r}.")
    return list(rows)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(isinstance(v, int | float) for v in value)


def _scaled(boxes: Boxes, frames: Frames, path: str | Path) -> Boxes:
    """Boxes as parts of their picture, as events tell them."""
    try:
        sizes = np.array([[image["width"], image["height"]] for image in frames.images], np.float64).reshape(-1, 2)
        np.array([image["t"] for image in frames.images], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise ObjectFileError(
            f"{str(path)!r}: to score an event log every image needs 't' (seconds), 'width' and 'height'."
        ) from error
    parts = boxes.boxes / np.tile(sizes, 2)[boxes.frames]
    return Boxes(boxes.frames, parts, boxes.tracks, boxes.scores, boxes.captions)


def _mot_world(predictions: str | Path, truth: str | Path) -> World:
    """One video; frames without a row are frames all the same."""
    true, told = _read_mot(truth), _read_mot(predictions)
    true = true[true[:, 6] != 0]  # the truth marks rows that are not to be scored by a confidence of 0
    if not len(true):
        raise ObjectFileError(f"{str(truth)!r} tells no boxes to score by.")
    count = int(max(true[:, 0].max(), told[:, 0].max(initial=0)))
    return World(("video",) * count, _mot_boxes(true), _mot_boxes(told))


def _read_mot(path: str | Path) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(N, 7) frame from 1, identity, left, top, width, height, confidence."""
    rows = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = [float(value) for value in line.replace(",", " ").split()[:7]]
        except ValueError as error:
            raise ObjectFileError(f"{str(path)!r}, line {number}: {error}.") from error
        if len(values) < 6 or values[0] < 1:
            raise ObjectFileError(
                f"{str(path)!r}, line {number}: expected frame (from 1), id, left, top, width, height, confidence."
            )
        rows.append([*values, 1.0][:7])
    return np.array(rows, np.float64).reshape(-1, 7)


def _mot_boxes(rows: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Boxes:
    scores = np.where(rows[:, 6] < 0, 1.0, rows[:, 6])  # -1 = the tracker has no scores
    return Boxes.make(rows[:, 0].astype(np.int64) - 1, rows[:, 2:6], rows[:, 1].astype(np.int64), scores)
