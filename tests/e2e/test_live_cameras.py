"""Cameras in the engine: they die, come back, refuse and are added, and nobody else notices."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from onlooker.operators.contract import Control
from onlooker.pipeline.simulate import SimulatedCamera
from tests.decode.live.sources import free_port, held, wait_until
from tests.videos import write_video

from .live_runs import LiveRun, check_stream, live_graph

PATTERN = "lavfi:testsrc2=size=64x48:rate=25"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", 250, gop=25, codec_options={"bf": "0"})


@pytest.fixture(scope="module")
def camera(video: Path) -> Iterator[SimulatedCamera]:
    with SimulatedCamera(video, user="admin", password="p@ss w/rd") as simulated:
        yield simulated


def test_a_camera_killed_and_restarted_goes_on_in_a_new_epoch(video: Path) -> None:
    before = held()
    port = free_port()
    camera = SimulatedCamera(video, port=port)
    with LiveRun(live_graph(), {"door": camera.url}) as run:
        run.more_captions("door")
        camera.stop()
        run.until(lambda: run.statuses("door")[-1] == "reconnecting")
        gone = len(run.events)
        with SimulatedCamera(video, port=port):
            run.until(lambda: run.statuses("door")[-1] == "live")
            run.more_captions("door")
            run.stop()
    assert run.session.exit_code == 130
    counters = check_stream(run, "door")
    assert counters["epochs"] == 2 and counters["connections"] >= 2
    epochs = list(dict.fromkeys(e.data.media_epoch for e in run.captions("door")))
    assert epochs == [e.data.new_epoch for e in run.states("door") if e.data.status == "live"]
    # What the teller keeps for the end of a stream came when the connection was lost, and its state began anew.
    of_first = [e for e in run.captions("door") if e.data.media_epoch == epochs[0]]
    assert of_first[-1].data.text.split()[0] == of_first[-2].data.text.split()[0]
    assert run.events.index(of_first[-1]) <= gone + 2
    assert [e for e in run.captions("door") if e.data.media_epoch == epochs[1]][0].data.text.startswith("1 ")
    lost = next(e for e in run.states("door") if e.data.status == "reconnecting")
    assert lost.data.message and lost.data.retry_in is not None
    wait_until(lambda: held() == before)


def test_wall_times_come_with_their_source_and_bound(camera: SimulatedCamera) -> None:
    with LiveRun(live_graph(source={"fps": 5.0}), {"door": camera.url}) as run:
        run.until(lambda: any(e.data.side.time_source == "rtcp" for e in run.captions("door")))
        run.more_captions("door")
    for event in run.captions("door"):
        side = event.data.side
        assert side is not None and side.wall is not None and side.clock_err_ms is not None
        behind = event.data.media_epoch / 1000 + event.t_start - datetime.fromisoformat(side.wall).timestamp()
        assert abs(behind) < 60
        assert (side.clock_err_ms < 900) == (side.time_source == "rtcp")
    assert check_stream(run, "door")["epochs"] == 1


def test_a_wrong_password_is_told_at_once_and_the_other_camera_does_not_notice(camera: SimulatedCamera) -> None:
    wrong = camera.public_url.replace("://", "://admin:wr0ng@")
    with LiveRun(live_graph(), {"good": camera.url, "locked": wrong, "away": "rtsp://127.0.0.1:1/cam"}) as run:
        run.until(lambda: "reconnecting" in run.statuses("locked") and "reconnecting" in run.statuses("away"))
        run.more_captions("good", 20)
    told = next(e for e in run.states("locked") if e.data.status == "reconnecting").data
    assert told.reason == "wrong_password" and "password" in told.message
    everything = "".join(e.to_json() for e in run.events) + "".join(run.notices)
    assert all(secret not in everything for secret in ("wr0ng", "p@ss", "p%40ss"))
    assert check_stream(run, "good")["connections"] == 1
    for dead in ("locked", "away"):
        assert check_stream(run, dead)["frames_in"] == 0
        assert not run.captions(dead)


@pytest.mark.parametrize("fault", ["pts-jump", "size"])
def test_a_new_line_of_time_ends_one_epoch_and_begins_another(camera: SimulatedCamera, fault: str) -> None:
    with LiveRun(live_graph(), {"door": camera.url}) as run:
        run.more_captions("door")
        camera.fault(fault, **({"jump": -60} if fault == "pts-jump" else {"size": "96x64"}))  # type: ignore[arg-type]
        run.until(lambda: sum(e.data.new_epoch is not None for e in run.states("door")) == 2)
        run.more_captions("door")
    camera.clear()
    assert check_stream(run, "door")["epochs"] == 2
    reasons = [e.data.reason for e in run.states("door") if e.data.new_epoch is not None]
    assert reasons == ["start", "pts_back" if fault == "pts-jump" else "start"]


def test_what_was_told_to_a_stream_holds_in_its_next_epoch(camera: SimulatedCamera) -> None:
    with LiveRun(live_graph(), {"door": camera.url}) as run:
        run.more_captions("door")
        run.session.send(Control("query.add"))
        run.until(lambda: run.captions("door")[-1].data.text.endswith("query.add"))
        camera.fault("pts-jump", jump=-60)
        run.until(lambda: sum(e.data.new_epoch is not None for e in run.states("door")) == 2)
        run.more_captions("door")
    newest = run.captions("door")[-1]
    assert newest.data.text.endswith(" query.add") and newest.data.text.count("query.add") == 1
    assert newest.data.media_epoch != run.captions("door")[0].data.media_epoch


def test_a_source_with_an_end_ends_the_run() -> None:
    with LiveRun(live_graph(), {"one": f"{PATTERN}:duration=2", "two": f"{PATTERN}:duration=1"}) as run:
        run.join()
    assert run.session.exit_code == 0
    for name in ("one", "two"):
        check_stream(run, name)
        assert run.states(name)[-1].data.reason == "complete"


def test_a_source_that_cannot_be_read_at_all_is_wrong_usage() -> None:
    with LiveRun(live_graph(), {"bad": "lavfi:nonsense"}) as run:
        run.join()
    assert run.session.exit_code == 2
    assert run.session.ends["bad"].message is not None
