"""Tracked objects on the annotated video: framed where and while they are seen, in colours of their own."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from onlooker.operators.events import Event
from onlooker.pipeline.sinks.blend import Area
from onlooker.pipeline.sinks.boxes import BoxPainter, colour_of
from onlooker.pipeline.sinks.live_video import LiveVideoSink
from onlooker.pipeline.sinks.paths import Seen, TrackPaths
from onlooker.pipeline.sinks.video import VideoSink

from .parts import caption, complete, rss, started
from .test_live_outputs import LIVE, frame
from .test_video_sink import annotated, grey_video, read
from .tracks import Point, told, track

RGB = npt.NDArray[np.uint8]


def moving(begin: float, end: float, step: float = 0.5, left: float = 0.1) -> list[Point]:
    """A fifth of the picture wide, from `left` a twentieth of its width to the right each second."""
    times = np.arange(begin, end, step).round(6).tolist()
    return [(t, x := left + 0.05 * (t - begin), 0.4, x + 0.2, 0.8) for t in times]


def framed(pixels: RGB, number: int = 0) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of what has the colour of a track, in pixels; None where there is none."""
    alike = np.abs(pixels.astype(int) - colour_of(number)).max(-1) < 60
    alike &= np.abs(pixels.astype(int) - 120).max(-1) > 60
    if alike.sum() < 40:
        return None
    rows, columns = np.flatnonzero(alike.sum(1) > 8), np.flatnonzero(alike.sum(0) > 8)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def expected(points: list[Point], t: float) -> list[float]:
    box = [np.interp(t, [p[0] for p in points], [p[i] for p in points]) for i in range(1, 5)]
    return [box[0] * 320, box[1] * 180, box[2] * 320, box[3] * 180]


def test_the_box_follows_the_object_and_is_gone_while_nobody_sees_it(tmp_path: Path) -> None:
    first, second = moving(1.0, 3.01), moving(5.5, 7.01, left=0.4)
    events = told(0, [*first, *second])
    times, frames = read(annotated(grey_video(tmp_path / "in.mp4", rate=4), tmp_path / "out.mp4", events, 8.0))
    for t, pixels in zip(times, frames, strict=True):
        points = first if t < 4 else second
        box = framed(pixels)
        # A point stands for as long as a frame does: half a second.
        if points[0][0] - 1e-3 <= t < points[-1][0] + 0.5 - 1e-3:
            assert box is not None, t
            assert box == pytest.approx(expected(points, t), abs=3), t
        else:
            assert box is None, t


def test_a_frame_in_which_it_was_missed_leaves_no_gap(tmp_path: Path) -> None:
    points = [p for p in moving(1.0, 4.0) if p[0] != 2.5]
    times, frames = read(annotated(grey_video(tmp_path / "in.mp4", rate=4), tmp_path / "out.mp4", told(0, points), 8.0))
    seen = [framed(pixels) for t, pixels in zip(times, frames, strict=True) if 1 <= t < 4 - 1e-3]
    assert None not in seen


def test_drawing_before_a_track_is_told_is_noticed(tmp_path: Path) -> None:
    sink = started(
        VideoSink(tmp_path / "out.mp4", delay=-1.0), str(grey_video(tmp_path / "in.mp4", rate=4))
    )  # the twin
    events = told(0, moving(1.0, 7.0))
    for t in range(1, 9):
        while events and events[0].data.t_seen <= t:
            sink.event(events.pop(0))
        sink.advance(float(t))
    complete(sink, 8.0)
    times, frames = read(tmp_path / "out.mp4")
    assert None in [framed(pixels) for t, pixels in zip(times, frames, strict=True) if 1 <= t < 7]


def test_a_point_that_is_told_late_finds_its_place() -> None:
    paths = TrackPaths()
    a, b, c = moving(1.0, 2.4)
    paths.add(track(0, 0, "new", [a, c], 2.0))
    paths.add(track(0, 1, "update", [b], 2.5))
    paths.add(track(0, 2, "end", [a, b, c], 9.0))
    [seen] = paths.at(1.25)
    assert seen.box == pytest.approx([(p + q) / 2 for p, q in zip(a[1:], b[1:], strict=True)], abs=1e-3)


def test_an_end_adds_what_was_not_told_yet_and_nothing_else() -> None:
    points = moving(0.0, 4.0)
    paths = TrackPaths()
    paths.add(track(0, 0, "new", points[:-1], 4.0))
    thinned = [points[0], (points[0][0] + 0.25, 0.0, 0.0, 1.0, 1.0), points[-1]]
    paths.add(track(0, 1, "end", thinned, 9.0))
    assert paths.at(0.25)[0].box[2] < 0.5 and paths.at(3.6)


