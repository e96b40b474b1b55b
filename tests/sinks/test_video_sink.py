"""The annotated video: every frame, right times, text where and when it belongs, playable whatever happens."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage import data as photographs

from onlooker.operators.contract import End
from onlooker.operators.decode import open_video
from onlooker.operators.events import Event
from onlooker.pipeline.errors import OutputError
from onlooker.pipeline.sinks.overlay import Label, OverlayPainter, wrap
from onlooker.pipeline.sinks.video import VideoSink
from tests.videos import MATRICES, set_display_matrix, write_video

from .parts import INFO, caption, complete, query, rss, small_files, started

RGB = npt.NDArray[np.uint8]
GREY = np.full((180, 320, 3), 120, np.uint8)


def grey_video(path: Path, seconds: float = 8, rate: int = 10, **options: Any) -> Path:
    return write_video(path, (GREY for _ in range(round(seconds * rate))), rate=rate, **options)


def annotated(source: Path, target: Path, events: list[Event], end: float, step: float = 1.0) -> Path:
    """Run the sink as a session does: each event when it became known, `advance` every `step` seconds."""
    sink = started(VideoSink(target, delay=3.0), str(source))
    t = 0.0
    waiting = sorted(events, key=lambda event: event.data.t_seen)
    while t < end:
        t += step
        while waiting and waiting[0].data.t_seen <= t:
            sink.event(waiting.pop(0))
        sink.advance(t)
    complete(sink, end)
    return target


def read(path: Path) -> tuple[list[float], list[RGB]]:
    """Media times and RGB frames."""
    with av.open(str(path)) as container:
        frames = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    return [float(t) for t, _ in frames], [pixels for _, pixels in frames]


def written(pixels: RGB) -> tuple[bool, bool]:
    """Whether there is text on a grey frame: (caption at the bottom, chips at the top left)."""
    unlike = np.abs(pixels.astype(int) - 120).max(-1) > 50
    height, width = unlike.shape
    return bool(unlike[height * 2 // 3 :].mean() > 0.01), bool(unlike[: height // 3, : width // 2].mean() > 0.01)


EVENTS = [
    caption(0, 2, 5, "a grey wall"),
    query(0, 1, None, "a wall", seen=1.5),
    query(0, 1, 6.5, "a wall", rev=1),
]


def wanted(times: list[float]) -> list[tuple[bool, bool]]:
    return [(2 <= t < 5, 1 <= t < 6.5) for t in times]


def test_text_stands_on_exactly_the_frames_of_its_span(tmp_path: Path) -> None:
    source = grey_video(tmp_path / "in.mp4")
    times, frames = read(annotated(source, tmp_path / "out.mp4", EVENTS, 8.0))
    assert times == pytest.approx([i / 10 for i in range(80)], abs=1e-4)
    assert [written(pixels) for pixels in frames] == wanted(times)


def test_annotating_too_early_is_noticed(tmp_path: Path) -> None:
    source = grey_video(tmp_path / "in.mp4")
    sink = started(VideoSink(tmp_path / "out.mp4", delay=-3.0), str(source))  # the twin: ahead of what is known
    for t in range(1, 9):
        for event in EVENTS:
            if t - 1 < event.data.t_seen <= t:
                sink.event(event)
        sink.advance(float(t))
    complete(sink, 8.0)
    times, frames = read(tmp_path / "out.mp4")
    assert [written(pixels) for pixels in frames] != wanted(times)


@pytest.mark.parametrize("step", [0.5, 4.0, 8.0])
def test_how_often_the_run_advances_makes_no_difference(tmp_path: Path, step: float) -> None:
    source = grey_video(tmp_path / "in.mp4")
    reference = read(annotated(source, tmp_path / "a.mp4", EVENTS, 8.0))[1]
    other = read(annotated(source, tmp_path / "b.mp4", EVENTS, 8.0, step))[1]
    assert all(np.array_equal(a, b) for a, b in zip(reference, other, strict=True))


def test_pictures_are_those_of_the_source(tmp_path: Path) -> None:
    cat = np.asarray(Image.fromarray(photographs.chelsea()).resize((448, 300)))
    source = write_video(
        tmp_path / "in.mp4", (np.roll(cat, 8 * i, axis=1) for i in range(20)), codec_options={"crf": "12"}
    )
    _, frames = read(annotated(source, tmp_path / "out.mp4", [caption(0, 0, 0.4, "a cat")], 0.8))
    originals = read(source)[1]
    upper = slice(0, 200)  # the caption stands below
    errors = [np.abs(a[upper].astype(int) - b[upper]).mean() for a, b in zip(frames, originals, strict=True)]
    assert max(errors) < 6
    assert np.abs(frames[0][upper].astype(int) - originals[10][upper]).mean() > 15


def test_irregular_times_and_a_late_start_are_kept(tmp_path: Path) -> None:
    ticks = [500, 540, 700, 710, 1900, 2500, 2503]
    source = write_video(tmp_path / "in.mp4", (GREY for _ in ticks), pts=ticks, time_base=Fraction(1, 1000), rate=25)
    with open_video(source, rate=None) as reader:
        media_times = [frame.t for frame in reader]
    times, _ = read(annotated(source, tmp_path / "out.mp4", [], 3.0))
    assert times == pytest.approx(media_times, abs=1e-4)


@pytest.mark.parametrize("turn", MATRICES)
def test_turned_videos_come_out_upright_with_upright_text(tmp_path: Path, turn: str) -> None:
    corner = np.full((120, 200, 3), 120, np.uint8)
    corner[:30, :40] = 235
    source = write_video(tmp_path / "in.mp4", (corner for _ in range(5)), rate=5)
    set_display_matrix(source, MATRICES[turn])
    with open_video(source, rate=None) as reader:
        shown = next(reader).pixels
    plain = read(annotated(source, tmp_path / "plain.mp4", [], 1.0))[1][0]
    assert plain.shape == shown.shape
    assert np.abs(plain.astype(int) - shown).mean() < 4
    text = read(annotated(source, tmp_path / "text.mp4", [caption(0, 0, 1, "a corner")], 1.0))[1][0]
    changed = np.abs(text.astype(int) - plain).max(-1) > 50
    rows = np.flatnonzero(changed.any(1))
    assert rows.size and rows.min() > plain.shape[0] // 2


@pytest.mark.parametrize(
    ("size", "aspect", "want"),
    [
        ((1080, 1920), None, (720, 1280)),
        ((1280, 720), None, (1280, 720)),
        ((1920, 1080), None, (1280, 720)),
        ((90, 160), None, (90, 160)),
        ((720, 1920), None, (480, 1280)),
        ((90, 160), Fraction(4, 3), (90, 214)),
        ((90, 160), Fraction(1, 2), (90, 80)),
    ],
)
def test_sizes(tmp_path: Path, size: tuple[int, int], aspect: Fraction | None, want: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 120, np.uint8)
    source = write_video(tmp_path / "in.mp4", (picture for _ in range(2)), aspect=aspect)
    assert read(annotated(source, tmp_path / "out.mp4", [], 0.08))[1][0].shape[:2] == want


def test_format_is_what_every_player_reads(tmp_path: Path) -> None:
    source = grey_video(tmp_path / "in.mp4")
    with av.open(str(annotated(source, tmp_path / "out.mp4", [], 8.0))) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert "mp4" in container.format.name and not container.streams.audio


def test_hostile_and_endless_text_fits_the_picture(tmp_path: Path) -> None:
    source = grey_video(tmp_path / "in.mp4", 1)
    long = "\n".join(["word " * 200, "x" * 500, "猫 <b>\0\u202e"])
    events = [caption(0, 0, 1, long), *(query(i, 0, 1, f"{i} {long}") for i in range(30))]
    _, frames = read(annotated(source, tmp_path / "out.mp4", events, 1.0))
    assert written(frames[5]) == (True, True)
    assert not (np.abs(frames[5][80:100].astype(int) - 120).max(-1) > 50).all()


def test_wrapping_keeps_words_and_marks_what_is_left_out() -> None:
    font = OverlayPainter(320, 180)._caption_font
    lines = wrap("the quick brown fox jumps over the lazy dog", font, 120, 9)
    assert " ".join(lines) == "the quick brown fox jumps over the lazy dog"
    assert all(font.getlength(line) <= 120 for line in lines) and len(lines) > 1
    short = wrap("the quick brown fox jumps over the lazy dog", font, 120, 2)
    assert len(short) == 2 and short[1].endswith("…") and font.getlength(short[1]) <= 120


def test_blending_matches_pil(tmp_path: Path) -> None:
    """The same label over the same picture, once in YUV planes and once by PIL in RGB."""
    painter = OverlayPainter(320, 180)
    at, box = painter._caption("a grey wall")
    want = Image.fromarray(GREY)
    want.paste(box, at, box)
    frame = av.VideoFrame.from_ndarray(GREY, format="rgb24").reformat(format="yuv420p")
    packed = frame.to_ndarray()
    luma, chroma = packed[:180], packed[180:].reshape(2, 90, 160)
    painter.paint(Label("a grey wall")).apply((luma, chroma[0], chroma[1]))
    got = av.VideoFrame.from_ndarray(packed, format="yuv420p").to_ndarray(format="rgb24")
    assert np.abs(got.astype(int) - np.asarray(want)).mean() < 2


@pytest.mark.parametrize("uri", ["rtsp://user:secret@camera/1", "-", "missing.mp4"])
def test_sources_that_cannot_be_read_twice_are_refused(tmp_path: Path, uri: str) -> None:
    sink = VideoSink(tmp_path / "out.mp4")
    sink.open()
    with pytest.raises(OutputError, match="read twice") as caught:
        sink.start(INFO, uri)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_the_source_is_never_overwritten(tmp_path: Path) -> None:
    source = grey_video(tmp_path / "in.mp4", 1)
    before = source.read_bytes()
    sink = VideoSink(source)
    sink.open()
    with pytest.raises(OutputError, match="is the source itself"):
        sink.start(INFO, str(source))
    sink.close()
    assert source.read_bytes() == before


def test_interrupted_runs_end_where_they_were(tmp_path: Path) -> None:
    source = grey_video(tmp_path / "in.mp4")
    sink = started(VideoSink(tmp_path / "out.mp4", delay=3.0), str(source))
    sink.advance(4.0)
    sink.finish("clip", End("interrupted", 4.5))
    sink.close()
    assert read(tmp_path / "out.mp4")[0][-1] == pytest.approx(4.4)
    sink = started(VideoSink(tmp_path / "closed.mp4", delay=3.0), str(source))
    sink.advance(4.0)
    sink.close()
    sink.close()
    assert read(tmp_path / "closed.mp4")[0][-1] == pytest.approx(3.9)


def test_not_one_frame_leaves_no_file(tmp_path: Path) -> None:
    sink = started(VideoSink(tmp_path / "out.mp4"), str(grey_video(tmp_path / "in.mp4", 1)))
    sink.close()
    assert not (tmp_path / "out.mp4").exists()


def test_a_killed_process_leaves_a_playable_file(tmp_path: Path) -> None:
    source = grey_video(tmp_path / "in.mp4", 20)
    script = (
        "import os, signal, sys\n"
        "from onlooker.operators.contract import SourceInfo\n"
        "from onlooker.pipeline.sinks.video import VideoSink\n"
        f"sink = VideoSink({str(tmp_path / 'out.mp4')!r}, delay=0.0)\n"
        "sink.open()\n"
        f"sink.start(SourceInfo('clip', 0, 320, 180), {str(source)!r})\n"
        "sink.advance(15.0)\n"
        "assert 'torch' not in sys.modules\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == -9
    assert read(tmp_path / "out.mp4")[0][-1] > 8


def test_a_full_disk_is_reported_and_what_was_written_plays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 256, (180, 320, 3), np.uint8) for _ in range(100))
    source = write_video(tmp_path / "in.mp4", noise, rate=10, codec_options={"crf": "35"})
    sink = started(VideoSink(tmp_path / "out.mp4", delay=0.0), str(source))
    with small_files(source.stat().st_size // 2):
        with pytest.raises(OSError):
            for t in range(1, 11):
                sink.advance(float(t))
        with pytest.raises(OSError):
            sink.close()
    with open_video(tmp_path / "out.mp4", rate=None) as reader:
        assert sum(1 for _ in reader) >= 20


def test_memory_stays_flat_over_many_frames_and_events(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", (GREY[:54, :96] for _ in range(3000)), rate=25)
    sink = started(VideoSink(tmp_path / "out.mp4", delay=2.0), str(source))
    before = 0
    for i in range(1, 121):
        for n in range(5):
            sink.event(caption(5 * i + n, i - 1 + n / 5, i - 0.8 + n / 5, f"caption {5 * i + n}"))
        sink.advance(float(i))
        if i == 30:
            before = rss()
    assert rss() - before < 4 << 20
    assert len(sink._labels._spans) < 20  # type: ignore[attr-defined]
    complete(sink, 120.0)
