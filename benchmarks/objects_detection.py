"""Part of `objects.py`: boxes of things, whatever they are, beside the teacher's, on photographs of COCO."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import table
from objects_parts import Eyes, bar
from PIL import Image

from onlooker.operators.objects.metrics.detection import (
    Detected,
    Matches,
    average_precision,
    average_recall,
    bootstrap,
    match_image,
)
from onlooker.training.objects.teacher import Teacher

__all__ = ["detection"]

Finder = Callable[[Image.Image], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]

_MOST = 100


def detection(root: Path, model: str, tower: str) -> str:
    """The table, as Markdown."""
    folder = root / "coco_mini"
    truth = json.loads((folder / "annotations" / "instances_train2017.json").read_text(encoding="utf-8"))
    boxes: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    for row in truth["annotations"]:
        boxes[row["image_id"]].append(row)
    teacher = Teacher(root / "detector_teacher", least=0.01, overlap=0.65)
    finders: dict[str, Finder] = {
        "teacher": lambda picture: teacher(picture)[:2],
        model: own_finder(Eyes(model, tower, least_score=0.0, most=_MOST)),
    }
    matches: dict[str, list[Matches]] = {name: [] for name in finders}
    twin: list[Matches] = []
    before: tuple[Any, Any] | None = None
    for image in bar(truth["images"], "detection"):
        with Image.open(folder / "train2017" / image["file_name"]) as opened:
            picture = opened.convert("RGB")
        sides = np.array([picture.width, picture.height] * 2)
        for name, find in finders.items():
            found, scores = find(picture)
            matches[name].append(_matched(boxes[image["id"]], found, scores))
        if before is not None:
            twin.append(_matched(boxes[image["id"]], before[0] * sides, before[1]))
        before = (found / sides, scores)
    return _told(matches, model, twin, sum(len(rows) for rows in boxes.values()))


def own_finder(eyes: Eyes) -> Finder:
    """Our detector on a picture of any size, squashed as frames of videos are."""

    def find(picture: Image.Image) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        (packet,) = eyes.detect(eyes.see("photograph", np.asarray(picture)[None], 1.0))
        return packet.boxes * np.array([picture.width, picture.height] * 2, np.float32), packet.scores

    return find


def _matched(truth: list[dict[str, Any]], boxes: Any, scores: Any) -> Matches:
    corners = np.array([row["bbox"] for row in truth], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return match_image(Detected(corners, boxes, scores, [bool(row["iscrowd"]) for row in truth]), most=_MOST)


def _told(matches: dict[str, list[Matches]], model: str, twin: list[Matches], count: int) -> str:
    """The figures and, drawing the same pictures for both, what ours are of the teacher's."""
    rows = [[name, *bootstrap(found, average_precision, average_recall)] for name, found in matches.items()]
    rows.append(["twin: boxes of the photograph before", *bootstrap(twin, average_precision, average_recall)])
    pairs = list(zip(matches[model], matches["teacher"], strict=True))

    def ratio(drawn: Sequence[tuple[Matches, Matches]]) -> float:
        return average_precision([own for own, _ in drawn]) / average_precision([other for _, other in drawn])

    (share,) = bootstrap(pairs, ratio)
    note = (
        f"\n\n{len(pairs)} photographs of coco_mini with {count} objects of 80 kinds. They are of COCO's training set, "
        "so the teacher was trained on them; ours was not. Kinds are not asked for, the best "
        f"{_MOST} boxes count, crowds are left out. In brackets: 95 % interval over photographs, 1000 drawings. The "
        "teacher sees 416x416 pixels, ours 224x224.\n\n"
        f"AP50 of ours by the teacher's: {share}."
    )
    return table(["detector", "AP50", "AR@100"], rows) + note
