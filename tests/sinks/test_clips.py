"""The folder of clips: bounded, whole files only, and nothing touched that is not its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onlooker.operators.contract import Clip, ClipRequest, SourceInfo
from onlooker.operators.events import Event
from onlooker.pipeline.clips import CLIP_KINDS, Clips, ClipSettings
from onlooker.pipeline.errors import OutputError, UsageError
from onlooker.pipeline.sinks.clips import ClipFolder
from onlooker.pipeline.stream_log import StreamLog
from tests.bus.buses import caption
from tests.e2e.number_reader import reader_graph

from .parts import small_files

VIDEO, PICTURE = b"v" * 900, b"p" * 100


def opened(path: Path, keep: int = 1 << 20) -> ClipFolder:
    folder = ClipFolder(path, keep, CLIP_KINDS)
    folder.open()
    return folder


def write(folder: ClipFolder, number: int, stream: str = "door", video: bytes = VIDEO) -> tuple[str, str | None]:
    return folder.write(f"{stream}/17/query/{number}", video, ".mp4", PICTURE)


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_files_are_named_after_the_event(tmp_path: Path) -> None:
    folder = opened(tmp_path / "clips")
    assert write(folder, 3) == ("door_17_query_3.mp4", "door_17_query_3.jpg")
    assert folder.write("door/17/query/4", VIDEO, ".mkv", b"") == ("door_17_query_4.mkv", None)
    assert names(tmp_path / "clips") == ["door_17_query_3.jpg", "door_17_query_3.mp4", "door_17_query_4.mkv"]
    assert (tmp_path / "clips" / "door_17_query_3.mp4").read_bytes() == VIDEO


def test_the_oldest_give_way_and_the_folder_is_never_larger(tmp_path: Path) -> None:
    folder = opened(tmp_path, 3500)
    for number in range(10):
        write(folder, number)
        assert sum(entry.stat().st_size for entry in tmp_path.iterdir()) <= 3500
    assert names(tmp_path) == sorted(f"door_17_query_{n}.{suffix}" for n in (7, 8, 9) for suffix in ("mp4", "jpg"))
    write(folder, 8, video=b"v" * 2400)  # again, and larger: what it was is no part of the sum
    assert names(tmp_path) == sorted(f"door_17_query_{n}.{suffix}" for n in (8, 9) for suffix in ("mp4", "jpg"))
    with pytest.raises(OSError, match="larger than all clips together"):
        write(folder, 11, video=b"v" * 4000)
    assert len(names(tmp_path)) == 4


def test_clips_of_earlier_runs_count_and_other_files_do_not(tmp_path: Path) -> None:
    first = opened(tmp_path, 10_000)
    for number in range(5):
        write(first, number)
        for suffix in ("mp4", "jpg"):
            os.utime(tmp_path / f"door_17_query_{number}.{suffix}", (number, number))
    others = ["holiday_2020_summer_1.mp4", "query_1.mp4", "door_17_query_1.txt", "notes.jpg"]
    for name in others:
        (tmp_path / name).write_bytes(b"x" * 5000)
        os.utime(tmp_path / name, (0, 0))
    write(opened(tmp_path, 3000), 7, stream="yard")
    left = [f"door_17_query_{n}.{suffix}" for n in (3, 4) for suffix in ("mp4", "jpg")]
    assert names(tmp_path) == sorted([*others, *left, "yard_17_query_7.mp4", "yard_17_query_7.jpg"])


def test_a_full_disk_leaves_no_half_a_clip_and_nothing_counted(tmp_path: Path) -> None:
    folder = opened(tmp_path, 2500)
    write(folder, 1)
    with small_files(500), pytest.raises(OSError):
        write(folder, 2)
    assert names(tmp_path) == ["door_17_query_1.jpg", "door_17_query_1.mp4"]
    write(folder, 3)
    assert len(names(tmp_path)) == 4, "the first was not driven out by what is not there"


def test_a_process_that_dies_leaves_no_half_a_clip_under_its_name(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; import onlooker.pipeline.sinks.clips as m\n"
        "folder = m.ClipFolder(sys.argv[1], 1 << 30, ['query']); folder.open()\n"
        "m.Path.replace = lambda *a: os._exit(9)\n"
        "folder.write('door/17/query/1', b'v' * 100, '.mp4', b'p')\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    [half] = names(tmp_path)
    assert half == ".door_17_query_1.mp4.part"
    opened(tmp_path)
    assert names(tmp_path) == [half], "which may be at work yet"
    os.utime(tmp_path / half, (0, 0))
    opened(tmp_path)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, words in ((tmp_path / "file", "exists"), (tmp_path / "no" / "where", "no such file or directory")):
        with pytest.raises(OutputError, match=words) as error:
            opened(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_only_some_kinds_of_events_have_clips() -> None:
    with pytest.raises(UsageError, match="there are no clips of 'stream'"):
        ClipSettings("clips", ("query", "stream"))


def test_events_that_end_faster_than_clips_are_cut_do_not_pile_up(tmp_path: Path) -> None:
    asked: list[ClipRequest] = []
    notices: list[str] = []

    def ask(stream: str, request: ClipRequest) -> None:
        asked.append(request)

    log = StreamLog("rtsp://door")
    log.begin(SourceInfo("door", 0, 64, 48, time_source="host", live=True), opened=True)
    clips = Clips(ClipSettings(tmp_path), reader_graph(record=60.0), ask, notices.append)
    clips.open()
    told: list[Event] = []
    for number in range(1000):
        told += clips.through({"door": log}, "door", (), iter([caption(number, "door")]))
    assert not told and len(asked) == 1, "the first waits, and all behind it"
    told += clips.through({"door": log}, "door", [Clip(asked[0].number, error="none")], iter(()))
    assert 500 < len(told) < 1000 and len(asked) == 2, "no more wait than can be caught up with"
    told += clips.rest({"door": log})
    assert [event.t_start for event in told] == list(range(1000))
    assert any("faster than clips" in notice for notice in notices)
