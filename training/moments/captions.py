"""Annotations in sentences: QVHighlights, Charades-STA, ActivityNet Captions and TACoS, as their authors publish them.

Sources of the formats: QVHighlights (Lei et al., NeurIPS 2021; `data/README.md` of its repository), Charades-STA (Gao
et al., ICCV 2017), ActivityNet Captions (Krishna et al., ICCV 2017), TACoS in the files of 2D-TAN (Zhang et al.,
AAAI 2020).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .annotations import Annotations, Collector, Moment, MomentFileError, MomentVideo, load_json, read_text

__all__ = ["read_activitynet_captions", "read_charades", "read_qvhighlights", "read_tacos"]


def read_qvhighlights(path: str | Path) -> Annotations:
    """One query a line: {"qid", "query", "vid", "duration", "relevant_windows": [[start, end]]}, in seconds.

    The files of the test split have no windows; their queries have no moments.

    Raises:
        MomentFileError: the file cannot be read, or something in it is missing or wrong.
    """
    collector = Collector(Path(path).name)
    videos: list[MomentVideo] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        row = load_json(line, collector.error, number)
        collector.need(row, ("qid", "query", "vid", "duration"), place)
        query, duration = collector.text(row["query"], place), collector.duration(row["duration"], place)
        name = collector.text(row["vid"], place)
        identity = f"{name}#{row['qid']}"
        if identity in lines:
            raise collector.error(place, f"query {row['qid']!r} of video {name!r} stands in line {lines[identity]} too")
        lines[identity] = number
        windows = row.get("relevant_windows") or []
        if not isinstance(windows, list):
            raise collector.error(place, '"relevant_windows" is no list')
        moments: list[Moment] = []
        for window in windows:
            collector.add(moments, query, collector.segment(window, place), duration, place)
        videos.append(MomentVideo(identity, name, duration, tuple(moments), query))
    return Annotations("queries", _some(videos, collector), (), tuple(collector.left_out))


def read_charades(path: str | Path) -> Annotations:
    """One sentence a line: `VIDEO start end##sentence`, in seconds. The format does not tell how long a video is.

    Raises:
        MomentFileError: the file cannot be read, or a line is wrong.
    """
    collector = Collector(Path(path).name)
    found: dict[str, list[Moment]] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        head, mark, sentence = line.partition("##")
        parts = head.split()
        if not mark or len(parts) != 3:
            raise collector.error(place, f"expected `VIDEO start end##sentence`, got {line[:40]!r}")
        try:
            times = [float(part) for part in parts[1:]]
        except ValueError as error:
            raise collector.error(place, f"start and end must be seconds, got {' '.join(parts[1:])[:40]!r}") from error
        moments = found.setdefault(parts[0], [])
        collector.add(moments, collector.text(sentence, place), collector.segment(times, place), None, place)
    videos = [MomentVideo(name, name, None, tuple(moments)) for name, moments in found.items()]
    return Annotations("captions", _some(videos, collector), (), tuple(collector.left_out))


def read_activitynet_captions(path: str | Path) -> Annotations:
    """{video: {"duration": s, "timestamps": [[start, end]], "sentences": [str]}}, in seconds.

    Raises:
        MomentFileError: the file cannot be read, or something in it is missing or wrong.
    """
    collector = Collector(Path(path).name)
    videos = []
    for name, entry, place in _entries(path, collector, ("duration", "timestamps", "sentences")):
        duration = collector.duration(entry["duration"], place)
        videos.append(_video(name, entry, duration, 1.0, place, collector))
    return Annotations("captions", _some(videos, collector), (), tuple(collector.left_out))


def read_tacos(path: str | Path) -> Annotations:
    """{video: {"fps", "num_frames", "timestamps": [[first, last]], "sentences": [str]}}, in frames.

    Raises:
        MomentFileError: the file cannot be read, or something in it is missing or wrong.
    """
    collector = Collector(Path(path).name)
    videos = []
    for name, entry, place in _entries(path, collector, ("fps", "num_frames", "timestamps", "sentences")):
        rate = collector.duration(entry["fps"], place)
        duration = collector.duration(entry["num_frames"], place) / rate
        videos.append(_video(Path(name).stem, entry, duration, 1.0 / rate, place, collector))
    return Annotations("captions", _some(videos, collector), (), tuple(collector.left_out))


def _entries(path: str | Path, collector: Collector, names: tuple[str, ...]) -> list[tuple[str, Any, str]]:
    """(video, entry, place) of a file {video: entry}."""
    data = load_json(read_text(path), collector.error)
    if not isinstance(data, dict):
        raise collector.error("line 1", "expected one JSON object with an entry for each video")
    found = [(name, entry, f"video {name!r}") for name, entry in data.items()]
    for _, entry, place in found:
        collector.need(entry, names, place)
    return found


def _video(
    name: str, entry: dict[str, Any], duration: float, unit: float, place: str, collector: Collector
) -> MomentVideo:
    times, sentences = entry["timestamps"], entry["sentences"]
    if not isinstance(times, list) or not isinstance(sentences, list) or len(times) != len(sentences):
        raise collector.error(place, "it needs one sentence for each timestamp")
    moments: list[Moment] = []
    for number, (value, sentence) in enumerate(zip(times, sentences, strict=True), 1):
        where = f"{place}, sentence {number}"
        text, segment = collector.text(sentence, where), collector.segment(value, where, unit)
        collector.add(moments, text, segment, duration, where)
    return MomentVideo(name, name, duration, tuple(moments))


def _some(videos: list[MomentVideo], collector: Collector) -> tuple[MomentVideo, ...]:
    if not videos:
        raise MomentFileError(f"{collector.file}: no annotated video in it; is it the right file?")
    return tuple(videos)
