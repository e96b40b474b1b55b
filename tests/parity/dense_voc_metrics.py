"""Worlds of the metrics' goldens: `<root>/dense_voc/e_*.npz`, one world or more a file, as ours."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import pytest

from onlooker.operators.objects.metrics.grounding import Answer, Tube
from onlooker.operators.objects.metrics.world import Boxes, World

from .goldens import Case, find_files, parametrize_with

FAMILY = "dense_voc"


def find_worlds(kind: str, marker: str) -> list[Case]:
    """The parts of the files whose stem starts with `kind` that hold an array `marker`, with what lies below them."""
    found = []
    for whole in find_files(FAMILY, kind):
        for name in whole.arrays:
            before, _, last = name.rpartition("/")
            if last == marker:
                prefix = before + "/" if before else ""
                found.append(Case(whole.file, before or "whole", whole.below(prefix)))
    return found


def parametrize_worlds(metafunc: Any, kind: str, marker: str) -> None:
    """Give a test one world each; without any, None, on which it fails."""
    parametrize_with(metafunc, "case", partial(find_worlds, kind, marker))


def world(case: Case) -> World:
    """Frames in the order of their ids, boxes in that of the file."""
    ids = case.arrays["image_id"]
    order = np.argsort(ids, kind="stable")
    place = {int(ids[row]): i for i, row in enumerate(order)}
    videos = tuple(int(case.arrays["image_video_id"][row]) for row in order)
    return World(videos, _boxes(case, "gt", place), _boxes(case, "pred", place))


def _boxes(case: Case, side: str, place: dict[int, int]) -> Boxes:
    def column(name: str) -> Any:
        return case.arrays.get(f"{side}_{name}")

    frames = [place[int(image)] for image in column("image_id")]
    captions = [str(text) for text in column("caption")]
    return Boxes.make(frames, column("bbox_xywh"), column("track_id"), column("score"), captions)


def groups(case: Case, marker: str) -> dict[str, dict[str, Any]]:
    """Name -> arrays, of the groups that hold `marker` directly."""
    names = [name.removesuffix(f"/{marker}") for name in case.arrays if name.endswith(f"/{marker}")]
    return {name: case.below(f"{name}/") for name in names}


def tube(video: Case) -> Tube:
    """The truth of a video by the rule of the goldens' README."""
    _, _, start, end = video.arrays["meta_fps_nf_start_end"].tolist()
    frames = [f for f in video.arrays["frame_ids"].tolist() if f >= 0]
    boxes = {f: (50 + 0.3 * f, 40, 50 + 0.3 * f + 60, 40 + 80) for f in frames}
    return Tube(frames, start, end, boxes)


def spans(video: Case) -> dict[float, tuple[int, int]]:
    """Stopping value -> span of the answer; negative = nothing was cut off."""
    found = {}
    for name, span in video.arrays.items():
        if match := re.fullmatch(r"sted_p(.+)", name):
            found[float(match[1])] = (int(span[0]), int(span[1]))
    return found


def answer(video: Case, boxes: Any, chosen: Any, told: tuple[int, int]) -> Answer:
    """An answer out of the chosen box of each frame."""
    frames = video.arrays["frame_ids"].tolist()
    return Answer(*told, {f: boxes[i, k] for i, (f, k) in enumerate(zip(frames, chosen, strict=True)) if k >= 0})


def compare(actual: dict[str, Any], expected: dict[str, Any], tolerance: float) -> int:
    """Every expected value; returns how many were compared."""
    for name, value in expected.items():
        assert name in actual, f"{name} is missing"
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=tolerance, err_msg=name)
    if not expected:
        pytest.fail("nothing was expected")
    return len(expected)
