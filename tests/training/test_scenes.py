"""Generated videos: what the truth says is what the pixels show, at the time it says."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onlooker.operators.decode import open_video
from onlooker.training.scenes import (
    Scene,
    Truth,
    VideoOptions,
    demo_scenes,
    flickr_scenes,
    read_truth,
    write_scenes,
)

SMALL = VideoOptions(width=160, height=90, fps=10, seconds=(1.0, 2.0), fade=0.4)
COLOURS = [(200, 40, 40), (40, 180, 60), (50, 60, 210), (210, 200, 60), (160, 60, 190), (230, 230, 230)]


def plain(index: int) -> Scene:
    """A picture of one colour, which pan and zoom cannot change."""
    return Scene(np.full((100, 100, 3), COLOURS[index], np.uint8), (f"colour {index}",), f"c{index}")


def colours_shown(path: Path) -> list[tuple[float, np.ndarray]]:
    with open_video(path, rate=None) as reader:
        return [(f.t, f.pixels.reshape(-1, 3).mean(0)) for f in reader]


def nearest(colour: np.ndarray) -> str:
    return f"c{int(np.abs(np.array(COLOURS) - colour).sum(1).argmin())}"


def make(tmp_path: Path, name: str = "v", **options: Any) -> tuple[Path, Truth]:
    path = tmp_path / f"{name}.mp4"
    merged = VideoOptions(**{**SMALL.__dict__, **options})
    return path, write_scenes([plain(i) for i in range(6)], path, seed=5, options=merged)


def agreement(path: Path, truth: Truth, fade: float) -> float:
    """Share of the frames outside fades that show what the truth says."""
    borders = [s.t_start for s in truth.scenes[1:]]
    clear = [(t, c) for t, c in colours_shown(path) if all(abs(t - b) > fade / 2 for b in borders)]
    return float(np.mean([nearest(c) == truth.at(t).file for t, c in clear]))


@pytest.mark.parametrize("noise", [0.0, 12.0])
def test_every_frame_shows_what_the_truth_says(tmp_path: Path, noise: float) -> None:
    path, truth = make(tmp_path, noise=noise)
    assert agreement(path, truth, SMALL.fade) == 1.0


def test_a_truth_shifted_by_half_a_second_is_found_out(tmp_path: Path) -> None:
    """The twin: the check above can fail."""
    path, truth = make(tmp_path)
    late = json.loads(path.with_suffix(".json").read_text())
    for scene in late["scenes"]:
        scene["t_start"] += 0.5
        scene["t_end"] += 0.5
    late["scenes"][0]["t_start"] = 0.0
    path.with_suffix(".json").write_text(json.dumps(late))
    assert agreement(path, read_truth(path.with_suffix(".json")), SMALL.fade) < 0.85


def test_a_border_is_the_middle_of_its_fade(tmp_path: Path) -> None:
    path, truth = make(tmp_path, fade=0.8)
    shown = dict(colours_shown(path))
    for before, after in zip(truth.scenes, truth.scenes[1:], strict=False):
        middle = shown[after.t_start]
        first, second = (np.array(COLOURS[int(s.file[1])]) for s in (before, after))
        assert np.abs(middle - (first + second) / 2).max() < 10
        early = shown[round(after.t_start - 0.3, 1)]
        assert np.abs(early - first).sum() < np.abs(early - second).sum()


def test_the_truth_is_gapless_and_survives_its_file(tmp_path: Path) -> None:
    path, truth = make(tmp_path)
    assert truth.scenes[0].t_start == 0.0
    assert all(a.t_end == b.t_start for a, b in zip(truth.scenes, truth.scenes[1:], strict=False))
    assert all(1.0 - 1e-9 <= s.t_end - s.t_start <= 2.0 + 1e-9 for s in truth.scenes)
    assert read_truth(path.with_suffix(".json")) == truth
    with open_video(path, rate=None) as reader:
        frames = sum(1 for _ in reader)
    assert frames / SMALL.fps == pytest.approx(truth.duration)
    assert reader.end is not None and reader.end.t_end == pytest.approx(truth.duration)
    with pytest.raises(ValueError, match="no scene at"):
        truth.at(truth.duration)


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    (a, first), (b, second) = make(tmp_path, "a", noise=4), make(tmp_path, "b", noise=4)
    assert a.read_bytes() == b.read_bytes()
    assert first.scenes == second.scenes
    other = write_scenes([plain(i) for i in range(6)], tmp_path / "c.mp4", seed=6, options=SMALL)
    assert [s.t_end for s in other.scenes] != [s.t_end for s in first.scenes]


def test_pictures_move_smoothly(tmp_path: Path) -> None:
    """From frame to frame a little changes, and never much: no jumps, no standing still."""
    path = tmp_path / "v.mp4"
    options = VideoOptions(width=320, height=180, fps=25, seconds=(3, 3), fade=0, crf=16)
    write_scenes(demo_scenes()[:1], path, seed=2, options=options)
    with open_video(path, rate=None) as reader:
        frames = [f.pixels.astype(np.int16) for f in reader]
    steps = np.array([np.abs(b - a).mean() for a, b in zip(frames, frames[1:], strict=False)])
    assert np.abs(frames[-1] - frames[0]).mean() > 4 * np.median(steps)
    assert steps.max() < 6


def test_stretching_shows_the_whole_picture_and_covering_keeps_its_shape(tmp_path: Path) -> None:
    picture = np.full((200, 200, 3), 30, np.uint8)
    picture[70:130, 70:130] = 220  # a square in the middle
    still = VideoOptions(width=160, height=90, fps=10, seconds=(0.5, 0.5), fade=0, zoom=1.0, crf=10)

    def square(fit: Any) -> tuple[int, int]:
        path = tmp_path / f"{fit}.mp4"
        write_scenes([Scene(picture, (), "square", fit)], path, options=still)
        with open_video(path) as reader:
            bright = next(reader).pixels.mean(-1) > 128
        return int(bright.any(1).sum()), int(bright.any(0).sum())

    height, width = square("stretch")
    assert (height, width) == (pytest.approx(27, abs=2), pytest.approx(48, abs=2))
    height, width = square("cover")
    assert height == pytest.approx(48, abs=2) and width == pytest.approx(48, abs=2)


def test_the_focus_stays_in_the_crop(tmp_path: Path) -> None:
    picture = np.full((300, 100, 3), 30, np.uint8)
    picture[:40] = 220
    still = VideoOptions(width=160, height=90, fps=10, seconds=(0.5, 0.5), fade=0, zoom=1.0)
    brightness = {}
    for focus in (0.05, 0.5):
        write_scenes([Scene(picture, (), "p", focus=(0.5, focus))], tmp_path / "v.mp4", options=still)
        with open_video(tmp_path / "v.mp4") as reader:
            brightness[focus] = next(reader).pixels.mean()
    assert brightness[0.05] > 120 > 50 > brightness[0.5]


def test_a_total_length_repeats_and_cuts(tmp_path: Path) -> None:
    truth = write_scenes([plain(0), plain(1)], tmp_path / "v.mp4", seed=1, options=SMALL, total_seconds=9.7)
    assert truth.duration == pytest.approx(9.7)
    assert [s.file for s in truth.scenes[:5]] == ["c0", "c1", "c0", "c1", "c0"]


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """Scenes come from a generator and are let go of: 160 of them peak like 16."""

    def peak(count: int) -> int:
        def many() -> Any:
            for i in range(count):
                yield Scene(np.full((400, 400, 3), i % 256, np.uint8), (), str(i))

        options = VideoOptions(width=64, height=36, fps=5, seconds=(0.4, 0.6), fade=0.2)
        tracemalloc.start()
        write_scenes(many(), tmp_path / "v.mp4", options=options)
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    peak(4)
    assert peak(160) < peak(16) + 400_000


def test_nothing_half_done_stands_under_the_name(tmp_path: Path) -> None:
    def breaks() -> Any:
        yield plain(0)
        yield plain(1)
        raise OSError("photograph 2 cannot be read")

    with pytest.raises(OSError, match="photograph 2"):
        write_scenes(breaks(), tmp_path / "v.mp4", options=SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [{"width": 161}, {"height": 8}, {"seconds": (2, 1)}, {"fade": 1.5}, {"zoom": 0.9}, {"noise": -1}, {"fps": 0}],
)
def test_impossible_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="got"):
        VideoOptions(**{**SMALL.__dict__, **wrong})


def test_no_scenes_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no scenes"):
        write_scenes([], tmp_path / "v.mp4")
    with pytest.raises(ValueError, match="no scenes"):
        write_scenes([], tmp_path / "v.mp4", total_seconds=3)


def test_the_demo_needs_nothing_but_the_wheel(tmp_path: Path) -> None:
    scenes = demo_scenes()
    assert len({s.name for s in scenes}) == len(scenes) >= 5
    assert all(isinstance(s.image, np.ndarray) and s.image.ndim == 3 and s.captions for s in scenes)
    truth = write_scenes(scenes, tmp_path / "v.mp4", options=SMALL)
    assert len(truth.scenes) == len(scenes)


def fake_flickr(root: Path) -> None:
    """A Flickr8k folder of generated pictures, laid out like the real one."""
    folder = root / "flickr8k"
    (folder / "images").mkdir(parents=True)
    names = {split: [f"{split}{i}.jpg" for i in range(8)] for split in ("train", "dev", "test")}
    with gzip.open(folder / "Flickr8k.token.txt.gz", "wt") as captions:
        for split, files in names.items():
            (folder / f"Flickr_8k.{split}Images.txt").write_text("\n".join(files))
            for file in files:
                Image.new("RGB", (224, 224), (10, 20, 30)).save(folder / "images" / file)
                captions.writelines(f"{file}#{k}\tcaption {k} of {file}\n" for k in range(5))


def test_flickr_scenes_keep_to_their_split(tmp_path: Path) -> None:
    fake_flickr(tmp_path)
    for split in ("train", "dev", "test"):
        scenes = flickr_scenes(tmp_path, split, 6, seed=4)
        assert len({s.name for s in scenes}) == 6
        assert all(s.name.startswith(split) and len(s.captions) == 5 and s.fit == "stretch" for s in scenes)
    assert flickr_scenes(tmp_path, "dev", 6, 4) == flickr_scenes(tmp_path, "dev", 6, 4)
    assert flickr_scenes(tmp_path, "dev", 6, 4) != flickr_scenes(tmp_path, "dev", 6, 5)
    truth = write_scenes(flickr_scenes(tmp_path, "dev", 3, 0), tmp_path / "v.mp4", options=SMALL)
    assert truth.scenes[0].captions[0].startswith("caption 0 of dev")
    with pytest.raises(ValueError, match="has 8 photographs, cannot draw 9"):
        flickr_scenes(tmp_path, "dev", 9, 0)


@pytest.mark.data
def test_the_real_splits_do_not_touch() -> None:
    root = Path(os.environ["ONLOOKER_DATA"])
    drawn = {s: {x.name for x in flickr_scenes(root, s, 500, seed=1)} for s in ("train", "dev", "test")}
    assert not (drawn["train"] & drawn["dev"] or drawn["dev"] & drawn["test"] or drawn["train"] & drawn["test"])
    assert all(isinstance(x.image, Path) and x.image.is_file() for x in islice(flickr_scenes(root, "dev", 20, 1), 20))
