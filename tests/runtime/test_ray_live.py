"""Live sources in Ray actors: credits, news past the stages, and a source that dies with its actor."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from onlooker.pipeline.errors import UsageError
from onlooker.pipeline.runtime.batch import SourceSpec
from onlooker.pipeline.runtime.ray_runner import RayRunner
from tests.e2e.live_runs import LiveRun, check_stream, live_graph

pytestmark = pytest.mark.usefixtures("ray_ready")

PATTERN = "lavfi:testsrc2=size=64x48:rate=25"


def source_actors() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [p for p in found if "SourceActor" in "".join(p.cmdline()[:1])]


def test_two_streams_run_and_a_third_is_refused() -> None:
    sources = {"one": f"{PATTERN}:duration=3", "away": "rtsp://127.0.0.1:1/cam"}
    with LiveRun(live_graph(), sources, RayRunner) as run:
        run.until(lambda: "ended" in run.statuses("one") and "reconnecting" in run.statuses("away"))
        with pytest.raises(UsageError, match="cannot be added"):
            run.session.add(SourceSpec(PATTERN, "two"))
        assert "two" not in run.session.progress.streams
    counters = check_stream(run, "one")
    assert counters["frames_in"] == 75 and counters["frames_processed"] > 0
    assert check_stream(run, "away")["frames_in"] == 0


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
