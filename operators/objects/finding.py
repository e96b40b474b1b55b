"""Finding in a picture what words say: boxes with scores, best first.

`CropReferrer` compares each object that a detector finds, cut out of the picture, with the words by a CLIP tower. That
needs no training for words. It looks at one object at a time: "on the left" and the like is understood as a place in
the picture, other words that place it among others ("beside the bench") are read as part of its looks. A model that was
trained to point at what words name (PixelLLM) has a vote beside it: it knows where, the detector knows the outline.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import OnlookerError
from ..localize.class_lists import query_prompts
from ..localize.scoring import Scorer
from ..packets import FloatArray
from .cutouts import cut_out

if TYPE_CHECKING:
    from ..tower import Tower

__all__ = ["CropReferrer", "Place", "Proposed", "Referrer", "lies", "load_referrer", "overlap", "split_side"]

RGB = npt.NDArray[np.uint8]

_MARGINS = (0.0, 0.25)
"""Parts of a box's sides that are added around it: what an object is shows in its surroundings too."""
_WHOLE = 0.5
"""Weight of the whole picture's score beside an object's: it does not say where something is, but whether."""
_LEAST_DETECTION = 0.43
"""Of the score from which the detector's finds are told: words can make sure of what it is not sure of."""
_MOST_OBJECTS = 24
_POINTED = 1.5
"""What an object gains by being right where is pointed at; less, where the two overlap only."""
_SAME = 0.6
"""Overlap from which two boxes are of one object."""
_CONTRAST = 0.25
_BATCH = 8
_SURE = 1.0
"""What an object gains by the detector's being sure of it, from 0 to 1."""
# With a vote of who points, and without. Of words for what is not there ("the horse", 110 photographs of Flickr8k dev)
# one in six finds something, and of words for what is (140, of 40 kinds, one thing of a kind in a photograph) .81 and
# .76 do; of these finds .73 and .64 are right (IoU .5 with the teacher's). The best place is right for .69 and .57 of
# the words; without regard to how sure the detector is for .61 and .49.
_THRESHOLD, _UNPOINTED_THRESHOLD = 1.9, 1.4
_COSINE_THRESHOLD = 0.04
_COSINE_UNIT = 0.02
"""Cosine that is about as much as a standard deviation of those of a sentence with pictures of all kinds."""

_WHERE = re.compile(
    r"\b(?:(?:on|at|in|to) the (?:far |very )?|(?=\w+most\b))"
    r"(?P<side>left|right|top|bottom|middle|center|centre)(?:most)?(?: side| hand side| part)?\b"
    r"(?: of the (?:picture|image|frame|photo))?(?! of\b)",
    re.IGNORECASE,
)
_SIDES = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "top": (0.0, -1.0), "bottom": (0.0, 1.0)}


class Place(NamedTuple):
    """Where something is."""

    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 as parts of the picture, from 0 to 1."""
    score: float
    """How well it fits the words."""


class Proposed(NamedTuple):
    """What may be meant in a picture."""

    boxes: FloatArray
    """(N, 4) the objects in it, as parts of the picture."""
    scores: FloatArray
    """(N,) how sure the detector is of them."""
    pointed: tuple[float, float, float, float] | None = None
    """Where a model that points at what words name would have it, there or not."""


class Referrer(Protocol):
    """Finds what words say."""

    threshold: float
    """From which score a place is a find."""

    def refer(self, picture: RGB, words: str) -> list[Place]:
        """The places in a picture (H, W, 3) that fit the words, best first; also those below the threshold."""


class CropReferrer:
    """Compares objects, cut out, with the words.

    The score is that of zero-shot queries (`localize/scoring.py`): standard deviations above what pictures of all kinds
    reach with these words, less a part of what ordinary sentences reach with this object; averaged with that of the
    whole picture. Where the words name a side of the picture, an object gains up to one by lying there, or loses it.
    What is pointed at gains as well, and what the detector is sure of.
    """

    def __init__(self, tower: Tower, propose: Callable[[RGB, str], Proposed], threshold: float) -> None:
        """Take the parts.

        Args:
            tower: with both sides.
            propose: finds the objects of a picture, whatever they are, and perhaps points at what words name.
            threshold: from which score a place is a find.

        Raises:
            OnlookerError: the tower does not read texts.
        """
        if not tower.reads_texts:
            raise OnlookerError(f"tower {tower.name!r} has no text side: pictures cannot be compared with words by it.")
        # What places gain is told in standard deviations; a tower without such moments scores in cosines.
        self._unit = 1.0 if tower.calibration is not None else _COSINE_UNIT
        self.threshold = threshold
        self._tower, self._propose = tower, propose
        self._scorer = Scorer(tower, _CONTRAST)

    def refer(self, picture: RGB, words: str) -> list[Place]:
        """See `Referrer.refer`."""
        proposed = self._propose(picture, words)
        best = np.argsort(-proposed.scores, kind="stable")[:_MOST_OBJECTS]
        boxes, sure = proposed.boxes[best].clip(0, 1), proposed.scores[best]
        pointed = proposed.pointed if len(boxes) else None
        if proposed.pointed is not None and not len(boxes):
            boxes, sure = np.array([proposed.pointed], np.float32), np.zeros(1, np.float32)
        if not len(boxes):
            return []
        looks, side = split_side(words)
        [asked] = self._scorer.read({looks: query_prompts(looks)})
        *objects, whole = [self._scorer(features, [asked])[0] for features in self._features(picture, boxes)]
        scores = [
            (fit + _WHOLE * whole) / (1 + _WHOLE)
            + self._unit * (lies(box, side) + _POINTED * overlap(box, pointed) + _SURE * belief)
            for fit, box, belief in zip(objects, boxes.tolist(), sure.tolist(), strict=True)
        ]
        places = [
            Place((x0, y0, x1, y1), score) for (x0, y0, x1, y1), score in zip(boxes.tolist(), scores, strict=True)
        ]
        return _apart(sorted(places, key=lambda place: -place.score))

    def _features(self, picture: RGB, boxes: FloatArray) -> FloatArray:
        """(N + 1, E) mean direction of each object's cut-outs, and what the whole picture is like."""
        pieces = [cut_out(picture, box, margin) for box in boxes.tolist() for margin in _MARGINS]
        raw = self._tower.encode_frames(self._tower.preprocess([*pieces, picture]), batch=_BATCH).features.numpy()
        unit = raw / np.linalg.norm(raw, axis=-1, keepdims=True).clip(1e-12)
        means = unit[:-1].reshape(len(boxes), len(_MARGINS), -1).mean(1)
        both: FloatArray = np.concatenate([means, unit[-1:]])
        return both


