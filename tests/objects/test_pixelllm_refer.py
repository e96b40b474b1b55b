"""The embedded PixelLLM points in pictures at what words name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from onlooker.operators.objects.pixelllm.finder import load_finder
from onlooker.operators.objects.pixelllm.load import PixelLlmError
from onlooker.operators.tower import load_tower
from onlooker.training.objects.pixelllm_words import expressions, ious, read_boxed

Point = Callable[[npt.NDArray[np.uint8], str], tuple[float, float, float, float] | None]


@pytest.fixture(scope="module")
def point() -> Point:
    finder, name = load_finder("tiny")
    tower = load_tower(name, None, "image")
    return lambda picture, words: finder.point(
        tower.encode_frames(tower.preprocess([picture]), batch=1, maps=True), words
    )


def test_one_box_inside_the_picture(point: Point) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    box, other = point(picture, "the dog on the left"), point(picture, "the dog on the right")
    assert box is not None and other is not None
    x0, y0, x1, y1 = box
    assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
    assert point(picture, "the dog on the left") == box
    assert sum(other[::2]) > sum(box[::2])
    point(picture, "the dog " * 40)  # more words than the model has places for


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(PixelLlmError, match="did you mean 'tiny'"):
        load_finder("tine")


@pytest.mark.data
def test_things_in_photographs_are_found(point: Point) -> None:
    """Against boxes of the teacher, on photographs of the dev split; the twin sees them turned by half a turn."""
    root = Path(os.environ["ONLOOKER_DATA"])
    photographs = read_boxed(root, "dev")
    told = [
        (name, found[0])
        for name, texts, boxes in zip(photographs.files, photographs.captions, photographs.boxes, strict=True)
        if (found := expressions(texts, boxes))
    ][:40]
    truth = np.array([one.box for _, one in told], np.float32)
    shares = []
    for step in (1, -1):
        found = []
        for name, one in told:
            picture = np.asarray(Image.open(root / "flickr8k" / "images" / name).convert("RGB"))[::step, ::step]
            found.append(point(np.ascontiguousarray(picture), one.text) or (0.0, 0.0, 0.0, 0.0))
        shares.append(float((ious(np.array(found, np.float32), truth) > 0.5).mean()))
    assert shares[0] > 0.65 and shares[1] < 0.5 * shares[0], shares
