"""WebVTT and SRT: read back by libav's own parsers and by a strict reader of the WebVTT grammar."""

from __future__ import annotations

import html
import re
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.events import Event
from onlooker.pipeline.errors import OutputError
from onlooker.pipeline.sinks.subtitles import SrtSink, WebVttSink

from .parts import INFO, caption, files_beside, query, rss, small_files, started

SINKS = pytest.mark.parametrize("kind", [WebVttSink, SrtSink])

Cue = tuple[int, int, str]
"""Start and end in ms, text."""


def write(sink: WebVttSink | SrtSink, *events: Event) -> str:
    started(sink)
    for event in events:
        sink.event(event)
    sink.close()
    return sink.path.read_bytes().decode()


def libav_cues(path: Path) -> list[Cue]:
    """Start, end and raw text of all cues as libav demuxes them."""
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        scale = 1000 * stream.time_base
        return [
            (int(p.pts * scale), int((p.pts + p.duration) * scale), bytes(p).decode())
            for p in container.demux(stream)
            if p.size
        ]


def strict_vtt_cues(text: str) -> list[Cue]:
    """The cues of a WebVTT file, checked line by line against the grammar of the standard."""
    head, *blocks = text.split("\n\n")
    assert head == "WEBVTT" and blocks.pop() == ""
    cues, last = [], 0
    for block in blocks:
        name, timing, *payload = block.split("\n")
        assert "-->" not in name and len(payload) == 1 and payload[0]
        match = re.fullmatch(
            r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})( .+)?", timing
        )
        assert match, timing
        h1, m1, s1, f1, h2, m2, s2, f2 = (int(g) for g in match.groups()[:8])
        start, end = ((h1 * 60 + m1) * 60 + s1) * 1000 + f1, ((h2 * 60 + m2) * 60 + s2) * 1000 + f2
        assert last <= start < end
        last = start
        body = re.sub(r"</?c[^>]*>", "", payload[0])
        assert "<" not in body and ">" not in body and not re.search(r"&(?!amp;|lt;|gt;)", body)
        cues.append((start, end, html.unescape(body)))
    return cues


def test_vtt_captions_and_queries_in_order_of_their_starts(tmp_path: Path) -> None:
    sink = WebVttSink(tmp_path / "clip.vtt")
    text = write(
        sink,
        query(0, 1.0, None, "a dog"),
        caption(0, 0, 5, "two dogs run"),
        caption(1, 5, 10, "one dog sits"),
        query(0, 1.0, 9.25, "a dog", rev=1),
        caption(2, 10, 12.3456, "nothing"),
    )
    want = [
        (0, 5000, "two dogs run"),
        (1000, 9250, "[a dog]"),
        (5000, 10000, "one dog sits"),
        (10000, 12346, "nothing"),
    ]
    assert strict_vtt_cues(text) == want
    assert [cue[:2] for cue in libav_cues(sink.path)] == [cue[:2] for cue in want]
    assert files_beside(sink.path) == []


def test_srt_numbers_and_order(tmp_path: Path) -> None:
    sink = SrtSink(tmp_path / "clip.srt")
    text = write(sink, caption(0, 0, 5, "first"), caption(1, 5, 10, "third"), query(0, 1, 8, "a dog"))
    assert text == (
        "1\n00:00:00,000 --> 00:00:05,000\nfirst\n\n"
        "2\n00:00:01,000 --> 00:00:08,000\n[a dog]\n\n"
        "3\n00:00:05,000 --> 00:00:10,000\nthird\n\n"
    )
    assert libav_cues(sink.path) == [(0, 5000, "first"), (1000, 8000, "[a dog]"), (5000, 10000, "third")]


NASTY = "<b>&amp; --> {\\an8}x\n\n2\r\n00:00:01,000 --> 00:00:02,000\u2028</c>\0 'q\" ünï 猫"


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    vtt = write(WebVttSink(tmp_path / "n.vtt"), caption(0, 0, 5, NASTY), query(0, 5, 6, NASTY))
    cues = strict_vtt_cues(vtt)
    one_line = " ".join(NASTY.replace("\0", " ").split())
    assert [cue[2] for cue in cues] == [one_line, f"[{one_line}]"]
    srt = SrtSink(tmp_path / "n.srt")
    write(srt, caption(0, 0, 5, NASTY), query(0, 5, 6, NASTY))
    cues = libav_cues(srt.path)
    assert [cue[:2] for cue in cues] == [(0, 5000), (5000, 6000)]
    assert not re.search(r"[<>]|\{\\", cues[0][2]) and "猫" in cues[0][2]