def test_videos_of_live_streams_show_tracks_of_each_epoch(tmp_path: Path) -> None:
    sink = started(LiveVideoSink(tmp_path / "a.mp4", delay=3.0, rate=2.0), "rtsp://host/cam", LIVE)
    for epoch, zero in enumerate((2.0, 20.0)):
        sink.epoch("clip", zero)
        events = told(epoch, moving(1.0, 3.01))
        for i in range(16):
            sink.packets("previews", [frame(i / 2)])
            while events and events[0].data.t_seen <= i / 2:
                sink.event(events.pop(0))
            sink.advance(i / 2)
    sink.close()
    times, frames = read(sink.path)
    for t, pixels in zip(times, frames, strict=True):
        epoch = int(t >= 19.9)
        since = t - (20.0 if epoch else 2.0)
        assert (framed(pixels, epoch) is not None) == (1 <= since < 3.5 and abs(np.median(pixels) - 120) < 4), t


def painted(objects: list[Seen], size: tuple[int, int] = (320, 180), taken: tuple[Area, ...] = ()) -> RGB:
    width, height = size
    grey = np.full((height, width, 3), 120, np.uint8)
    packed = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="yuv420p").to_ndarray()
    luma, chroma = packed[:height], packed[height:].reshape(2, height // 2, width // 2)
    BoxPainter(width, height).paint((luma, chroma[0], chroma[1]), objects, taken)
    return av.VideoFrame.from_ndarray(packed, format="yuv420p").to_ndarray(format="rgb24")


def dark(pixels: RGB) -> Area | None:
    """Where a chip's dark ground is."""
    rows, columns = np.nonzero(pixels.astype(int).sum(-1) < 160)
    return Area(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None


@pytest.mark.parametrize(
    "box",
    [(0.0, 0.0, 0.1, 0.1), (0.9, 0.9, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0), (-0.5, -0.5, 1.5, 1.5), (1.0, 1.0, 1.0, 1.0)],
)
def test_words_stand_beside_the_box_within_the_picture(box: tuple[float, float, float, float]) -> None:
    pixels = painted([Seen(3, box, "dog", "a dog runs over a green meadow after a ball " * 9)], (640, 360))
    chip = dark(pixels)
    assert chip is not None
    wide, high = chip.x1 - chip.x0, chip.y1 - chip.y0
    assert 120 < wide <= 0.4 * 640 and 20 < high < 90
    assert np.abs(pixels[chip.y0 : chip.y1, chip.x0 : chip.x1].astype(int) - 255).max(-1).min() < 30, "white letters"


def test_words_of_neighbours_do_not_cover_each_other_nor_what_else_is_told() -> None:
    taken = (Area(0, 150, 320, 180),)
    alone = [dark(painted([Seen(n, (0.3, 0.5, 0.5, 0.78), "dog")])) for n in (1, 2)]
    assert alone[0] == pytest.approx(alone[1], abs=2), "without the other both would stand in one place"
    both = painted([Seen(n, (0.3, 0.5, 0.5, 0.78), "dog") for n in (1, 2)], taken=taken)
    chip, ground = dark(both), (both.astype(int).sum(-1) < 160).sum()
    one = (painted([Seen(1, (0.3, 0.5, 0.5, 0.78), "dog")]).astype(int).sum(-1) < 160).sum()
    assert chip is not None and not chip.meets(taken[0])
    assert ground > 1.7 * one


def test_a_crowd_and_hostile_words_do_no_harm() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(-0.1, 1.1, (60, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
    crowd = [Seen(i, tuple(box), "x" * 60, "猫 <b>\u202e " * 9) for i, box in enumerate(boxes.tolist())]
    for size in ((320, 180), (16, 16), (2, 2)):
        assert painted(crowd, size).shape == (size[1], size[0], 3)


def test_colours_are_stable_and_those_of_neighbours_differ() -> None:
    colours = [colour_of(n) for n in range(40)]
    assert colours == [colour_of(n) for n in range(40)]
    near = [np.abs(np.subtract(a, b)).sum() for a, b in zip(colours, colours[1:], strict=False)]
    assert min(near) > 90
    for number in (0, 1, 7):
        assert framed(painted([Seen(number, (0.2, 0.3, 0.6, 0.9))]), number) is not None


def test_captions_and_tracks_stand_on_one_frame(tmp_path: Path) -> None:
    events: list[Event] = [caption(0, 1, 4, "a grey wall"), *told(0, moving(1.0, 4.0))]
    times, frames = read(annotated(grey_video(tmp_path / "in.mp4", 5, rate=4), tmp_path / "out.mp4", events, 5.0))
    shown = frames[times.index(2.0)]
    assert framed(shown) is not None
    assert (np.abs(shown[150:].astype(int) - 120).max(-1) > 50).mean() > 0.05


def test_paths_of_thousands_of_tracks_take_bounded_space() -> None:
    paths = TrackPaths()
    before = 0
    for i in range(700):
        for event in told(i, moving(float(i), i + 6.0), text="a dog"):
            paths.add(event)
        paths.forget(i - 5.0)
        assert len(paths._paths) < 16
        if i == 200:
            before = rss()
    assert rss() - before < 2 << 20
