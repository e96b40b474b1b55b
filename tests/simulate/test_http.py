"""MJPEG over HTTP: the same camera, pictures one after the other in one response."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from onlooker.pipeline.simulate import SimulatedCamera
from tests.simulate.rtsp_client import wait_for
from tests.simulate.watching import frames, opened, take


@pytest.fixture(scope="module")
def web(video: Path) -> Iterator[SimulatedCamera]:
    with SimulatedCamera(video, protocol="http-mjpeg", user="me", password="secret") as camera:
        yield camera


def test_pictures_are_the_files(web: SimulatedCamera) -> None:
    numbers = [frame.number for frame in take(web.url, 15)]
    assert all(b == (a + 1) % 60 for a, b in itertools.pairwise(numbers))
    assert web.url.startswith("http://me:secret@")


def test_wrong_password_and_wrong_path(web: SimulatedCamera) -> None:
    with pytest.raises(av.error.HTTPUnauthorizedError):
        take(web.public_url, 1)
    with pytest.raises(av.error.HTTPNotFoundError):
        take(web.url.replace("live", "gate"), 1)


def test_faults(web: SimulatedCamera) -> None:
    with opened(web.url) as container:
        playing = frames(container)
        next(playing)
        web.fault("stall", seconds=1)
        seen = [next(playing) for _ in range(40)]
        assert max(b.arrival - a.arrival for a, b in itertools.pairwise(seen)) > 0.5
        web.fault("kill", seconds=0.3)
        with pytest.raises((StopIteration, av.error.FFmpegError)):
            while True:
                next(playing)

    def back() -> bool:
        try:
            return bool(take(web.url, 1))
        except (av.error.FFmpegError, OSError):
            return False

    wait_for(back, "the camera's return")
    web.fault("size", size="160x96")
    assert take(web.url, 1)[0].width == 160
    web.fault("503", seconds=60)
    with pytest.raises(av.error.HTTPServerError):
        take(web.url, 1)
