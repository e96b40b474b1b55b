"""Videos with objects of known tracks, composed of photographs.

    bank = ObjectBank.flickr(root, "train")
    video = draw_scene(bank, np.random.default_rng(3))
    video.boxes[t, k], video.visible[t, k], bank.captions[video.sources[k]]

Before a photograph under a slow pan and zoom move things that are cut out of other photographs: fast, crossing one
another, changing in size and light, hidden behind something for seconds, coming and leaving. What the background
itself shows counts as objects too. With `SceneOptions(kind="photographs")` whole photographs move, whose captions are
therefore true of the object.

A scene is planned in shares of the picture and seconds, so it may be drawn at any size and frame rate. The same bank,
generator and options give the same scene.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from onlooker.training.objects.bank import ObjectBank, Thing
from onlooker.training.objects.motion import Motion, Wave, random_motion, rival_of

__all__ = [
    "PANNED",
    "PHOTOGRAPHS",
    "DrawnFrame",
    "PseudoVideo",
    "SceneOptions",
    "ScenePlan",
    "draw_frames",
    "draw_scene",
    "plan_scene",
]

FloatArray = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

_SOFT = 0.06
"""Width of the soft edge of a cut-out, as a share of its half side."""
_ROUND = {"things": 2.8, "photographs": 12.0}
"""Exponent of the superellipse that things are cut out with: 2 is an ellipse, many is a rectangle."""
_COVER = 1.25
"""How much larger than the object that hides behind it something is."""


@dataclass(frozen=True)
class SceneOptions:
    """What a scene shows."""

    width: int = 224
    height: int = 224
    fps: float = 2.0
    seconds: float = 8.0
    kind: Literal["things", "photographs"] = "things"
    """What moves: things in boxes of photographs, or whole photographs."""
    objects: tuple[int, int] = (2, 5)
    """Fewest and most moving objects."""
    size: tuple[float, float] = (0.22, 0.5)
    """Longer side of an object as a share of the picture."""
    crossings: int = 1
    """Pairs that cross one another."""
    hidden: int = 1
    """Objects that hide behind something that stands in the picture."""
    hide_seconds: tuple[float, float] = (1.5, 3.0)
    """For how long."""
    leave: float = 0.3
    """Chance of each other object to come late or leave early."""
    rate: tuple[float, float] = (0.06, 0.25)
    """Swings a second across the picture."""
    swing: tuple[float, float] = (0.18, 0.35)
    """How far a swing goes to each side, as a share of the picture."""
    zoom: float = 1.25
    """Largest magnification of the background."""
    background_things: int = 4
    """Most things that the photograph behind everything shows; they are objects too."""
    noise: float = 2.0
    """Standard deviation of camera noise in steps of 1 / 255."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if min(self.width, self.height) < 16 or self.fps <= 0 or self.frames < 1:
            raise ValueError(
                f"need at least 16x16 pixels and one frame, got {self.width}x{self.height}, "
                f"{self.seconds} s at {self.fps} fps"
            )
        if not 0 <= self.objects[0] <= self.objects[1]:
            raise ValueError(f"objects must be a range from 0 on, got {self.objects}")
        if not 0 < self.size[0] <= self.size[1] or self.zoom < 1:
            raise ValueError(f"need sizes above 0 and zoom >= 1, got {self.size}, {self.zoom}")

    @property
    def frames(self) -> int:
        """T, the number of frames."""
        return round(self.seconds * self.fps)


PHOTOGRAPHS = SceneOptions(kind="photographs", objects=(2, 3), size=(0.42, 0.6), hidden=0, background_things=0)
"""Whole photographs that move: the captions of a photograph are true of the object."""

PANNED = SceneOptions(objects=(0, 0), crossings=0, hidden=0, zoom=1.6, background_things=6)
"""One photograph under pan and zoom, with nothing before it: objects stand in the picture that they belong to."""


@dataclass(frozen=True)
class PseudoVideo:
    """A drawn scene with T frames and K objects.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        boxes: (T, K, 4) float32 pixels x0 y0 x1 y1 of what can be seen of each object; zeros where nothing can.
        full: (T, K, 4) of the whole object as far as it is inside the picture; zeros where it is not.
        visible: (T, K) float32 share of the object that can be seen, 0 to 1.
        ids: (K,) int64, 1 to K.
        sources: (K,) int64, the photograph of the bank that each object comes from.
        kinds: (K,) the teacher's class, `photograph` for a whole one.
        fps: frames a second.
    """

    frames: Pixels
    boxes: FloatArray
    full: FloatArray
    visible: FloatArray
    ids: npt.NDArray[np.int64]
    sources: npt.NDArray[np.int64]
    kinds: tuple[str, ...]
    fps: float


