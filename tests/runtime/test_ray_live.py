"""Live sources in Ray actors: a source that dies with its actor, and one for which there is no room."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from pathlib import Path

import psutil
import pytest

from onlooker.pipeline.config import StageSpec
from onlooker.pipeline.runtime.batch import SourceSpec
from onlooker.pipeline.runtime.ray_runner import RayRunner
from onlooker.pipeline.simulate import SimulatedCamera
from tests.decode.live.sources import free_port
from tests.e2e.live_runs import LiveRun, live_graph
from tests.videos import write_video

pytestmark = pytest.mark.usefixtures("ray_ready")

PATTERN = "lavfi:testsrc2=size=64x48:rate=25"


def source_actors() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is none either
            if "SourceActor" in "".join(process.cmdline()[:1]):
                found.append(process)
    return found


def test_a_source_actor_killed_half_way_is_replaced_in_a_new_epoch() -> None:
    with LiveRun(live_graph(), {"one": PATTERN}, RayRunner) as run:
        run.more_captions("one")
        [actor] = source_actors()
        os.kill(actor.pid, signal.SIGKILL)
        run.until(lambda: len({e.data.media_epoch for e in run.captions("one")}) == 2)
        run.more_captions("one")
    check_epochs = list(dict.fromkeys(e.data.media_epoch for e in run.captions("one")))
    assert check_epochs == sorted(check_epochs)
    assert run.captions("one")[-1].data.media_epoch == check_epochs[-1]


def test_a_source_actor_killed_while_its_camera_is_away_is_replaced_too(tmp_path: Path) -> None:
    video, port = write_video(tmp_path / "a.mp4", 250, gop=25, codec_options={"bf": "0"}), free_port()
    camera = SimulatedCamera(video, port=port)
    graph = live_graph(source={"backoff_first": 60.0, "backoff_cap": 60.0})  # the end of the epoch is the last news
    with LiveRun(graph, {"one": camera.url}, RayRunner) as run:
        run.more_captions("one")
        camera.stop()
        run.until(lambda: run.statuses("one")[-1] == "reconnecting")
        [actor] = source_actors()
        os.kill(actor.pid, signal.SIGKILL)
        with SimulatedCamera(video, port=port):
            run.more_captions("one")
            run.stop()
    assert run.states("one")[-1].data.reason == "interrupted"


def test_a_stream_for_which_a_cluster_has_no_room_ends_and_says_so() -> None:
    graph = live_graph()
    greedy = dataclasses.replace(graph, placement={**graph.placement, "decode": StageSpec(num_cpus=3)})
    with LiveRun(greedy, {"one": PATTERN}, RayRunner) as run:
        run.more_captions("one")
        run.session.add(SourceSpec(PATTERN, "two"))
        run.until(lambda: run.statuses("two") == ["ended"])
        run.more_captions("one")
    told = run.states("two")[0].data
    assert told.reason == "not_opened" and "reserve 3 CPUs, Ray has 1 left" in told.message
