"""Composed scenes: what the truth says of an object is where its pixels are."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from onlooker.training.objects.bank import ObjectBank, Thing
from onlooker.training.objects.object_videos import read_objects, write_objects
from onlooker.training.objects.pseudo_video import (
    PANNED,
    PHOTOGRAPHS,
    PseudoVideo,
    SceneOptions,
    draw_scene,
    plan_scene,
)

from .object_bank import colour, plain_bank

CLEAN = SceneOptions(width=96, height=80, noise=0.0, background_things=0, hidden=0, leave=0.0)


@pytest.fixture(scope="module")
def bank() -> ObjectBank:
    return plain_bank()


def scene(bank: ObjectBank, options: SceneOptions, seed: int = 0) -> PseudoVideo:
    return draw_scene(bank, np.random.default_rng(seed), options)


def painted(video: PseudoVideo, t: int, photograph: int) -> npt.NDArray[np.bool_]:
    """Pixels of a frame that have the colour of a photograph, whatever the light."""
    pixels = video.frames[t].astype(np.float64)
    wanted = colour(photograph).astype(np.float64)
    angle = (pixels @ wanted) / (np.linalg.norm(pixels, axis=-1) * np.linalg.norm(wanted) + 1e-9)
    return angle > 0.999


def test_boxes_are_where_the_pixels_of_the_object_are() -> None:
    """A red, a green and a blue object before something dark: light cannot turn one into another."""
    hues = plain_bank()
    tiny = (Thing(1, (0.5, 0.5, 0.51, 0.51), "ball"),)
    hues.things = tuple(things if p in (0, 2, 6, 18) else tiny for p, things in enumerate(hues.things))
    compared = 0
    for seed in range(4):
        video = scene(hues, replace(CLEAN, objects=(3, 3)), seed)
        for t, k in np.argwhere(video.visible > 0.4):
            found = painted(video, t, int(video.sources[k]))
            rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
            box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert np.abs(video.boxes[t, k] - box).max() <= 4, (seed, t, k)  # the soft edge
            compared += 1
    assert compared > 100


def test_the_visible_box_lies_in_the_full_one_and_both_in_the_picture(bank: ObjectBank) -> None:
    for seed in range(4):
        video = scene(bank, replace(CLEAN, hidden=1, leave=1.0, background_things=1), seed)
        seen = video.visible > 0
        assert ((video.boxes[..., 2:] > video.boxes[..., :2]).all(-1) == seen).all()
        assert (video.boxes[~seen] == 0).all()
        assert (video.boxes[seen][:, :2] >= video.full[seen][:, :2] - 1).all()
        assert (video.boxes[seen][:, 2:] <= video.full[seen][:, 2:] + 1).all()
        assert (video.full >= 0).all() and (video.full <= [96, 80, 96, 80]).all()
        assert video.visible.max() <= 1
        assert video.ids.tolist() == list(range(1, len(video.sources) + 1))
        assert len(set(video.sources.tolist())) == len(video.sources)


def test_an_object_hides_for_seconds_and_comes_back_at_its_place(bank: ObjectBank) -> None:
    long_hidden = 0
    for seed in range(5):
        options = replace(CLEAN, objects=(1, 1), hidden=1, crossings=0, hide_seconds=(2.0, 2.5), seconds=10.0)
        video = scene(bank, options, seed)
        gone = video.visible[:, 0] == 0
        runs = "".join("x" if g else "." for g in gone).split(".")
        inner = gone.argmax() > 0 and not gone[-1]
        long_hidden += inner and max(map(len, runs)) >= 4  # 2 s at 2 fps
        without = scene(bank, replace(options, hidden=0), seed)
        assert (without.visible > 0.3).all()
    assert long_hidden >= 4


def test_objects_cross_and_move_far_between_frames(bank: ObjectBank) -> None:
    near, overlaps = [], []
    for seed in range(12):
        video = scene(bank, replace(CLEAN, objects=(2, 2)), seed)
        both = (video.full[:, :, 2] > 0).all(1)
        overlaps.append(iou(video.full[both, 0], video.full[both, 1]).max(initial=0) > 0.2)
        near += iou(video.full[:-1, 0], video.full[1:, 0]).tolist()
    assert np.mean(overlaps) > 0.8
    assert np.mean(np.array(near) < 0.3) > 0.1
    assert np.median(near) > 0.2  # and yet they do not jump


def iou(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    shared = sides.prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    return np.asarray(shared / np.maximum(union, 1e-6), np.float32)


def test_what_comes_late_or_leaves_is_not_there_before_or_after(bank: ObjectBank) -> None:
    absent = 0
    for seed in range(10):
        options = replace(CLEAN, objects=(1, 1), crossings=0, leave=1.0)
        video = scene(bank, options, seed)
        plan = plan_scene(bank, np.random.default_rng(seed), options)
        start, end = plan.cutouts[0].motion.life
        for t in range(len(video.frames)):
            if not start <= t / video.fps < end:
                assert video.visible[t, 0] == 0
                absent += 1
    assert absent > 10


def test_things_of_the_background_are_objects_that_others_cover() -> None:
    bank = plain_bank()
    bank.things = ((Thing(0, (0.0, 0.2, 1.0, 0.8), "sofa"),), *bank.things[1:])
    covered = 0
    for seed in range(40):
        options = replace(CLEAN, background_things=1, zoom=1.0)
        plan = plan_scene(bank, np.random.default_rng(seed), options)
        if plan.background != 0:
            continue
        video = scene(bank, options, seed)
        assert video.kinds[0] == "sofa" and video.sources[0] == 0
        np.testing.assert_allclose(video.full[:, 0], np.tile([0, 16, 96, 64], (16, 1)), atol=0.01)
        covered += bool((video.visible[:, 0] < 0.9).any())
    assert covered >= 1


def test_the_same_seed_gives_the_same_and_another_another(bank: ObjectBank) -> None:
    first, again, other = (scene(bank, SceneOptions(64, 64), seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.frames, again.frames)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.frames, other.frames)


def test_size_and_rate_of_the_picture_do_not_change_the_scene(bank: ObjectBank) -> None:
    small, large = (
        scene(bank, replace(SceneOptions(), width=w, height=h, fps=fps))
        for w, h, fps in ((96, 96, 2.0), (320, 180, 4.0))
    )
    ours, theirs = small.full / 96, large.full[::2] / [320, 180, 320, 180]
    np.testing.assert_allclose(ours, theirs, atol=0.03)
    np.testing.assert_allclose(small.visible, large.visible[::2], atol=0.12)


def test_whole_photographs_move_as_objects(bank: ObjectBank) -> None:
    video = scene(bank, replace(PHOTOGRAPHS, width=96, height=96))
    assert set(video.kinds) == {"photograph"} and 2 <= len(video.ids) <= 3
    assert (video.visible.max(0) > 0.6).all()


def test_one_photograph_under_pan_and_zoom(bank: ObjectBank) -> None:
    """Nothing is before it, and what it shows is what the video's objects are."""
    for seed in range(3):
        video = scene(bank, replace(PANNED, width=96, height=96), seed)
        assert video.kinds == ("dog",) and 0 < video.sources[0] < 27
        assert (video.visible > 0).any() and np.ptp(video.boxes[:, 0, 0]) > 0
        hue = video.frames.reshape(-1, 3).mean(0) - colour(int(video.sources[0]))
        assert np.abs(hue).max() < 5


