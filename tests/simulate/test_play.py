"""The pictures that clients see are the file's, whatever codec and transport carry them."""

import itertools
from pathlib import Path
from statistics import median

import av
import numpy as np
import pytest

from onlooker.pipeline.simulate import SimulatedCamera
from tests.simulate.conftest import FPS, FRAMES
from tests.simulate.rtsp_client import Rtp, RtspClient
from tests.simulate.watching import Seen, capture_time, frames, opened, take
from tests.videos import numbered_frame, write_video

RATE = 90_000


def assert_paced(seen: list[Seen], fps: int) -> None:
    """Check the timestamps; a camera on a busy machine may now and then take a picture late."""
    times = [frame.pts for frame in seen if frame.pts is not None]
    assert len(times) >= len(seen) - 1  # libav has no time for the first
    steps = [after - before for before, after in itertools.pairwise(times)]
    assert median(steps) == RATE / fps and min(steps) >= RATE / fps


def assert_consecutive(numbers: list[int], modulo: int = FRAMES) -> None:
    assert numbers == [(numbers[0] + place) % modulo for place in range(len(numbers))]


@pytest.mark.parametrize("codec", ["h264", "h265", "mjpeg"])
def test_frames_are_the_files(camera: SimulatedCamera, codec: str) -> None:
    camera.fault("codec", codec=codec)
    for transport in ("tcp", "udp"):
        seen = take(camera.url, 12, transport)
        assert_consecutive([frame.number for frame in seen])
        assert_paced(seen, FPS)
        assert any("plays over " + transport.upper() in line for line in camera.log())
    assert camera.status()["codec"] == codec


def test_size_and_rate_are_as_asked(video: Path) -> None:
    with SimulatedCamera(video, size="160x96", fps=10) as camera:
        seen = take(camera.url, 8)
    assert {frame.width for frame in seen} == {160}
    assert {(b.number - a.number) % FRAMES for a, b in itertools.pairwise(seen)} == {FPS // 10}
    assert_paced(seen, 10)


def test_large_frames_arrive_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 60, (240, 320, 3), np.uint8)
    plain = [numbered_frame(number, 240, 320) for number in range(20)]
    pictures = [np.where(picture > 128, picture - noise, picture + noise) for picture in plain]
    video = write_video(tmp_path / "large.mp4", pictures, codec_options={"bf": "0", "crf": "20"})
    with SimulatedCamera(video) as camera:
        for codec in ("h264", "h265", "mjpeg"):
            if codec != "h264":
                camera.fault("codec", codec=codec)
            before = camera.status()
            assert_consecutive([frame.number for frame in take(camera.url, 6)], 20)
            after = camera.status()
            cuts = (after["packets_sent"] - before["packets_sent"]) / (after["frames_sent"] - before["frames_sent"])
            assert cuts > 4, f"{codec} frames are too small to show anything"


def test_reordered_frames_are_shown_in_order(tmp_path: Path) -> None:
    video = write_video(tmp_path / "b.mp4", FRAMES)
    with SimulatedCamera(video) as camera:
        assert_consecutive([frame.number for frame in take(camera.url, 30)])


def test_timestamps_go_on_where_the_file_starts_over(tmp_path: Path) -> None:
    video = write_video(tmp_path / "short.mp4", 8, gop=4, codec_options={"bf": "0"})
    with SimulatedCamera(video) as camera:
        seen = take(camera.url, 30)
    assert_consecutive([frame.number for frame in seen], 8)
    assert_paced(seen, 25)


def test_files_that_cannot_be_copied_are_encoded(tmp_path: Path) -> None:
    video = write_video(tmp_path / "old.avi", FRAMES, codec="mpeg4")
    with SimulatedCamera(video) as camera:
        assert_consecutive([frame.number for frame in take(camera.url, 10)])
        assert camera.status()["codec"] == "h264"


def test_once_sends_every_frame_once_and_ends(video: Path) -> None:
    with SimulatedCamera(video, once=True) as camera:
        with opened(camera.url) as container:
            seen = [frame.number for frame in frames(container)]
        assert camera.wait(60) == 0
    assert seen == list(range(FRAMES))


def test_two_clients_see_the_same_camera(camera: SimulatedCamera) -> None:
    camera.fault("codec", codec="h264")
    with opened(camera.url) as first, opened(camera.url, "udp") as second:
        shown: list[dict[int, float]] = []
        status = camera.status()
        for container in (first, second):
            stream, times = container.streams.video[0], {}
            for packet in container.demux(stream):
                wall = capture_time(packet)
                if wall:
                    times[round(wall, 2)] = packet.size
                if len(times) == 30:
                    break
            shown.append(times)
        assert status["clients"] == status["playing"] == 2
        # What both saw of the same instant is the same picture.
        common = shown[0].keys() & shown[1].keys()
        assert len(common) > 5
        assert all(shown[0][instant] == shown[1][instant] for instant in common)


def test_a_client_that_does_not_read_costs_the_others_nothing(tmp_path: Path) -> None:
    # 1 MB a second, so that the buffers between a camera and a sleeping client are soon full
    noise = [np.random.default_rng(number).integers(0, 255, (240, 320, 3), np.uint8) for number in range(10)]
    video = write_video(tmp_path / "noise.mp4", noise, rate=25, gop=5, codec_options={"bf": "0", "crf": "10"})
    with SimulatedCamera(video) as camera, RtspClient(camera.url) as sleeper, RtspClient(camera.url) as reader:
        sleeper.play()
        reader.play()
        last = None
        for packet in reader.rtp():
            assert last is None or packet.sequence == last + 1 & 0xFFFF
            last = packet.sequence
            if packet.marker and camera.status()["frames_skipped"] > 10:
                break
        # The sleeper wakes up: what is left out is whole pictures, and the first one after the gap is a key frame.
        previous: Rtp | None = None
        for packet in sleeper.rtp():
            if (
                previous is not None
                and previous.marker
                and packet.timestamp - previous.timestamp & 0xFFFFFFFF > RATE / 25
            ):
                break
            assert previous is None or packet.sequence == previous.sequence + 1 & 0xFFFF
            previous = packet
        assert packet.payload[0] & 0x1F in (5, 24)  # IDR or the parameter sets before it


def test_other_paths_are_not_found(camera: SimulatedCamera) -> None:
    with pytest.raises(av.error.HTTPNotFoundError):
        take(camera.url.replace("live", "gate"), 1)
