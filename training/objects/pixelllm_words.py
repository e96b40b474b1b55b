"""Which words of captions name which boxes: what a finder learns from, made of captions and a detector's boxes.

A word is taken to name a box if it is a noun of the box's class and the photograph shows one such box. Where it shows
two, side by side, "on the left" and "on the right" tell them apart. No person wrote any of these.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from onlooker.operators.caption.wordpiece import normalise
from onlooker.training.flickr import read_split

__all__ = ["Box", "BoxedPhotographs", "Expression", "Named", "expressions", "ious", "named_words", "read_boxed"]

SIZE = 224
"""Side in pixels of the photographs, in which boxes are told."""
_SURE = 0.5
"""Score of a box that counts; less sure ones still make a class ambiguous."""
_APART = 0.15
"""Shares of the picture that the centres of two boxes lie apart at least, to be left and right."""

_NOUNS = {
    "person": "man woman boy girl child person guy lady baby toddler kid player skateboarder surfer snowboarder skier "
    "biker bicyclist cyclist climber rider runner swimmer gentleman male female skater wakeboarder athlete teenager "
    "hiker dancer gymnast jumper fisherman worker",
    "dog": "dog puppy",
    "bicycle": "bike bicycle",
    "motorcycle": "motorcycle motorbike bike dirtbike",
    "car": "car",
    "truck": "truck",
    "bus": "bus",
    "train": "train",
    "boat": "boat canoe kayak raft sailboat",
    "horse": "horse",
    "cat": "cat",
    "bird": "bird",
    "sheep": "sheep",
    "cow": "cow bull",
    "sports ball": "ball football basketball soccerball",
    "frisbee": "frisbee",
    "surfboard": "surfboard board",
    "snowboard": "snowboard board",
    "skateboard": "skateboard board",
    "tennis racket": "racket racquet",
    "baseball bat": "bat",
    "kite": "kite",
    "umbrella": "umbrella",
    "bench": "bench",
    "chair": "chair",
    "couch": "couch sofa",
    "bed": "bed",
    "bottle": "bottle",
    "cup": "cup",
    "laptop": "laptop computer",
    "cell phone": "phone cellphone",
    "backpack": "backpack",
}
_CLASSES: dict[str, tuple[str, ...]] = {
    noun: tuple(kind for kind, nouns in _NOUNS.items() if noun in nouns.split())
    for noun in {word for nouns in _NOUNS.values() for word in nouns.split()}
}
_PLURALS = {
    "men": "man",
    "women": "woman",
    "people": "person",
    "children": "child",
    "ladies": "lady",
    "babies": "baby",
    "puppies": "puppy",
}
_ARTICLES = {"a", "an", "the"}
_NO_ADJECTIVES = _ARTICLES | {"and", "of", "in", "on", "with", "is", "as", "at", "to", "his", "her", "its", "two", "by"}

Box = tuple[float, float, float, float]


class Named(NamedTuple):
    """A word of a text and the box it names."""

    at: int
    """Number of the word, from 0."""
    box: Box
    """x0, y0, x1, y1 in 0..1."""


class Expression(NamedTuple):
    """A text that names one thing."""

    text: str
    box: Box


@dataclass(frozen=True)
class BoxedPhotographs:
    """Photographs of a split with captions and boxes, in the order of the split.

    Attributes:
        files: names.
        captions: normalised, several for each file.
        boxes: for each file rows of (class, score, box in 0..1).
    """

    files: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    boxes: tuple[tuple[tuple[str, float, Box], ...], ...]

    def __len__(self) -> int:
        """Number of photographs."""
        return len(self.files)


def read_boxed(data: Path, split: str) -> BoxedPhotographs:
    """The photographs of a split; those without boxes have none.

    Args:
        data: the data folder, with ``flickr8k/pseudo_boxes.json`` (rows of class, score, x0, y0, x1, y1 by file).
        split: train, dev or test.
    """
    rows = json.loads((data / "flickr8k" / "pseudo_boxes.json").read_text(encoding="utf-8"))["boxes"]
    photographs = read_split(data, split)
    boxes = tuple(
        tuple((row[0], float(row[1]), _share(row[2:])) for row in rows.get(name, ())) for name in photographs.files
    )
    captions = tuple(tuple(normalise(text) for text in texts) for texts in photographs.captions)
    return BoxedPhotographs(photographs.files, captions, boxes)


def _share(pixels: Sequence[float]) -> Box:
    x0, y0, x1, y1 = (min(max(value / SIZE, 0.0), 1.0) for value in pixels)
    return x0, y0, x1, y1


def _unique(noun: str, boxes: Sequence[tuple[str, float, Box]]) -> Box | None:
    """The one box that a noun can name."""
    fitting = [(score, box) for kind, score, box in boxes if kind in _CLASSES.get(noun, ())]
    return fitting[0][1] if len(fitting) == 1 and fitting[0][0] >= _SURE else None


def named_words(caption: str, boxes: Sequence[tuple[str, float, Box]]) -> list[Named]:
    """The words of a normalised caption that name a box, in their order."""
    found = ((index, _unique(word, boxes)) for index, word in enumerate(caption.split()))
    return [Named(index, box) for index, box in found if box is not None]


def expressions(captions: Sequence[str], boxes: Sequence[tuple[str, float, Box]]) -> list[Expression]:
    """Texts that name one thing each, out of a photograph's captions and boxes.

    "the dog", the noun with the words before it ("small brown dog"), the caption up to where the next thing is named
    ("a small brown dog jumps over"), and "the dog on the left" where there are two.
    """
    found: list[Expression] = []
    for caption in captions:
        words = caption.split()
        nouns = [index for index, word in enumerate(words) if word in _CLASSES]
        if not nouns:
            continue
        first = nouns[0]
        box = _unique(words[first], boxes)
        if box is None:
            continue
        found.append(Expression(f"the {words[first]}", box))
        if first and words[first - 1] not in _NO_ADJECTIVES:
            start = first - 1 - int(first > 1 and words[first - 2] not in _NO_ADJECTIVES)
            found.append(Expression(f"the {' '.join(words[start : first + 1])}", box))
        end = nouns[1] - 1 if len(nouns) > 1 else len(words)
        if end > first + 2:
            found.append(Expression(" ".join(words[:end]), box))
    return list(dict.fromkeys(found + _sides(captions, boxes)))


def _sides(captions: Sequence[str], boxes: Sequence[tuple[str, float, Box]]) -> list[Expression]:
    """The left and the right one of two that captions tell of by one plural."""
    words = {word for caption in captions for word in caption.split()}
    nouns = {_PLURALS.get(word, word.removesuffix("s")) for word in words if word in _PLURALS or word.endswith("s")}
    found: list[Expression] = []
    for noun in sorted(nouns & _CLASSES.keys()):
        pair = [box for kind, _, box in boxes if kind in _CLASSES[noun]]
        if len(pair) != 2:
            continue
        left, right = sorted(pair, key=_middle)
        if _middle(right) - _middle(left) >= _APART:
            found += [Expression(f"the {noun} on the left", left), Expression(f"the {noun} on the right", right)]
    return found


def _middle(box: Box) -> float:
    return (box[0] + box[2]) / 2


def ious(found: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """IoU of each of (n, 4) boxes with its own of (n, 4)."""
    low, high = np.maximum(found[:, :2], truth[:, :2]), np.minimum(found[:, 2:], truth[:, 2:])
    common = np.clip(high - low, 0.0, None).prod(1)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None).prod(1) for boxes in (found, truth)]
    shares: npt.NDArray[np.float32] = common / np.maximum(areas[0] + areas[1] - common, 1e-9)
    return shares
