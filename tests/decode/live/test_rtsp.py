"""Cameras behind a GStreamer RTSP server: killed, hung, replaced, locked."""

from __future__ import annotations

import pytest

from onlooker.operators.decode.live.address import parse_source
from onlooker.operators.decode.live.options import LiveOptions
from onlooker.operators.decode.live.reader import LiveReader

from .sources import CONTINUE, SOUND, STOP, Camera, Log, h264, held, jpeg, needs_gstreamer

pytestmark = needs_gstreamer

FAST = LiveOptions(
    fps=None, size=(48, 64), backoff_first=0.1, backoff_cap=0.4, refused_wait=0.3, stall_after=1.5, reconnect_after=3.0
)


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_and_restarted_again_and_again(times: int) -> None:
    before = held()
    with Camera() as camera, LiveReader(parse_source(camera.url), FAST) as reader:
        log = Log(reader)
        workers = set()
        for _ in range(times):
            log.more_frames(15)
            workers.add(reader.worker_pid)
            camera.kill()
            log.wait_for_state("reconnecting")
            camera.start()
        log.more_frames(15)
        assert len(log.epochs()) > times, "a reconnect starts an epoch"
        assert {epoch.why for epoch in log.epochs()} == {"start"}
        assert len(workers) == times
        counts = reader.counters()
        assert counts["frames_in"] >= counts["frames_delivered"] == len(log.frames()) >= 15 * times
    assert held() == before


def test_a_stall_without_closing_is_noticed_given_up_and_survived() -> None:
    with Camera() as camera, LiveReader(parse_source(camera.url), FAST) as reader:
        log = Log(reader)
        log.more_frames(10)
        camera.signal(STOP)
        stalled = log.wait_for_state("stalled")
        assert stalled.problem is not None and stalled.problem.kind == "stalled"
        lost = log.wait_for_state("reconnecting")
        assert lost.problem is not None and lost.problem.kind in ("stalled", "timeout")
        camera.signal(CONTINUE)
        log.wait_for_state("live")
        log.more_frames(10)


def test_replaced_by_another_resolution_and_codec() -> None:
    with Camera(h264(160, 120)) as camera, LiveReader(parse_source(camera.url), FAST) as reader:
        log = Log(reader)
        log.more_frames(10)
        camera.kill()
        camera.start(jpeg(320, 240))
        log.until(lambda: len(log.epochs()) == 2)
        log.more_frames(10)
        assert [(epoch.size, epoch.codec) for epoch in log.epochs()] == [((160, 120), "h264"), ((320, 240), "mjpeg")]
        assert {frame.pixels.shape for frame in log.frames()} == {(48, 64, 3)}
        assert log.frames()[-1].source_size == (320, 240)


def test_wall_time_is_the_cameras_once_it_reports() -> None:
    with Camera() as camera, LiveReader(parse_source(camera.url), FAST) as reader:
        log = Log(reader)
        log.until(lambda: [frame for frame in log.frames() if frame.wall.source == "rtcp"])
        log.more_frames(25)
        assert log.frames()[0].wall.source == "host", "no report has come with the first frame"
        for frame in log.frames():
            # The camera's clock is this computer's, and it takes the time before it encodes and sends.
            assert frame.arrival_unix - frame.wall.unix > -frame.wall.error - 0.02
            assert frame.wall.error < (0.05 if frame.wall.source == "rtcp" else 60)
        told = [frame for frame in log.frames() if frame.wall.source == "rtcp"]
        offsets = [frame.wall.unix - frame.t for frame in told]
        assert max(offsets) - min(offsets) < 0.05


def test_passwords_of_any_characters_open_and_wrong_ones_are_told_at_once() -> None:
    password = "p@ss/w:rd %#?"
    with Camera(login=f"admin:{password}") as camera:
        with LiveReader(parse_source(camera.url, user="admin", password=password), FAST) as reader:
            Log(reader).more_frames(3)
        with LiveReader(parse_source(camera.url, user="admin", password="wr0ng-s3cret"), FAST) as reader:
            log = Log(reader)
            told = log.wait_for_state("reconnecting")
            assert told.problem is not None and told.problem.kind == "wrong_password"
            assert told.problem.refused and len(log.states()) == 2, "told at the first attempt"
            assert "wr0ng" not in repr(log.items)
            log.wait_for_state("reconnecting", "wrong_password")
            assert reader.counters()["connections"] == 2, "and tried again"


def test_a_path_that_is_not_there_and_a_source_without_picture() -> None:
    with Camera() as camera, LiveReader(parse_source(camera.url + "-none"), FAST) as reader:
        assert Log(reader).wait_for_state("reconnecting").reason == "not_found"
    with Camera(SOUND) as camera, LiveReader(parse_source(camera.url), FAST) as reader:
        Log(reader).wait_for_state("reconnecting", "no_video")


def test_udp_transport() -> None:
    with Camera() as camera, LiveReader(parse_source(camera.url + "?transport=udp"), FAST) as reader:
        Log(reader).more_frames(10)
