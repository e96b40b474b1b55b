"""Outputs of live streams: epochs follow one another on one line of time, whatever clocks and sizes do."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest

from onlooker.operators.contract import End, SourceInfo, WallTime
from onlooker.operators.events import make_event
from onlooker.operators.packets import Frame
from onlooker.pipeline.runtime.batch import Batch
from onlooker.pipeline.sinks import live_video
from onlooker.pipeline.sinks.base import Sink
from onlooker.pipeline.sinks.live_video import LiveVideoSink
from onlooker.pipeline.sinks.report import ReportSink
from onlooker.pipeline.sinks.subtitles import SrtSink, WebVttSink
from onlooker.pipeline.timeline import Timeline

from .parts import caption, files_beside, query, scores, started
from .test_report import Page
from .test_subtitles import libav_cues, strict_vtt_cues
from .test_video_sink import read, written

BEGAN = 1_777_629_612.5
LIVE = SourceInfo("clip", round(BEGAN * 1000), 0, 0, live=True)


def frame(t: float, grey: int = 120, size: tuple[int, int] = (320, 180)) -> Frame:
    return Frame("clip", 0, t, np.full((size[1], size[0], 3), grey, np.uint8), 0, size)


def two_epochs(sink: Sink, *, zero: float = 30.0) -> None:
    """Ten seconds from second 4, and ten from second `zero`; in both a caption after 5 s and a query event 2 to 6."""
    started(sink, "rtsp://host/cam", LIVE)
    for epoch, begins in enumerate((4.0, zero)):
        sink.epoch("clip", begins)
        for i in range(20):
            t = i / 2
            sink.packets("previews", [frame(t)])
            if "scores" in sink.ports:
                sink.packets("scores", [scores(t, ["a wall"], [float(2 <= t < 6)])])
            if t == 2:
                sink.event(query(epoch, 2, None, "a wall"))
            if t == 5:
                sink.event(caption(epoch, 0, 5, f"caption {epoch}"))
            if t == 6:
                sink.event(query(epoch, 2, 6, "a wall", rev=1))
            sink.advance(t)
        sink.advance(10.0)
    stream = make_event(
        "stream", stream="clip", epoch=LIVE.epoch, event_no=0, rev=1, phase="end", t_start=0, t_end=zero + 12,
        t_seen=zero + 12, status="ended", reason="interrupted",
    )  # fmt: skip
    sink.event(stream)
    sink.finish("clip", End("interrupted", 10.0))
    sink.close()


def test_cues_of_all_epochs_stand_in_order_on_one_line_of_time(tmp_path: Path) -> None:
    want = [(4000, 9000), (6000, 10000), (30000, 35000), (32000, 36000)]
    vtt, srt = WebVttSink(tmp_path / "a.vtt"), SrtSink(tmp_path / "a.srt")
    for sink in (vtt, srt):
        two_epochs(sink)
        assert [cue[:2] for cue in libav_cues(sink.path)] == want
    text = vtt.path.read_text()
    note = "NOTE Time 0 is 2026-05-01T10:00:12.500+00:00\n\n"
    assert text.count(note) == 1
    cues = strict_vtt_cues(text.replace(note, ""))
    assert [cue[2] for cue in cues] == ["caption 0", "[a wall]", "caption 1", "[a wall]"]


def test_subtitles_keep_nothing_of_a_cue_in_memory(tmp_path: Path) -> None:
    sink = started(SrtSink(tmp_path / "a.srt"))
    events = [caption(i, 10 * (i + 5 * (i % 2)), 10 * i + 100, "a dog on a beach") for i in range(3000)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for event in events:
        sink.event(event)
    growth = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert growth < 16_000, "32 bytes a cue would be 96,000"
    sink.close()
    cues = libav_cues(sink.path)
    assert len(cues) == 3000 and cues == sorted(cues) and files_beside(sink.path) == []
    numbers = [int(block.split("\n")[0]) for block in sink.path.read_text().split("\n\n")[:-1]]
    assert numbers == list(range(1, 3001))


def test_the_report_tells_of_all_epochs_and_of_the_whole_time(tmp_path: Path) -> None:
    sink = ReportSink(tmp_path / "r.html")
    two_epochs(sink)
    page = Page(sink.path)
    assert page.data["duration"] == 42.0
    assert [row for row in page.rows if row] == [
        ["0:04.0 – 0:09.0", "caption 0"],
        ["0:30.0 – 0:35.0", "caption 1"],
        ["0:06.0 – 0:10.0", "a wall", "0.30"],
        ["0:32.0 – 0:36.0", "a wall", "0.30"],
    ]
    curve = page.data["queries"][0]["curve"]
    assert [t for t, _ in curve] == [t + i / 2 for t in (4.0, 30.0) for i in range(20)]
    assert page.frames[20][0] == 30.0
    for fact in ("0:42", "from 2026-05-01 10:00:12 UTC", "320 × 180", "watched until it was stopped"):
        assert f">{fact}<" in page.text


def test_the_video_shows_what_was_watched_and_says_where_nothing_was(tmp_path: Path) -> None:
    sink = LiveVideoSink(tmp_path / "a.mp4", delay=6.0, rate=2.0)
    two_epochs(sink)
    times, frames = read(sink.path)
    pictures = [t + i / 2 for t in (4.0, 30.0) for i in range(20)]
    assert times == pytest.approx([0.0, *pictures[:20], 14.0, *pictures[20:]], abs=1e-4)
    for t, pixels in zip(times, frames, strict=True):
        if t in (0.0, 14.0):
            assert np.median(pixels) < 8 and pixels.max() > 150, "black, with words"
        else:
            assert abs(np.median(pixels) - 120) < 4
            since = t - (30.0 if t >= 30 else 4.0)
            assert written(pixels) == (since < 5, 2 <= since < 6), t


def test_the_twin_that_waits_too_little_misses_captions(tmp_path: Path) -> None:
    sink = LiveVideoSink(tmp_path / "a.mp4", delay=1.0, rate=2.0)
    two_epochs(sink)
    times, frames = read(sink.path)
    assert not any(written(p)[0] for t, p in zip(times, frames, strict=True) if 4 <= t < 7)


def test_a_gap_of_days_does_not_break_the_video(tmp_path: Path) -> None:
    sink = LiveVideoSink(tmp_path / "a.mp4", rate=2.0)
    two_epochs(sink, zero=200_000.0)
    times, _ = read(sink.path)
    assert times == sorted(times) and times[-1] == pytest.approx(200_009.5, abs=1e-3)
    assert np.diff(times).max() <= 3600.001


def test_another_size_is_fitted_into_the_first_one_and_colours_stay(tmp_path: Path) -> None:
    sink = started(LiveVideoSink(tmp_path / "a.mp4", rate=2.0), "rtsp://host/cam", LIVE)
    colour = np.empty((180, 320, 3), np.uint8)
    colour[:] = (200, 60, 30)
    for epoch, (zero, pixels) in enumerate([(0.0, colour), (1.0, colour[:, :180])]):
        sink.epoch("clip", zero)
        sink.packets("previews", [Frame("clip", epoch, i / 4, pixels, i, (320, 180)) for i in range(4)])
    sink.close()
    _, frames = read(sink.path)
    assert len(frames) == 8 and {f.shape for f in frames} == {(180, 320, 3)}
    for pixels in frames:
        assert np.abs(pixels[90, 160].astype(int) - (200, 60, 30)).max() < 12
    assert frames[7][90, 20].max() < 20 and frames[3][90, 20].max() > 150, "bars where the picture is narrower"


def test_frames_that_wait_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_video, "_MOST_HELD", 10 * 320 * 180 * 3)
    sink = started(LiveVideoSink(tmp_path / "a.mp4"), "rtsp://host/cam", LIVE)
    sink.epoch("clip", 0.0)
    for i in range(50):  # and nothing is ever known of them
        sink.packets("previews", [frame(i / 25)])
        assert len(sink._waiting) <= 10
    sink.close()
    assert len(read(sink.path)[0]) == 50


def test_a_stream_that_never_brought_a_picture_leaves_no_video(tmp_path: Path) -> None:
    sink = started(LiveVideoSink(tmp_path / "a.mp4"), "rtsp://host/cam", LIVE)
    sink.finish("clip", End("interrupted", 0.0))
    sink.close()
    assert not sink.path.exists()


def test_the_video_on_disk_plays_while_the_stream_goes_on(tmp_path: Path) -> None:
    sink = started(LiveVideoSink(tmp_path / "a.mp4", delay=1.0, rate=2.0), "rtsp://host/cam", LIVE)
    sink.epoch("clip", 0.0)
    for i in range(60):
        sink.packets("previews", [frame(i / 2)])
        sink.advance(i / 2)
    with av.open(str(sink.path)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 30
    sink.close()


def batch(epoch: int, t: float, arrival: float | None = None, end: float | None = None) -> Batch:
    wall = WallTime(t, 0.0, "rtcp", 0.0)  # a camera whose clock was never set
    return Batch(
        "clip", epoch=epoch, wall=wall, arrival=arrival, end=None if end is None else End("x", end, final=False)
    )


def test_epochs_lie_where_their_frames_arrived() -> None:
    began = time.monotonic()
    line = Timeline()
    line.begin(SourceInfo("clip", round(time.time() * 1000), 0, 0, live=True))
    assert line.take(batch(7, 3.0, began + 10.0)) and line.zero == pytest.approx(7.0, abs=0.1)
    assert not line.take(batch(7, 4.0, began + 60.0)), "what waited on the way moves nothing"
    assert line.zero == pytest.approx(7.0, abs=0.1)
    assert line.take(batch(8, 0.0, began + 100.0)) and line.zero == pytest.approx(100.0, abs=0.1)


def test_epochs_do_not_overlap_where_a_camera_s_clock_ran_fast() -> None:
    began = time.monotonic()
    line = Timeline()
    line.take(batch(7, 0.0, began + 1.0))
    line.take(batch(7, 50.0, began + 26.0, end=50.5))
    first = line.zero
    assert line.take(batch(8, 0.0, began + 30.0))
    assert line.zero == first + 50.5
    assert line.take(batch(9, 0.0, began + 200.0)) and line.zero == pytest.approx(200.0, abs=0.1)


def test_arrivals_by_another_machine_s_clock_are_not_used() -> None:
    line = Timeline()
    line.take(batch(7, 2.0))
    assert 0 <= line.zero < 5