@dataclass(frozen=True)
class DrawnFrame:
    """One frame; the arrays are those of `PseudoVideo` without T."""

    pixels: Pixels
    boxes: FloatArray
    full: FloatArray
    visible: FloatArray


@dataclass(frozen=True)
class _Cutout:
    """Something that moves, or stands, before the background."""

    thing: Thing
    width: float
    """As a share of the picture."""
    height: float
    motion: Motion
    is_object: bool = True
    """False for what objects hide behind."""


@dataclass(frozen=True)
class ScenePlan:
    """Everything that is decided about a scene.

    Attributes:
        background: the photograph behind everything.
        views: the part of it (x0, y0, x1, y1) that is in the picture at first and at last.
        cutouts: what is before it, the farthest first.
        seed: of the camera noise.
    """

    background: int
    views: tuple[FloatArray, FloatArray]
    cutouts: tuple[_Cutout, ...]
    background_things: tuple[Thing, ...]
    seed: int

    @property
    def objects(self) -> tuple[Thing, ...]:
        """The K objects: those of the background, then those before it."""
        return (*self.background_things, *(cutout.thing for cutout in self.cutouts if cutout.is_object))


def draw_scene(bank: ObjectBank, rng: np.random.Generator, options: SceneOptions | None = None) -> PseudoVideo:
    """Plan a scene and draw all its frames.

    Raises:
        ValueError: the bank has too few photographs or things for the options.
    """
    options = options or SceneOptions()
    plan = plan_scene(bank, rng, options)
    drawn = list(draw_frames(bank, plan, options))
    return PseudoVideo(
        np.stack([frame.pixels for frame in drawn]),
        np.stack([frame.boxes for frame in drawn]),
        np.stack([frame.full for frame in drawn]),
        np.stack([frame.visible for frame in drawn]),
        np.arange(1, len(plan.objects) + 1),
        np.array([thing.photograph for thing in plan.objects], np.int64),
        tuple(thing.kind for thing in plan.objects),
        options.fps,
    )


# ---- planning


def plan_scene(bank: ObjectBank, rng: np.random.Generator, options: SceneOptions) -> ScenePlan:
    """Decide what a scene shows."""
    background = _background(bank, rng, options)
    count = int(rng.integers(options.objects[0], options.objects[1] + 1))
    things = _things(bank, rng, options, count, background)
    motions: list[Motion] = []
    for number in range(count):
        if number % 2 and number // 2 < options.crossings:
            motions.append(rival_of(motions[-1], rng))
        else:
            leave = 0.0 if number // 2 < options.crossings else options.leave
            motions.append(random_motion(rng, options.seconds, options.rate, options.swing, leave))
    moving = [
        _Cutout(thing, *_sides(thing, rng, options), motion) for thing, motion in zip(things, motions, strict=True)
    ]
    cutouts = [moving[i] for i in rng.permutation(count)]
    for number in rng.permutation(count)[: options.hidden]:
        index = cutouts.index(moving[number])
        cutouts[index : index + 1] = _hidden(bank, cutouts[index], rng, options)
    views = (_view(rng, options.zoom), _view(rng, options.zoom))
    return ScenePlan(background, views, tuple(cutouts), bank.things[background], int(rng.integers(2**31)))


def _background(bank: ObjectBank, rng: np.random.Generator, options: SceneOptions) -> int:
    """Draw a photograph that shows few things, but some where nothing else is shown."""
    few = bank.plain(options.background_things)
    if not options.objects[0]:  # nothing else may be there
        few = tuple(p for p in few if bank.things[p])
    if not few:
        raise ValueError(f"no photograph of the bank has at most {options.background_things} boxes")
    return int(rng.choice(few))


