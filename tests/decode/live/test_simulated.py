"""Faults that only our own camera can have on command: its clock, its time stamps, noise in its protocol."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from onlooker.operators.decode.live import LiveFrame, LiveOptions, LiveReader, parse_source
from onlooker.pipeline.simulate import SimulatedCamera
from tests.videos import write_video

from .sources import Log

OPTIONS = LiveOptions(
    fps=None, size=(48, 64), backoff_first=0.1, backoff_cap=0.5, refused_wait=0.4, stall_after=2, reconnect_after=5
)


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedCamera]:
    video = write_video(tmp_path_factory.mktemp("video") / "a.mp4", 250, gop=25, codec_options={"bf": "0"})
    with SimulatedCamera(video, user="admin", password="p@ss w/rd") as simulated:
        yield simulated


def reader_of(camera: SimulatedCamera) -> LiveReader:
    return LiveReader(parse_source(camera.url), OPTIONS)


def test_a_clock_that_jumps_by_an_hour_is_followed_and_event_time_does_not_notice(camera: SimulatedCamera) -> None:
    with reader_of(camera) as reader:
        log = Log(reader)

        def last() -> LiveFrame:
            return log.frames()[-1]

        def ahead(frame: LiveFrame) -> float:
            return frame.wall.unix - frame.arrival_unix

        log.until(lambda: log.frames() and last().wall.source == "rtcp")
        normal = ahead(last())
        assert abs(normal) < 30
        camera.fault("clock", jump=3600)
        log.until(lambda: ahead(last()) > 1800)
        at_once = [ahead(frame) - normal for frame in log.frames() if frame.wall.source == "rtcp"]
        assert all(abs(value) < 30 or abs(value - 3600) < 30 for value in at_once), "nothing in between"
        assert last().wall.source == "rtcp" and last().wall.error < 0.05
        assert len(log.epochs()) == 1


def test_time_stamps_that_jump_or_freeze_start_epochs_on_the_same_connection(camera: SimulatedCamera) -> None:
    with reader_of(camera) as reader:
        log = Log(reader)
        log.more_frames(30)
        for fault, why in (({"jump": -60}, "pts_back"), ({"jump": 60}, "pts_forward")):
            camera.fault("pts-jump", **fault)
            log.until(lambda: log.epochs()[-1].why == why)  # noqa: B023
            log.more_frames(10)
        camera.fault("pts-freeze", seconds=4)
        log.until(lambda: log.epochs()[-1].why == "pts_stuck")
        log.more_frames(40)
        assert log.frames()[-1].t == pytest.approx(log.frames()[-1].arrival - log.frames()[-40].arrival, abs=5)
        assert reader.counters()["connections"] == 1


@pytest.mark.slow
def test_noise_between_the_messages_ends_in_a_new_connection_at_worst(camera: SimulatedCamera) -> None:
    with reader_of(camera) as reader:
        log = Log(reader)
        log.more_frames(10)
        camera.fault("garbage-rtsp", seconds=1)
        camera.fault("reset")
        log.wait_for_state("live")
        log.more_frames(20)
        assert "crashed" not in {state.reason for state in log.states()}


@pytest.mark.slow
def test_refusals_on_the_way_are_told_and_forgotten(camera: SimulatedCamera) -> None:
    with reader_of(camera) as reader:
        log = Log(reader)
        log.more_frames(5)
        for fault, reason in (("401", "wrong_password"), ("503", "server_error")):
            camera.fault(fault, seconds=600)
            told = log.wait_for_state("reconnecting", reason)
            assert told.problem is not None and "p@ss" not in repr(log.items)
            camera.clear()
            log.wait_for_state("live")
            log.more_frames(5)
