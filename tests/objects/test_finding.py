"""Finding by words: the right object of several is chosen, and pictures are cut where the boxes are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from onlooker.operators.objects import finding
from onlooker.operators.objects.finding import CropReferrer, Place, Proposed, lies, overlap, split_side
from onlooker.operators.tower import load_tower

WORDS = ("a person in an orange suit", "a cup of coffee", "a rocket")


def panels() -> tuple[np.ndarray, np.ndarray]:
    """Three photographs side by side on grey, and their boxes."""
    pictures = [photographs.astronaut(), photographs.coffee()[:, 100:500], photographs.rocket()[:, 107:534]]
    whole = np.full((360, 1080, 3), 127, np.uint8)
    for i, picture in enumerate(pictures):
        whole[60:300, 360 * i + 60 : 360 * i + 300] = np.asarray(Image.fromarray(picture).resize((240, 240)))
    boxes = [[(360 * i + 60) / 1080, 1 / 6, (360 * i + 300) / 1080, 5 / 6] for i in range(3)]
    return whole, np.array(boxes, np.float32)


class Shown:
    """A detector that is told what it finds."""

    def __init__(self) -> None:
        self.tell(panels()[1])

    def tell(self, boxes: np.ndarray, scores: list[float] | None = None) -> None:
        self._proposed = Proposed(boxes, np.array(scores or [1.0] * len(boxes), np.float32))

    def point(self, box: np.ndarray) -> None:
        x0, y0, x1, y1 = box.tolist()
        self._proposed = self._proposed._replace(pointed=(x0, y0, x1, y1))

    def __call__(self, picture: np.ndarray, words: str) -> Proposed:
        return self._proposed


@pytest.fixture(scope="module")
def detector() -> Shown:
    return Shown()


@pytest.fixture(scope="module")
def finder(detector: Shown) -> CropReferrer:
    return CropReferrer(load_tower("tiny"), detector, 1.0)


def chosen(places: list[Place], boxes: np.ndarray) -> int:
    return int(np.abs(boxes - np.array(places[0].box)).sum(1).argmin())


def test_words_find_the_object_they_fit(finder: CropReferrer) -> None:
    picture, boxes = panels()
    told = [finder.refer(picture, words) for words in WORDS]
    assert [chosen(places, boxes) for places in told] == [0, 1, 2]
    for places in told:
        assert [place.score for place in places] == sorted((place.score for place in places), reverse=True)
        assert len(places) == 3
    # The twin is shown other pictures in the same boxes.
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    assert [chosen(finder.refer(mirrored, words), boxes) for words in WORDS] == [2, 1, 0]


def test_of_alike_objects_the_side_decides(finder: CropReferrer) -> None:
    picture, boxes = panels()
    for i in range(2):
        picture[:, 360 * i : 360 * (i + 1)] = picture[:, 720:]
    sides = ("on the left", "in the middle", "at the right of the picture")
    assert [chosen(finder.refer(picture, f"a rocket {side}"), boxes) for side in sides] == [0, 1, 2]


def test_of_alike_objects_the_one_that_is_pointed_at_comes_first(finder: CropReferrer, detector: Shown) -> None:
    picture, boxes = panels()
    for i in range(2):
        picture[:, 360 * i : 360 * (i + 1)] = picture[:, 720:]
    for i in range(3):
        detector.tell(boxes)
        detector.point(boxes[i])
        assert chosen(finder.refer(picture, "a rocket"), boxes) == i
    detector.tell(boxes[:0])
    detector.point(boxes[1])
    assert [chosen([place], boxes) for place in finder.refer(picture, "a rocket")] == [1], "what the detector missed"
    detector.tell(boxes)


def test_overlap_of_boxes() -> None:
    assert overlap((0, 0, 0.5, 1), (0.25, 0, 0.75, 1)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 0.5, 1), None) == overlap((0, 0, 0.1, 0.1), (0.5, 0.5, 1, 1)) == 0.0


@pytest.mark.parametrize(
    ("words", "looks", "side"),
    [
        ("the man on the left", "the man", "left"),
        ("the man on the far right side in a hat", "the man in a hat", "right"),
        ("the leftmost dog", "the dog", "left"),
        ("a kite at the top of the picture", "a kite", "top"),
        ("the dog in the Middle", "the dog", "middle"),
        ("the dog to the left of the bench", "the dog to the left of the bench", None),
        ("a man with his left hand up", "a man with his left hand up", None),
        ("on the left", "on the left", None),
        ("a left turn", "a left turn", None),
        ("a topmost", "a", "top"),
    ],
)
def test_words_for_sides(words: str, looks: str, side: str | None) -> None:
    assert split_side(words) == (looks, side)


def test_how_far_a_box_lies_on_a_side() -> None:
    corner, center = (0.0, 0.0, 0.2, 0.2), (0.4, 0.4, 0.6, 0.6)
    assert [round(lies(corner, side), 6) for side in ("left", "right", "top", "bottom")] == [0.8, -0.8, 0.8, -0.8]
    assert (lies(center, "middle"), lies(corner, "centre"), lies(corner, None)) == pytest.approx((1.0, -0.6, 0.0))


def test_only_the_surest_objects_are_looked_at(
    finder: CropReferrer, detector: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, boxes = panels()
    monkeypatch.setattr(finding, "_MOST_OBJECTS", 2)
    detector.tell(boxes, [0.1, 0.9, 0.5])
    places = finder.refer(picture, WORDS[0])
    assert sorted(chosen([place], boxes) for place in places) == [1, 2]
    detector.tell(boxes[:0])
    assert finder.refer(picture, WORDS[0]) == []
