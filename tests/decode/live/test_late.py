"""A long queue before a slow consumer: what waits too long gives way, so that the queue cannot only grow old."""

from __future__ import annotations

import time

import pytest

from onlooker.operators.decode.live.address import parse_source
from onlooker.operators.decode.live.options import LiveOptions
from onlooker.operators.decode.live.reader import LiveReader
from onlooker.operators.decode.live_node import LiveSourceConfig

from .sources import Log, check_conservation

AWAY = 4.0


def wait_of_the_next_frame(longest_wait: float | None) -> tuple[float, dict[str, int]]:
    """How long the next frame had waited when the reader came back to a full queue, and the counts."""
    options = LiveOptions(fps=None, size=(24, 32), policy="drop_oldest", queue=500, longest_wait=longest_wait)
    with LiveReader(parse_source("lavfi:testsrc2=size=64x48:rate=25"), options) as reader:
        log = Log(reader)
        log.more_frames(2)
        time.sleep(AWAY)
        log.more_frames(1)  # may have been on its way already
        came_back = time.monotonic()
        log.more_frames(1)
        check_conservation(reader)
        return came_back - log.frames()[-1].arrival, reader.counters()


def test_a_frame_that_waited_too_long_gives_way_to_a_newer_one() -> None:
    """Against the same queue without a limit."""
    old, counts = wait_of_the_next_frame(None)
    assert old > AWAY / 2 and "frames_dropped_late" not in counts
    young, counts = wait_of_the_next_frame(AWAY / 8)
    assert young < old / 2 and counts["frames_dropped_late"] > 0


def test_the_newest_frame_comes_however_old_it_is() -> None:
    options = LiveOptions(fps=None, size=(24, 32), policy="drop_oldest", queue=50, longest_wait=1e-9)
    with LiveReader(parse_source("lavfi:testsrc2=size=64x48:rate=25"), options) as reader:
        Log(reader).more_frames(10)


def test_the_limit_is_the_target_and_none_where_nothing_is_dropped() -> None:
    camera, pattern = parse_source("rtsp://host/a"), parse_source("lavfi:testsrc2")
    assert LiveSourceConfig(target_latency=1.5).options(camera, previews=False).longest_wait == 1.5
    assert LiveSourceConfig(target_latency=None).options(camera, previews=False).longest_wait is None
    assert LiveSourceConfig(policy="block").options(pattern, previews=False).longest_wait is None
    with pytest.raises(ValueError, match="block drops nothing"):
        LiveOptions(policy="block", longest_wait=1.0)
