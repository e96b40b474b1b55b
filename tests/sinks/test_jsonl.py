"""The event log: whole lines at any moment, older files spared until a run has started."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from onlooker.operators.events import Side, canonical_line, parse_event
from onlooker.pipeline.errors import OutputError
from onlooker.pipeline.sinks.jsonl import JsonlSink

from .parts import INFO, caption, files_beside, query, small_files, started


def test_every_event_is_readable_at_once_and_parses_back(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = started(JsonlSink(path))
    events = [caption(0, 0, 5, "a dög"), query(0, 1, None, "x\n\u2028<b>"), query(0, 1, 6, "x\n\u2028<b>", rev=1)]
    for number, event in enumerate(events, 1):
        sink.event(event)
        lines = path.read_bytes().split(b"\n")
        assert len(lines) == number + 1 and lines[-1] == b""
    assert [parse_event(line) for line in path.read_bytes().split(b"\n")[:-1]] == events
    sink.close()


def test_canonical_log_leaves_out_what_depends_on_the_machine(tmp_path: Path) -> None:
    event = caption(0, 0, 5, "a dog").with_side(Side(time_source="file", latency_ms={"decode": 3.0}))
    logs = []
    for canonical in (False, True):
        sink = started(JsonlSink(tmp_path / f"{canonical}.jsonl", canonical=canonical))
        sink.event(event)
        sink.close()
        logs.append((tmp_path / f"{canonical}.jsonl").read_text())
    assert "latency_ms" in logs[0] and "side" not in logs[1]
    assert canonical_line(logs[0]) + "\n" == logs[1]


def test_standard_output(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    sink = started(JsonlSink("-"))
    sink.event(caption(0, 0, 5, "a dog"))
    sink.close()
    assert parse_event(capsysbinary.readouterr().out).data.event_id == "clip/0/caption/0"
    assert not Path("-").exists()


def test_many_streams_share_one_log(tmp_path: Path) -> None:
    sink = started(JsonlSink(tmp_path / "log"))
    sink.event(caption(0, 0, 5, "one"))
    sink.start(INFO, "other.mp4")
    sink.event(caption(0, 0, 5, "two", stream="other"))
    sink.close()
    assert len((tmp_path / "log").read_text().splitlines()) == 2


def test_an_older_log_survives_a_run_that_does_not_start(tmp_path: Path) -> None:
    old, fresh = tmp_path / "old.jsonl", tmp_path / "fresh.jsonl"
    old.write_text("precious\n")
    for path in (old, fresh):
        sink = JsonlSink(path)
        sink.open()
        sink.close()
    assert old.read_text() == "precious\n"
    assert not fresh.exists()
    started(JsonlSink(old)).close()
    assert old.read_text() == ""


@pytest.mark.parametrize("where", ["missing/events.jsonl", "."])
def test_unwritable_paths_are_refused_before_the_run(tmp_path: Path, where: str) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        JsonlSink(tmp_path / where).open()


def test_the_source_is_never_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(b"video")
    sink = JsonlSink(source)
    sink.open()
    with pytest.raises(OutputError, match="is the source itself"):
        sink.start(INFO, str(source))
    sink.close()
    assert source.read_bytes() == b"video"


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = started(JsonlSink(path))
    written = 0
    with small_files(4096), pytest.raises(OSError):
        for number in range(100):
            sink.event(caption(number, number, number + 1, "a dog on a beach"))
            written += 1
    sink.close()
    lines = path.read_bytes().split(b"\n")
    assert lines[-1] == b"" and len(lines) == written + 1 and written > 5
    assert all(parse_event(line) for line in lines[:-1])


def test_a_named_pipe_is_written_as_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    sink = started(JsonlSink(pipe))
    sink.event(caption(0, 0, 5, "a dog"))
    sink.close()
    reader.join(10)
    assert parse_event(got[0]).kind == "caption"
    assert files_beside(pipe) == []