def _things(
    bank: ObjectBank, rng: np.random.Generator, options: SceneOptions, count: int, background: int
) -> list[Thing]:
    """Draw things of different photographs, none of the background's."""
    if options.kind == "photographs":
        pool: tuple[Thing, ...] = tuple(Thing(p, (0.0, 0.0, 1.0, 1.0), "photograph") for p in range(len(bank)))
    else:
        pool = bank.cuttable(0.04, 0.5)
    chosen: dict[int, Thing] = {}
    for index in rng.permutation(len(pool)):
        thing = pool[index]
        if len(chosen) == count:
            break
        if thing.photograph != background:
            chosen.setdefault(thing.photograph, thing)
    if len(chosen) < count:
        raise ValueError(f"the bank has things of {len(chosen)} photographs to show, the scene needs {count}")
    return list(chosen.values())


def _sides(thing: Thing, rng: np.random.Generator, options: SceneOptions) -> tuple[float, float]:
    """Width and height in the scene, in the box's own proportions."""
    x0, y0, x1, y1 = thing.box
    longer = rng.uniform(*options.size)
    scale = longer / max(x1 - x0, y1 - y0)
    return (x1 - x0) * scale, (y1 - y0) * scale


def _hidden(bank: ObjectBank, cutout: _Cutout, rng: np.random.Generator, options: SceneOptions) -> list[_Cutout]:
    """Let an object pause behind something that stands there all the time: the two, the nearer one last."""
    length = min(rng.uniform(*options.hide_seconds), options.seconds / 2)
    start = rng.uniform(options.seconds / 8, options.seconds * 7 / 8 - length)
    motion = replace(cutout.motion, pause=(start, start + length), life=(-np.inf, np.inf))
    place = motion.at(start)
    assert place is not None
    x, y, size, light = (Wave(value, 0.0, 0.0, 0.0) for value in (place.x, place.y, 0.0, 1.0))
    still = Motion(x, y, size, light)
    # A piece of a photograph's edge, which seldom shows a thing.
    left = float(rng.choice([0.0, 0.7]))
    piece = Thing(int(rng.integers(len(bank))), (left, 0.0, left + 0.3, 1.0), "cover")
    scale = place.scale * _COVER
    cover = _Cutout(piece, cutout.width * scale, cutout.height * scale, still, is_object=False)
    return [replace(cutout, motion=motion), cover]


def _view(rng: np.random.Generator, zoom: float) -> FloatArray:
    side = 1 / rng.uniform(1, zoom)
    left, top = rng.uniform(0, 1 - side, 2)
    return np.array([left, top, left + side, top + side], np.float32)


# ---- drawing