def _apart(places: Sequence[Place]) -> list[Place]:
    """Of places, best first, those that are not of an object that a better one tells of."""
    kept: list[Place] = []
    for place in places:
        if all(overlap(place.box, better.box) < _SAME for better in kept):
            kept.append(place)
    return kept


def overlap(one: Sequence[float], other: Sequence[float] | None) -> float:
    """Intersection over union of two boxes; 0 without another."""
    if other is None:
        return 0.0
    across = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    down = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return across * down / max(sum(areas) - across * down, 1e-12)


def split_side(words: str) -> tuple[str, str | None]:
    """What something looks like, and the side of the picture where it is, if the words say one."""
    found = _WHERE.search(words)
    rest = " ".join((words[: found.start()] + words[found.end() :]).split()) if found else words
    return (rest, found["side"].lower()) if found and rest else (words, None)


def lies(box: Sequence[float], side: str | None) -> float:
    """How far a box lies on a side of the picture: 1 at its edge, 0 in the middle, -1 at the other one."""
    if side is None:
        return 0.0
    x, y = box[0] + box[2] - 1, box[1] + box[3] - 1  # of the centre, -1 to 1
    if side in _SIDES:
        across, down = _SIDES[side]
        return across * x + down * y
    return 1 - 2 * max(abs(x), abs(y))


def load_referrer(
    model: str = "tiny", pointer: str | None = "tiny", tower: str | None = None, device: str = "cpu"
) -> CropReferrer:
    """A referrer out of an object model, a PixelLLM that reads the same tower, and a tower that reads words.

    Args:
        model: object model that finds the objects, by name or folder.
        pointer: PixelLLM that points at what words name; None for no such vote, as where it reads another tower.
        tower: tower that compares objects with words; None for the object model's own.
        device: where they run.

    Raises:
        OnlookerError: there is no such model or tower.
    """
    from ..tower import load_tower
    from .densevoc.load import load_object_model
    from .detecting import FrameDetector
    from .pixelllm.finder import load_finder

    loaded = load_object_model(model, device)
    detector = FrameDetector(loaded, 1, device)
    eyes = load_tower(loaded.tower, None, "both", device)
    reader = eyes if tower in (None, loaded.tower) else load_tower(str(tower), None, "both", device)
    finder, seen_by = (None, "") if pointer is None else load_finder(pointer, device)
    if seen_by != loaded.tower:
        finder = None
    least = _LEAST_DETECTION * loaded.model.config.tracking.background

    def propose(picture: RGB, words: str) -> Proposed:
        seen = eyes.encode_frames(eyes.preprocess([picture]), batch=1, maps=True)
        view = tuple(np.ascontiguousarray(level[0].permute(1, 2, 0).numpy()) for level in seen.maps)
        [found] = detector.detect([view], _MOST_OBJECTS)
        sure = found.scores >= least
        pointed = None if finder is None else finder.point(seen, words)
        return Proposed(found.boxes[sure], found.scores[sure], pointed)

    threshold = _UNPOINTED_THRESHOLD if finder is None else _THRESHOLD
    return CropReferrer(reader, propose, threshold if reader.calibration is not None else _COSINE_THRESHOLD)
