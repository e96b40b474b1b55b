"""A video whose frames say their number, and cameras that play it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from onlooker.pipeline.simulate import SimulatedCamera
from tests.videos import write_video

FRAMES, FPS = 60, 50  # 1.2 s


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames at 50 a second, a key frame every 12."""
    return write_video(tmp_path_factory.mktemp("camera") / "numbers.mp4", FRAMES, rate=FPS, codec_options={"bf": "0"})


@pytest.fixture(scope="module")
def shared(video: Path) -> Iterator[SimulatedCamera]:
    """One camera for all tests of a module, with frequent reports."""
    with SimulatedCamera(video, report_interval=0.1) as camera:
        yield camera


@pytest.fixture
def camera(shared: SimulatedCamera) -> Iterator[SimulatedCamera]:
    """The shared camera; faults end with the test."""
    yield shared
    shared.clear()
