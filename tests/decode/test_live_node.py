"""The live source of the graph: news at once, frames by credit, epochs that begin and end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from onlooker.operators.contract import Clip, ClipRequest, Context, SourceOutputs
from onlooker.operators.decode.live_node import LiveCursor, LiveSource, LiveSourceConfig
from onlooker.operators.errors import OnlookerError
from tests.videos import write_video

from .live.sources import PATIENCE, held, wait_until

PATTERN = "lavfi:testsrc2=size=64x48:rate=25"
NOBODY = "rtsp://user:s3cret@127.0.0.1:1/cam"


def opened(uri: str, **config: object) -> LiveSource:
    source = LiveSource(LiveSourceConfig.model_validate({"width": 16, "height": 12, "fps": None, **config}), uri, "cam")
    source.open(Context())
    return source


def outputs(source: LiveSource) -> Iterator[SourceOutputs]:
    """What comes up to the end of the stream."""
    cursor, over = source.initial_cursor(), False
    try:
        while not over:
            cursor, found = source.read(cursor)
            over = found.end is not None and found.end.final
            yield found
    finally:
        source.close()


def test_a_stream_connects_begins_an_epoch_brings_frames_and_ends() -> None:
    before = held()
    source = opened(f"{PATTERN}:duration=1")
    source.credit(1000)
    told = list(outputs(source))
    states = [state for one in told for state in one.states]
    assert [state.status for state in states] == ["connecting", "live"]
    frames = [one for one in told if one.packets]
    assert frames and {one.epoch for one in frames} == {states[-1].epoch}
    assert all(one.watermark == one.packets["frames"][0].t and one.wall is not None for one in frames)
    end = told[-1].end
    assert end is not None and (end.reason, end.final) == ("complete", True)
    assert end.t > frames[-1].watermark
    counts = told[-1].counters
    dropped = sum(number for name, number in counts.items() if name.startswith("frames_dropped_"))
    assert counts["frames_in"] == 25 == len(frames) + dropped
    assert held() == before


def test_frames_come_by_credit_and_the_newest_first_of_all() -> None:
    source = opened(PATTERN)
    source.credit(2)
    stream = outputs(source)
    got = 0
    while got < 2:
        got += bool(next(stream).packets)
    more: list[SourceOutputs] = []
    reading = threading.Thread(target=lambda: more.append(next(stream)), daemon=True)
    reading.start()
    reading.join(1.5)
    assert reading.is_alive() and not more, "no credit, no frame"
    asked = time.monotonic()
    source.credit(1)
    reading.join(PATIENCE)
    assert more[0].arrival is not None and more[0].arrival > asked - 1.0, "taken when asked for, not kept since then"
    source.interrupt()
    assert [one.end.reason for one in stream if one.end is not None] == ["interrupted"]


def test_a_refused_connection_is_told_without_credit_and_without_its_password() -> None:
    source = opened(NOBODY, backoff_first=0.1, backoff_cap=0.2)
    told: list[SourceOutputs] = []
    for one in outputs(source):
        told.append(one)
        if sum(state.status == "reconnecting" for found in told for state in found.states) == 2:
            source.interrupt()
    state = told[1].states[0]
    assert (state.status, state.reason) == ("reconnecting", "port_refused")
    assert state.retry_in is not None and state.message is not None and "port 1" in state.message
    assert told[-1].end is not None and told[-1].end.reason == "interrupted"
    assert "s3cret" not in repr(told) and "s3cret" not in repr(vars(source))


def test_what_has_an_end_waits_for_the_first_credit() -> None:
    source = opened(f"{PATTERN}:duration=1")
    found: list[SourceOutputs] = []
    reading = threading.Thread(target=lambda: found.extend(outputs(source)))
    reading.start()
    reading.join(1.0)
    assert not found
    source.credit(1000)
    reading.join(PATIENCE)
    assert found[-1].counters["frames_delivered"] > 0


def test_interrupt_before_reading_ends_at_once() -> None:
    source = opened(f"{PATTERN}")
    source.interrupt()
    assert [one.end.reason for one in outputs(source) if one.end] == ["interrupted"]


def test_cameras_cannot_wait() -> None:
    with pytest.raises(OnlookerError, match="cannot wait; use policy latest") as caught:
        opened(NOBODY, policy="block")
    assert "s3cret" not in str(caught.value)


def test_a_file_in_real_time_waits_and_loses_nothing(tmp_path: object) -> None:
    path = write_video(f"{tmp_path}/a.mp4", 30)
    source = opened(str(path))
    frames = 0
    source.credit(1)
    for one in outputs(source):
        if one.packets:
            frames += 1
            source.credit(1, time.monotonic() - 100)  # however old, a source that waits is not thinned out
    assert frames == 30


def test_old_frames_lower_the_rate() -> None:
    source = opened(PATTERN, fps=10.0)
    source.credit(1)
    stream = outputs(source)
    for _ in range(40):
        one = next(stream)
        if one.packets:
            source.credit(1, time.monotonic() - 30)
    assert source._reader is not None and source._reader.fps is not None and source._reader.fps < 10
    source.interrupt()
    list(stream)


def test_another_process_goes_on_counting() -> None:
    source = opened(PATTERN)
    source.interrupt()
    _, found = source.read(LiveCursor({"frames_in": 7, "frames_waiting": 2, "frames_delivered": 5, "epochs": 1}))
    assert (found.counters["frames_in"], found.counters["frames_dropped_lost"]) == (7, 2)
    assert (found.counters["frames_waiting"], found.counters["epochs"]) == (0, 1)
    source.close()


def test_times_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="stall_after must not be larger"):
        LiveSourceConfig(stall_after=9, reconnect_after=8)


def test_nothing_is_left_of_a_source_closed_while_it_waits() -> None:
    before = held()
    source = opened(NOBODY, backoff_first=60, backoff_cap=60)
    stream = outputs(source)
    next(stream)
    source.interrupt()
    list(stream)
    wait_until(lambda: held() == before)


def told_clips(source: LiveSource, cursor: LiveCursor) -> list[Clip]:
    """The next answers about clips."""
    deadline = time.monotonic() + PATIENCE
    while not (found := source.read(cursor)[1]).clips:
        assert time.monotonic() < deadline
    return list(found.clips)


def test_a_clip_comes_alone_also_after_the_end_until_the_stream_is_released(tmp_path: Path) -> None:
    before = held()
    source = opened(str(write_video(tmp_path / "a.mp4", 30, gop=10)), record=60.0)
    assert source.lingers
    source.credit(1000)
    cursor, epoch, end = source.initial_cursor(), 0, None
    while end is None:
        cursor, found = source.read(cursor)
        epoch, end = found.epoch or epoch, found.end
    for number, span in ((1, (0.0, 0.5)), (2, (50.0, 51.0))):
        source.clip(ClipRequest(number, epoch, *span))
    first, second = sorted([*told_clips(source, cursor), *told_clips(source, cursor)], key=lambda clip: clip.number)
    assert first.video and first.picture and first.error is None and first.t_start == 0.0
    assert not second.video and second.error is not None and "nothing is kept of this time" in second.error
    threading.Timer(0.5, source.release).start()
    assert source.read(cursor)[1].clips == ()
    assert not source.lingers
    source.close()
    wait_until(lambda: held() == before)


def test_a_clip_that_takes_too_long_is_given_up_and_does_not_come_late(tmp_path: Path) -> None:
    source = opened(str(write_video(tmp_path / "a.mp4", 500, gop=10)), record=60.0)
    source.credit(1)
    cursor, epoch = source.initial_cursor(), 0
    while not epoch:
        cursor, found = source.read(cursor)
        epoch = found.epoch
    assert source._reader is not None and source._reader.worker_pid is not None
    worker = psutil.Process(source._reader.worker_pid)
    worker.suspend()
    source.clip(ClipRequest(1, epoch, 0.0, 1.0))
    [clip] = told_clips(source, cursor)
    assert clip.number == 1 and clip.error == "the clip was not cut in time"
    worker.resume()
    source.clip(ClipRequest(2, epoch, 0.0, 1.0))
    assert [clip.number for clip in told_clips(source, cursor)] == [2]
    source.close()


def test_what_keeps_nothing_does_not_linger() -> None:
    source = opened(PATTERN)
    assert not source.lingers
    source.close()