def draw_frames(bank: ObjectBank, plan: ScenePlan, options: SceneOptions) -> Iterator[DrawnFrame]:
    """Draw a planned scene frame by frame."""
    patches = [_patch(bank, cutout, options) for cutout in plan.cutouts]
    rng = np.random.default_rng(plan.seed)
    grain = rng.normal(0, options.noise, (2 * options.height, 2 * options.width, 1)).astype(np.int16)
    for number in range(options.frames):
        frame = _draw(bank, plan, patches, number / options.fps, options)
        top, left = rng.integers(0, (options.height, options.width))
        noisy = frame.pixels + grain[top : top + options.height, left : left + options.width]
        yield replace(frame, pixels=np.clip(noisy, 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class _Patch:
    """A cut-out's picture and how much of each pixel belongs to it."""

    picture: Image.Image
    mask: Image.Image


def _patch(bank: ObjectBank, cutout: _Cutout, options: SceneOptions) -> _Patch:
    picture = bank.picture(cutout.thing.photograph)
    sides = np.array([picture.width, picture.height] * 2)
    x0, y0, x1, y1 = np.round(np.array(cutout.thing.box) * sides).astype(int).tolist()
    piece = picture.crop((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)))
    power = _ROUND[options.kind] if cutout.is_object else _ROUND["photographs"]
    return _Patch(piece, Image.fromarray(_superellipse(piece.width, piece.height, power)))


def _superellipse(width: int, height: int, power: float) -> Pixels:
    """Mask (H, W) of the shape |x|^p + |y|^p <= 1 that touches all four sides, with a soft edge."""
    x, y = (np.abs((np.arange(n) + 0.5) / n * 2 - 1) for n in (width, height))
    radius = (x**power + y[:, None] ** power) ** (1 / power)
    return np.clip((1 - radius) / _SOFT * 255, 0, 255).astype(np.uint8)


def _draw(bank: ObjectBank, plan: ScenePlan, patches: list[_Patch], t: float, options: SceneOptions) -> DrawnFrame:
    width, height = options.width, options.height
    share = t / options.seconds
    view = plan.views[0] + (plan.views[1] - plan.views[0]) * np.float32(share * share * (3 - 2 * share))
    picture = bank.picture(plan.background)
    window = tuple((view * np.array([picture.width, picture.height] * 2)).tolist())
    canvas = np.array(picture.resize((width, height), Image.Resampling.BILINEAR, box=window))
    owner = np.full((height, width), -1, np.int16)  # which cut-out is seen at each pixel
    whole: list[tuple[FloatArray, int]] = []  # box and pixels of each object before the background
    numbers = []
    for number, (cutout, patch) in enumerate(zip(plan.cutouts, patches, strict=True)):
        box, area = _paste(canvas, owner, number, cutout, patch, t)
        if cutout.is_object:
            whole.append((box, area))
            numbers.append(number)
    behind = [_seen_behind(owner, thing, view) for thing in plan.background_things]
    before = [_seen_before(owner, number, *known) for number, known in zip(numbers, whole, strict=True)]
    boxes, full, visible = zip(*behind, *before, strict=True)
    return DrawnFrame(canvas, np.stack(boxes), np.stack(full), np.array(visible, np.float32))


def _paste(
    canvas: Pixels, owner: npt.NDArray[np.int16], number: int, cutout: _Cutout, patch: _Patch, t: float
) -> tuple[FloatArray, int]:
    """Put a cut-out into the picture; return its box inside the picture and how many pixels all of it has."""
    height, width = owner.shape
    place = cutout.motion.at(t)
    if place is None:
        return _nowhere(), 0
    size = (
        max(2, round(cutout.width * place.scale * width)),
        max(2, round(cutout.height * place.scale * height)),
    )
    left, top = round(place.x * width - size[0] / 2), round(place.y * height - size[1] / 2)
    mask = np.asarray(patch.mask.resize(size, Image.Resampling.BILINEAR))
    area = int((mask > 127).sum())
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + size[0]), min(height, top + size[1])
    if x0 >= x1 or y0 >= y1:
        return _nowhere(), area
    inside = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    piece = np.asarray(patch.picture.resize(size, Image.Resampling.BILINEAR))[inside].astype(np.uint32)
    lit = np.minimum((piece * np.uint32(round(256 * place.light))) >> 8, 255)
    share = mask[inside][:, :, None].astype(np.uint32)
    there = canvas[y0:y1, x0:x1]
    there[...] = (there * (255 - share) + lit * share + 127) // 255
    solid = mask[inside] > 127
    owner[y0:y1, x0:x1][solid] = number
    return _offset(_bounds(solid), x0, y0), area


def _seen_before(
    owner: npt.NDArray[np.int16], number: int, box: FloatArray, area: int
) -> tuple[FloatArray, FloatArray, float]:
    """Visible box, full box and visible share of a cut-out."""
    seen = owner == number
    count = int(seen.sum())
    return _bounds(seen), box, min(1.0, count / area) if area else 0.0


def _seen_behind(owner: npt.NDArray[np.int16], thing: Thing, view: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Visible box, full box and visible share of a thing of the background."""
    height, width = owner.shape
    sides = np.array([width, height] * 2, np.float32)
    span = np.tile(view[2:] - view[:2], 2)
    placed: FloatArray = ((np.array(thing.box, np.float32) - np.tile(view[:2], 2)) / span * sides).astype(np.float32)
    full: FloatArray = np.clip(placed, 0, sides)
    x0, y0, x1, y1 = np.round(full).astype(int).tolist()
    free = owner[y0:y1, x0:x1] < 0
    if not free.size:
        return _nowhere(), _nowhere(), 0.0
    seen = full if free.all() else _offset(_bounds(free), x0, y0)  # of what is free the box is not rounded to pixels
    area = float(np.prod(placed[2:] - placed[:2]))
    return seen, full, min(1.0, int(free.sum()) / max(area, 1.0))


def _bounds(mask: npt.NDArray[np.bool_]) -> FloatArray:
    """Box (4,) of the true pixels; zeros where there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return _nowhere()
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def _nowhere() -> FloatArray:
    return np.zeros(4, np.float32)


def _offset(box: FloatArray, left: int, top: int) -> FloatArray:
    """Move a box, zeros stay."""
    return box + np.array([left, top, left, top], np.float32) if box.any() else box
