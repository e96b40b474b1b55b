"""Annotations by class: COIN and ActivityNet-1.3.

Written from the published descriptions of the formats (Tang et al., CVPR 2019, `COIN.json`; Heilbron et al., CVPR 2015,
`activity_net.v1-3.min.json`); no file of theirs was at hand to read. Both hold {"database": {video: {"duration",
"subset", ...}}} with segments in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .annotations import Annotations, Collector, Moment, MomentFileError, MomentVideo, load_json, read_text

__all__ = ["read_activitynet", "read_coin"]


def read_coin(path: str | Path, subset: str | None = None) -> Annotations:
    """Steps of instructional videos: "annotation": [{"id", "label", "segment": [start, end]}].

    A class is a step's `id`; two ids may have the same words.

    Args:
        path: `COIN.json`.
        subset: `training` or `testing`; None for all videos.

    Raises:
        MomentFileError: the file cannot be read, something in it is missing or wrong, or nothing is of this subset.
    """
    collector = Collector(Path(path).name)
    database, _ = _database(path, collector)
    words: dict[int, str] = {}
    for name, entry in database.items():
        for number, step in enumerate(_list(collector, entry, "annotation", name), 1):
            place = f"video {name!r}, step {number}"
            collector.need(step, ("id", "label", "segment"), place)
            identity = _step_number(collector, step["id"], place)
            text = collector.text(step["label"], place)
            if words.setdefault(identity, text) != text:
                raise collector.error(place, f"step id {identity} is {text!r} here and {words[identity]!r} elsewhere")
    numbers = {identity: label for label, identity in enumerate(sorted(words))}
    classes = tuple(words[identity] for identity in sorted(words))

    def label(step: dict[str, Any]) -> int:
        return numbers[int(step["id"])]

    videos = _videos(database, "annotation", subset, classes, label, collector)
    return Annotations("classes", videos, classes, tuple(collector.left_out))


def read_activitynet(path: str | Path, subset: str | None = None) -> Annotations:
    """Activities of videos: "annotations": [{"label", "segment": [start, end]}].

    Classes are the leaves of "taxonomy", by name, as in the challenge's evaluation; without one, all labels.

    Args:
        path: `activity_net.v1-3.min.json`.
        subset: `training`, `validation` or `testing` (which has no annotations); None for all videos.

    Raises:
        MomentFileError: the file cannot be read, something in it is missing or wrong, or nothing is of this subset.
    """
    collector = Collector(Path(path).name)
    database, data = _database(path, collector)
    labels = set()
    for name, entry in database.items():
        for number, found in enumerate(_list(collector, entry, "annotations", name), 1):
            place = f"video {name!r}, annotation {number}"
            collector.need(found, ("label", "segment"), place)
            labels.add(collector.text(found["label"], place))
    classes = tuple(sorted(_leaves(collector, data["taxonomy"]) if data.get("taxonomy") else labels))
    if unknown := sorted(labels - set(classes)):
        raise collector.error('"taxonomy"', f"it has no activity {unknown[0]!r}, which videos are labelled with")
    numbers = {text: label for label, text in enumerate(classes)}

    def label(found: dict[str, Any]) -> int:
        return numbers[" ".join(found["label"].split())]

    videos = _videos(database, "annotations", subset, classes, label, collector)
    return Annotations("classes", videos, classes, tuple(collector.left_out))


def _database(path: str | Path, collector: Collector) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries of all videos, and the whole file."""
    data = load_json(read_text(path), collector.error)
    database = data.get("database") if isinstance(data, dict) else None
    if not isinstance(database, dict) or not database:
        raise collector.error("line 1", 'expected {"database": {video: ...}} with at least one video')
    for name, entry in database.items():
        collector.need(entry, ("duration", "subset"), f"video {name!r}")
    return database, data


def _videos(
    database: dict[str, Any],
    key: str,
    subset: str | None,
    classes: tuple[str, ...],
    label: Callable[[dict[str, Any]], int],
    collector: Collector,
) -> tuple[MomentVideo, ...]:
    subsets = sorted({str(entry["subset"]) for entry in database.values()})
    videos = []
    for name, entry in database.items():
        if subset is not None and entry["subset"] != subset:
            continue
        place = f"video {name!r}"
        duration = collector.duration(entry["duration"], place)
        moments: list[Moment] = []
        for number, found in enumerate(entry.get(key) or (), 1):
            where = f"{place}, {key} {number}"
            own = label(found)
            collector.add(moments, classes[own], collector.segment(found["segment"], where), duration, where, own)
        videos.append(MomentVideo(name, name, duration, tuple(moments)))
    if not videos:
        raise MomentFileError(f"{collector.file}: no video of subset {subset!r}; it has {', '.join(subsets)}.")
    return tuple(videos)


def _leaves(collector: Collector, taxonomy: Any) -> set[str]:
    """Names of the nodes that are no other node's parent."""
    if not isinstance(taxonomy, list):
        raise collector.error('"taxonomy"', "it is no list")
    for number, node in enumerate(taxonomy, 1):
        collector.need(node, ("nodeId", "nodeName", "parentId"), f'"taxonomy", node {number}')
    parents = {node["parentId"] for node in taxonomy}
    return {collector.text(node["nodeName"], '"taxonomy"') for node in taxonomy if node["nodeId"] not in parents}


def _step_number(collector: Collector, value: Any, place: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise collector.error(place, f"the id of a step is {str(value)[:40]!r}, not a number") from error


def _list(collector: Collector, entry: dict[str, Any], key: str, name: str) -> list[Any]:
    found = entry.get(key) or []
    if not isinstance(found, list):
        raise collector.error(f"video {name!r}", f'"{key}" is no list')
    return found
