"""What the camera says about time: RTCP sender reports, as bare packets and as libav hands them on."""

import itertools
import time
from pathlib import Path
from statistics import median

import pytest

from onlooker.pipeline.simulate import SimulatedCamera
from tests.simulate.rtsp_client import Report, Rtp, RtspClient, wait_for
from tests.simulate.watching import capture_time, opened, sender_report

RATE = 90_000


def first_reports(camera: SimulatedCamera, count: int) -> list[Report]:
    with RtspClient(camera.url) as client:
        client.play()
        return [report for _, report in zip(range(count), client.reports(), strict=False)]


def test_reports_tell_the_cameras_wall_clock(video: Path) -> None:
    with SimulatedCamera(video, clock_offset=-7200.25, report_interval=0.1) as camera:
        # The least delay of many is nearly free of the machine's load; what is left is the loopback's.
        early = min(report.arrival - report.wall for report in first_reports(camera, 8))
        assert 7200.25 - 0.002 < early < 7200.25 + 0.5
        camera.fault("clock", jump=7200.25)
        early = min(report.arrival - report.wall for report in first_reports(camera, 8))
        assert -0.002 < early < 0.5


def test_reports_join_wall_clock_and_timestamps(camera: SimulatedCamera) -> None:
    with RtspClient(camera.url) as client:
        client.play()
        reports: list[Report] = []
        shown: list[Rtp] = []
        for packet in client.packets():
            (reports if isinstance(packet, Report) else shown).append(packet)  # type: ignore[arg-type]
            if len(reports) == 8:
                break
    for before, after in itertools.pairwise(reports):
        ticks = after.timestamp - before.timestamp & 0xFFFFFFFF
        assert abs(ticks / RATE - (after.wall - before.wall)) < 2e-5
    # The counts are those of RFC 3550 section 6.4.1.
    assert reports[-1].packets == len(shown)
    assert reports[-1].octets == sum(len(packet.payload) for packet in shown)
    # Frames are sent when they are taken, never before.
    last = reports[-1]
    ages = [
        packet.arrival - last.wall + (last.timestamp - packet.timestamp & 0xFFFFFFFF) / RATE
        for packet in shown
        if last.timestamp - packet.timestamp & 0xFFFFFFFF < 1 << 31
    ]
    assert -0.002 < min(ages) < 0.5


def test_libav_dates_every_frame(video: Path) -> None:
    offset = 3600.5
    with (
        SimulatedCamera(video, clock_offset=offset, report_interval=0.2) as camera,
        opened(camera.url) as container,
    ):
        delays, reports = [], []
        for packet in container.demux(container.streams.video[0]):
            wall, report = capture_time(packet), sender_report(packet)
            if wall is not None:
                delays.append(time.time() + offset - wall)
            if report:
                reports.append(report)
            if len(delays) == 30:
                break
    assert len(delays) == 30 and len({wall for wall, _ in reports}) > 2
    assert -0.005 < min(delays) < 0.5


def test_a_fast_camera_runs_away(video: Path) -> None:
    with SimulatedCamera(video, clock_drift=500_000, report_interval=0.1) as camera, RtspClient(camera.url) as client:
        client.play()
        first, *_, last = (report for _, report in zip(range(12), client.reports(), strict=False))
    passed = last.arrival - first.arrival
    assert (last.wall - first.wall) / passed == pytest.approx(1.5, abs=0.25)
    assert (last.timestamp - first.timestamp & 0xFFFFFFFF) / RATE / passed == pytest.approx(1.5, abs=0.25)


def test_the_interval_is_kept_and_reports_can_be_off(video: Path, camera: SimulatedCamera) -> None:
    walls = [report.wall for report in first_reports(camera, 8)]
    assert median(b - a for a, b in itertools.pairwise(walls)) >= 0.1
    with SimulatedCamera(video, sender_reports=False) as silent, RtspClient(silent.url) as client:
        client.play()
        kinds = [type(packet) for _, packet in zip(range(30), client.packets(), strict=False)]
        assert kinds == [Rtp] * 30
        assert silent.status()["reports_sent"] == 0


def test_the_fault_no_reports_silences_them_for_a_while(camera: SimulatedCamera) -> None:
    with RtspClient(camera.url) as client:
        client.play()
        packets = client.packets()
        next(packet for packet in packets if isinstance(packet, Report))
        status = camera.fault("no-reports")
        before, before_frames = status["reports_sent"], status["frames_sent"]
        wait_for(lambda: camera.status()["frames_sent"] > before_frames + 10, "frames")
        assert camera.status()["reports_sent"] == before
        camera.clear()
        wait_for(lambda: camera.status()["reports_sent"] > before, "reports")
