"""Captions of objects from cut-outs, by the embedded tower and captioner."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from onlooker.operators.caption.check import DEFAULT_WEIGHT, nearness
from onlooker.operators.caption.load import load_captioner
from onlooker.operators.objects.captioning import FrameDescriber
from onlooker.operators.objects.cutouts import CutoutCaptioner, cut_out
from onlooker.operators.tower import load_tower

HALVES = np.array([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]], np.float32)


@pytest.fixture(scope="module")
def describer() -> CutoutCaptioner:
    return CutoutCaptioner(load_captioner("tiny"), load_tower("tiny"))


def side_by_side() -> np.ndarray:
    """Two photographs (224, 448, 3): a woman, and a cat."""
    return np.concatenate([data.astronaut()[:448:2, :448:2], data.chelsea()[20:244, 100:324]], axis=1)


def test_a_cut_out_is_a_part_of_the_frame() -> None:
    frame = np.arange(40 * 80 * 3, dtype=np.uint8).reshape(40, 80, 3)
    assert np.array_equal(cut_out(frame, (0.25, 0.5, 0.5, 1.0)), frame[20:, 20:40])
    assert np.array_equal(cut_out(frame, (0.25, 0.5, 0.5, 0.75), 0.5), frame[15:35, 10:50])
    assert np.array_equal(cut_out(frame, (0.0, 0.0, 1.0, 1.0), 0.5), frame)
    for empty in ((0.5, 0.5, 0.5, 0.5), (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0)):
        assert cut_out(frame, empty).shape == (1, 1, 3)


def test_a_view_shows_an_object_with_its_surroundings(describer: CutoutCaptioner) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (40, 80, 3), np.uint8)
    boxes = np.array([[0.25, 0.5, 0.75, 0.9], [0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]], "f4")
    for view, box in zip(describer.look(frame, boxes), boxes, strict=True):
        assert np.array_equal(view.pixels, cut_out(frame, box, 0.25))
        assert np.array_equal(view.tight, cut_out(frame, box))
        assert view.pixels.base is None  # a part of the frame would keep all of it


def test_an_object_is_told_of_from_itself_and_its_surroundings(describer: CutoutCaptioner) -> None:
    """One search for each of the two; the text that fits the object itself better counts."""
    assert isinstance(describer, FrameDescriber)
    frame = side_by_side()
    left, right = describer.look(frame, HALVES)
    told = describer.caption([[left], [right]])
    assert told == [describer.caption([[view]])[0] for view in (left, right)]
    assert told[0][0] != told[1][0]
    for view, (text, _) in zip((left, right), told, strict=True):
        features = describer.tower.encode_frames(describer.tower.preprocess([view.tight]), batch=1).features[0].numpy()
        texts = {}
        for picture in (view.tight, view.pixels):
            read = describer.tower.encode_frames(describer.tower.preprocess([picture]), batch=1)
            [found] = describer.captioner.propose([read.tokens[0]])
            near = nearness(describer.tower, [p.text for p in found], features, batch=8, weight=DEFAULT_WEIGHT)
            texts |= {p.text: p.total + more for p, more in zip(found, near, strict=True)}
        assert text == max(texts, key=texts.__getitem__)


def test_without_surroundings_one_reading_is_enough(
    describer: CutoutCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    propose = describer.captioner.propose
    monkeypatch.setattr(
        describer.captioner,
        "propose",
        lambda memories, **rest: counts.append(len(memories)) or propose(memories, **rest),
    )
    whole = np.array([[0.0, 0.0, 1.0, 1.0]], np.float32)
    describer.caption([describer.look(side_by_side(), whole), describer.look(side_by_side(), HALVES[:1])])
    assert counts == [3]


def test_the_largest_view_counts(describer: CutoutCaptioner) -> None:
    left, right = describer.look(side_by_side(), HALVES)
    small = describer.look(side_by_side()[::2, ::2], HALVES)
    alone = describer.caption([[left]])
    assert describer.caption([[small[1], left, small[0]]]) == alone
    assert describer.caption([[right, small[0]]]) != alone