def test_a_bank_with_too_little_says_so() -> None:
    with pytest.raises(ValueError, match="needs 5"):
        scene(plain_bank(3), replace(CLEAN, objects=(5, 5)))
    with pytest.raises(ValueError, match="at most -1 boxes"):
        scene(plain_bank(3), replace(CLEAN, background_things=-1))
    with pytest.raises(ValueError, match="objects"):
        SceneOptions(objects=(3, 2))


def test_a_video_on_disk_shows_what_its_truth_says(bank: ObjectBank, tmp_path: Path) -> None:
    options = replace(SceneOptions(), width=128, height=96, fps=5.0, seconds=2.0)
    truth = write_objects(bank, tmp_path / "v.mp4", seed=3, options=options)
    assert read_objects(tmp_path / "v.mp4") == truth
    video = scene(bank, options, 3)
    for k, track in enumerate(truth.tracks):
        shown = np.flatnonzero(video.visible[:, k] > 0)
        assert [box.t for box in track.boxes] == pytest.approx((shown / 5).tolist())
        boxes = np.array([box[1:5] for box in track.boxes]) * [128, 96, 128, 96]
        np.testing.assert_allclose(boxes, video.boxes[shown, k], atol=0.02)
        assert track.captions == bank.captions[int(video.sources[k])]
    with av.open(str(tmp_path / "v.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 10 and truth.duration == 2.0
    assert np.abs(np.stack(frames).astype(int) - video.frames).mean() < 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.json", "v.mp4"]


def test_an_odd_video_is_refused(bank: ObjectBank, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        write_objects(bank, tmp_path / "v.mp4", seed=0, options=SceneOptions(65, 64))
    assert not list(tmp_path.iterdir())


def test_flickr_boxes_become_things(tmp_path: Path) -> None:
    folder = tmp_path / "flickr8k"
    (folder / "images").mkdir(parents=True)
    (folder / "Flickr_8k.devImages.txt").write_text("a.jpg\nb.jpg\n")
    with gzip.open(folder / "Flickr8k.token.txt.gz", "wt") as captions:
        captions.writelines(f"{name}#{k}\t{name} {k}\n" for name in ("a.jpg", "b.jpg") for k in range(5))
    Image.fromarray(np.zeros((224, 224, 3), np.uint8)).save(folder / "images" / "a.jpg")
    rows = [["dog", 0.9, 56, 0, 168, 112], ["cat", 0.35, 0, 0, 100, 100], ["owl", 0.9, 5, 5, 5, 9]]
    (folder / "pseudo_boxes.json").write_text(json.dumps({"boxes": {"a.jpg": rows}}))
    bank = ObjectBank.flickr(tmp_path, "dev")
    assert bank.things == ((Thing(0, (0.25, 0.0, 0.75, 0.5), "dog"),), ())
    assert bank.cuttable(0.2, 0.3) == bank.things[0] and bank.cuttable(0.3, 1.0) == ()
    assert bank.plain(0) == (1,)
    assert bank.pixels(0).shape == (224, 224, 3) and bank.captions[1][4] == "b.jpg 4"