def test_the_strict_reader_refuses_unescaped_text() -> None:
    with pytest.raises(AssertionError):
        strict_vtt_cues("WEBVTT\n\na/0/caption/0\n00:00:00.000 --> 00:00:01.000\n<b>&x\n\n")
    with pytest.raises(AssertionError):
        strict_vtt_cues("WEBVTT\n\na\n00:00:05.000 --> 00:00:06.000\nx\n\nb\n00:00:01.000 --> 00:00:02.000\nx\n\n")


@given(
    st.lists(
        st.tuples(st.floats(0, 5e5), st.floats(0, 5e4), st.text(), st.booleans()),
        max_size=8,
    )
)
def test_any_events_give_valid_files(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[float, float, str, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    events = [
        query(i, a, a + d, text) if is_query else caption(i, a, a + d, text)
        for i, (a, d, text, is_query) in enumerate(spans)
    ]
    cues = strict_vtt_cues(write(WebVttSink(folder / "a.vtt"), *events))
    texts = [text for _, _, text, _ in spans if text.replace("\0", " ").strip()]
    assert len(cues) == len(texts)
    write(SrtSink(folder / "a.srt"), *events)
    if texts:
        # libav itself drops some exact repeats
        assert len(set(cues)) <= len(libav_cues(folder / "a.srt")) <= len(cues)


@SINKS
def test_only_settled_facts_and_no_empty_cues(tmp_path: Path, kind: type[WebVttSink]) -> None:
    sink = kind(tmp_path / "clip.sub")
    write(sink, query(0, 1, None, "open"), caption(0, 2, 2, "a single picture"), caption(1, 3, 4, " \n "))
    text = sink.path.read_text()
    assert "open" not in text
    assert re.findall(r"00:00:0\d[.,]\d00", text) == [
        *(("00:00:02.000", "00:00:02.500") if kind is WebVttSink else ("00:00:02,000", "00:00:02,500"))
    ]


@SINKS
def test_more_than_99_hours(tmp_path: Path, kind: type[WebVttSink]) -> None:
    sink = kind(tmp_path / "clip.sub")
    write(sink, caption(0, 360_000.5, 360_001, "late"))
    assert re.search(r"100:00:00[.,]500 --> 100:00:01[.,]000", sink.path.read_text())


@SINKS
def test_the_file_is_valid_after_every_event(tmp_path: Path, kind: type[WebVttSink]) -> None:
    sink = started(kind(tmp_path / ("a.vtt" if kind is WebVttSink else "a.srt")))
    for i in range(5):
        sink.event(caption(i, i, i + 1, f"caption {i}"))
        assert [cue[2] for cue in libav_cues(sink.path)] == [f"caption {n}" for n in range(i + 1)]
    sink.close()
    sink.close()


def test_a_stream_without_cues_is_a_valid_file(tmp_path: Path) -> None:
    assert write(WebVttSink(tmp_path / "a.vtt")) == "WEBVTT\n\n"
    assert write(SrtSink(tmp_path / "a.srt")) == ""


@SINKS
def test_older_files_are_spared_and_permissions_kept(tmp_path: Path, kind: type[WebVttSink]) -> None:
    path = tmp_path / "clip.sub"
    path.write_text("old")
    path.chmod(0o640)
    sink = kind(path)
    sink.open()
    sink.close()
    assert path.read_text() == "old"
    write(kind(path), caption(0, 5, 6, "x"), query(0, 1, 7, "y"))
    assert path.stat().st_mode & 0o777 == 0o640 and files_beside(path) == []


@SINKS
def test_one_stream_only(tmp_path: Path, kind: type[WebVttSink]) -> None:
    sink = started(kind(tmp_path / "clip.sub"))
    with pytest.raises(OutputError, match="takes no second one"):
        sink.start(INFO, "other.mp4")
    sink.close()


@SINKS
def test_a_full_disk_keeps_what_was_written(tmp_path: Path, kind: type[WebVttSink]) -> None:
    sink = started(kind(tmp_path / ("a.vtt" if kind is WebVttSink else "a.srt")))
    with small_files(2000), pytest.raises(OSError):
        for i in range(100):
            sink.event(caption(i, i, i + 1, "a dog on a beach"))
    sink.close()
    assert len(libav_cues(sink.path)) > 10


@SINKS
def test_memory_stays_flat_over_a_day(tmp_path: Path, kind: type[WebVttSink]) -> None:
    sink = started(kind(tmp_path / "clip.sub"))
    for i in range(1000):
        sink.event(caption(i, i, i + 1, "warm up " * 20))
    before = rss()
    for i in range(1000, 18_000):
        sink.event(caption(i, i, i + 1, "a dog on a beach " * 20))
    assert rss() - before < 4 << 20
    sink.close()
