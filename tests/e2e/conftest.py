"""A short video of the demo photographs, made once per test run."""

import subprocess
import sys

import pytest

from onlooker.training.scenes import demo_scenes, write_scenes

SECONDS = 36.0


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """(path of the video, its truth)"""
    path = tmp_path_factory.mktemp("demo") / "demo.mp4"
    return path, write_scenes(demo_scenes(), path, seed=1, total_seconds=SECONDS)


@pytest.fixture
def onlooker():
    """Runs the command in a process of its own."""

    def run(*args, timeout=300, **kwargs):
        command = [sys.executable, "-m", "onlooker.pipeline.cli.main", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, **kwargs)

    return run
