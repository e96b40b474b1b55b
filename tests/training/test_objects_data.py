"""What a detector and an association are trained on: boxes stay on their objects, caches are whole and go on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from onlooker.training.objects.bank import ObjectBank
from onlooker.training.objects.clips import Clip, ClipOptions, ClipViews, draw_clip
from onlooker.training.objects.detector_data import View, ViewOptions, draw_view, open_boxes
from onlooker.training.objects.pseudo_video import SceneOptions

from .objects_world import SHAPES, ColourTower, open_cache, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_world(root)
    return root


def saturation(pixels: np.ndarray) -> np.ndarray:
    """Objects are coloured, everything else is grey."""
    return pixels.max(-1).astype(int) - pixels.min(-1)


def contrast(pixels: np.ndarray, boxes: np.ndarray) -> tuple[float, float]:
    """Mean saturation within the boxes, less their edges, and outside of them."""
    inside = np.zeros(pixels.shape[:2], bool)
    around = np.zeros_like(inside)
    for x0, y0, x1, y1 in boxes:
        inside[int(y0) + 3 : int(y1) - 3, int(x0) + 3 : int(x1) - 3] = True
        around[max(0, int(y0) - 3) : int(y1) + 4, max(0, int(x0) - 3) : int(x1) + 4] = True
    colours = saturation(pixels)
    return float(colours[inside].mean()), float(colours[~around].mean())


COLOURFUL = ViewOptions(visible=0.0, side=0.0)


def test_boxes_stay_on_their_objects(world: Path) -> None:
    bank = open_boxes(world, "train")
    checked = 0
    for seed in range(25):
        view = draw_view(bank, np.random.default_rng(seed), COLOURFUL)
        assert view.pixels.shape == (224, 224, 3) and view.pixels.dtype == np.uint8
        assert (view.boxes >= 0).all() and (view.boxes <= 224).all()
        if len(view.boxes) and saturation(view.pixels).max() > 60:  # some views are grey
            inside, outside = contrast(view.pixels, view.boxes)
            assert inside > 60 > 15 > outside, seed
            wrong, _ = contrast(view.pixels, (view.boxes + 97) % 224 * [1, 1, 0, 0] + [0, 0, 224, 224])
            assert wrong < inside
            checked += 1
    assert checked > 15


def test_views_show_objects_of_many_sizes(world: Path) -> None:
    bank = open_boxes(world, "train")
    views = [draw_view(bank, np.random.default_rng(seed), ViewOptions()) for seed in range(40)]
    widths = np.concatenate([view.boxes[:, 2] - view.boxes[:, 0] for view in views])
    assert widths.min() < 25 and widths.max() > 110
    assert max(len(view.boxes) for view in views) > 6


def test_a_view_is_a_function_of_its_generator(world: Path) -> None:
    bank = open_boxes(world, "train")
    one, same, other = (draw_view(bank, np.random.default_rng(seed), ViewOptions()) for seed in (3, 3, 4))
    assert np.array_equal(one.pixels, same.pixels) and np.array_equal(one.boxes, same.boxes)
    assert not np.array_equal(one.pixels, other.pixels)


def test_what_is_hardly_seen_or_too_small_does_not_count(world: Path) -> None:
    bank = open_boxes(world, "train")
    for seed in range(20):
        view = draw_view(bank, np.random.default_rng(seed), ViewOptions(side=30.0))
        assert (view.boxes[:, 2:] - view.boxes[:, :2] >= 30).all()
    few = draw_view(bank, np.random.default_rng(0), ViewOptions(grids=((3, 3, 1.0),), zoom=(1.2, 1.2), most=4))
    assert len(few.boxes) == 4


def test_boxes_that_nearly_coincide_are_one(world: Path, tmp_path: Path) -> None:
    write_world(tmp_path, 1)
    path = tmp_path / "flickr8k" / "pseudo_boxes.json"
    rows = [["dog", 0.9, 10, 10, 90, 90], ["cow", 0.4, 12, 10, 92, 90], ["man", 0.3, 60, 10, 140, 90]]
    path.write_text(json.dumps({"boxes": {"0.jpg": rows}}))
    assert open_boxes(tmp_path, "train").boxes[0].tolist() == [[10, 10, 90, 90], [60, 10, 140, 90]]


def test_photographs_without_boxes_are_left_out(tmp_path: Path) -> None:
    write_world(tmp_path, 3)
    (tmp_path / "flickr8k" / "pseudo_boxes.json").write_text('{"boxes": {"1.jpg": [["dog", 0.9, 10, 10, 90, 90]]}}')
    assert open_boxes(tmp_path, "train").files == ("1.jpg",)
    assert len(open_boxes(tmp_path, "dev")) == 0


def plain_view(index: int) -> View:
    pixels = np.full((224, 224, 3), index, np.uint8)
    return View(pixels, np.array([[index, 0, index + 10, 10]] * (index % 3), np.float32).reshape(-1, 4))


def test_a_cache_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def broken(index: int) -> View:
        if index == 5:
            raise KeyboardInterrupt
        return plain_view(index)

    tower = ColourTower()
    with pytest.raises(KeyboardInterrupt):
        open_cache(tmp_path, 8).fill(tower, broken, batch=4)
    cache = open_cache(tmp_path, 8)
    assert cache.missing().tolist() == [4, 5, 6, 7]
    told: list[int] = []
    cache.fill(tower, plain_view, lambda done, _: told.append(done), batch=4)
    assert told == [8] and tower.calls == [4, 4]
    again = open_cache(tmp_path, 8)
    assert len(again.missing()) == 0
    maps, boxes, beliefs = again.read(np.array([2, 7]))
    assert [tuple(level.shape) for level in maps] == [(2, *shape) for shape in SHAPES]
    assert maps[0][1].unique().tolist() == pytest.approx([7 / 100 - 1], abs=1e-3)
    assert boxes.tolist() == [[[2, 0, 12, 10], [2, 0, 12, 10]], [[7, 0, 17, 10], [0, 0, 0, 0]]]
    assert beliefs.tolist() == [[1, 1], [1, 0]]


def test_pictures_without_objects_have_a_row_that_stands_for_nothing(tmp_path: Path) -> None:
    cache = open_cache(tmp_path, 2)
    cache.fill(ColourTower(), lambda index: View(np.zeros((224, 224, 3), np.uint8), np.zeros((0, 4), np.float32)))
    assert torch.equal(cache.read(np.arange(2)).boxes, torch.zeros(2, 1, 4))


def test_a_cache_of_other_sizes_is_refused(tmp_path: Path) -> None:
    open_cache(tmp_path, 2)
    with pytest.raises(ValueError, match="use another folder"):
        open_cache(tmp_path, 3)


@pytest.fixture(scope="module")
def objects(world: Path) -> ObjectBank:
    return ObjectBank.flickr(world, "train")


@pytest.mark.parametrize("zoomed", [0.0, 1.0])
def test_an_object_of_a_clip_keeps_its_place_and_colour(objects: ObjectBank, zoomed: float) -> None:
    # Things are cut out a little rounder than their boxes, and light changes: the colour's order stays.
    options = ClipOptions(zoomed=zoomed, scene=SceneOptions(objects=(2, 2), hidden=0, crossings=0, noise=0.0))
    seen = 0
    for seed in range(4):
        clip = draw_clip(objects, np.random.default_rng(seed), options)
        assert clip.frames.shape == (16, 224, 224, 3)
        for track in clip.boxes.transpose(1, 0, 2):
            shown = [(pixels, box.astype(int)) for pixels, box in zip(clip.frames, track, strict=True) if box[2] > 0]
            whole = [(p, b) for p, b in shown if min(b[2] - b[0], b[3] - b[1]) > 24]
            centres = [p[(b[1] + b[3]) // 2, (b[0] + b[2]) // 2] for p, b in whole]
            colours = Counter(tuple((c > c.max() - 60).tolist()) for c in centres if np.ptp(c) > 80)
            if colours:
                assert colours.most_common(1)[0][1] >= 0.6 * colours.total()  # others pass before it
                seen += 1
    assert seen > 4


def test_a_clip_is_drawn_once_for_its_frames() -> None:
    drawn: list[int] = []

    def draw(number: int) -> Clip:
        drawn.append(number)
        return Clip(np.full((3, 224, 224, 3), number, np.uint8), np.full((3, 1, 4), number, np.float32))

    views = ClipViews(draw, 3)
    assert [int(views(index).boxes[0, 0]) for index in range(6)] == [0, 0, 0, 1, 1, 1]
    assert drawn == [0, 1]
