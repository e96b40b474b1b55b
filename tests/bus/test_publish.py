"""Runs publish on a bus of their own or through another, and take commands from it."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onlooker.operators.contract import SourceInfo
from onlooker.operators.events import AlarmData, parse_event
from onlooker.pipeline.bus import handover
from onlooker.pipeline.bus.handover import Handover
from onlooker.pipeline.bus.intake import GROUP, Given
from onlooker.pipeline.bus.server import BusServer
from onlooker.pipeline.bus.store import EventStore
from onlooker.pipeline.bus.store_read import StoreReader
from onlooker.pipeline.cli.main import main
from onlooker.pipeline.commands import SessionCommands
from onlooker.pipeline.errors import OutputError
from onlooker.pipeline.runtime.local import LocalRunner
from onlooker.pipeline.secrets import Secrets
from onlooker.pipeline.session import Session
from onlooker.pipeline.sinks import bus as bus_sinks
from onlooker.pipeline.sinks.bus import BusSink, HandoverSink
from tests.e2e.live_runs import LiveRun, live_graph
from tests.runtime.graphs import counter_graph, specs

from .buses import bus, caption, eventually, place, records
from .raw_clients import client

PATTERN = "lavfi:testsrc=size=64x48:rate=10"


def say_nothing(line: str) -> None:
    return


def stored(path: Path) -> list[str]:
    """The events of a store as lines of the log."""
    reader = StoreReader(path)
    page = reader.page(0)
    reader.close()
    assert page.upto == page.last
    return [parse_event(one.body).to_json() for one in page.stored]


def test_a_run_with_a_bus_of_its_own_stores_its_log(tmp_path: Path) -> None:
    with place() as address:
        sink = BusSink(BusServer(address, EventStore(tmp_path / "s.db")), say_nothing)
        session = Session(counter_graph(), LocalRunner, specs("cam", "door"), [sink])
        log = [event.to_json() for event in session.events()]
    assert session.exit_code == 0 and log and stored(tmp_path / "s.db") == log


def test_a_run_hands_its_log_over_to_a_bus(tmp_path: Path) -> None:
    with place() as address, bus(address, tmp_path / "s.db", ingest=True) as server:
        sink = HandoverSink(Handover(address), say_nothing)
        session = Session(counter_graph(), LocalRunner, specs("cam", "door"), [sink])
        log = [event.to_json() for event in session.events()]
        assert session.exit_code == 0
        eventually(lambda: server.counters()["runs"] == 0)  # the goodbye is read a moment later
    assert log and stored(tmp_path / "s.db") == log


def test_live_events_that_find_no_room_are_told_of_where_they_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_sinks, "_PATIENCE", 0.05)
    notices: list[str] = []
    free = threading.Event()

    def wait_until_free() -> None:
        free.wait(60)

    with place() as address:
        server = BusServer(address, EventStore(tmp_path / "s.db"))
        sink = BusSink(server, notices.append)
        sink.open()
        try:
            # The publishing thread waits, so that the queue fills up.
            server.give(Given(records([caption(0)]), done=wait_until_free))
            filling = records([caption(number, "fill") for number in range(GROUP)])
            while server.give(Given(filling), 0.05):
                pass
            while server.put(filling[:1], 0.05):
                pass
            for number in (1, 2):  # also of a camera that could not be opened, and so never started
                sink.event(caption(number))
            assert sink.lost == 2 and len(notices) == 1
            free.set()
            assert server.flush(60)
            sink.start(SourceInfo("cam1", 0, 64, 48, time_source="host", live=True), "rtsp://x")
            sink.event(caption(3))
            sink.event(caption(4))
            assert server.flush(60)
        finally:
            free.set()
            with pytest.raises(OutputError, match="2 events were not published"):
                sink.close()
    told = [parse_event(one.body) for one in _all_stored(tmp_path / "s.db")]
    after = [e.data for e in told if e.data.stream != "fill"]
    assert [(e.stream, e.event_id.rpartition("/")[2]) for e in after if e.stream != "bus"] == [
        ("cam1", "0"),
        ("cam1", "3"),
        ("cam1", "4"),
    ]
    assert [e.stream for e in after] == ["cam1", "bus", "cam1", "cam1"]
    assert isinstance(after[1], AlarmData)
    assert (after[1].code, after[1].message[:9]) == ("events_lost", "2 events ")


@pytest.fixture
def deserted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[HandoverSink, list[str]]]:
    """A sink whose bus went away with more events unconfirmed than may be, and what it tells its user."""
    monkeypatch.setattr(bus_sinks, "_PATIENCE", 0.3)
    monkeypatch.setattr(handover, "UNCONFIRMED", 2)
    notices: list[str] = []
    with place() as address:
        with bus(address, tmp_path / "s.db", ingest=True):
            sink = HandoverSink(Handover(address), notices.append)
            sink.open()
        yield sink, notices
        with pytest.raises(OutputError, match="has not taken the last 2 events"):
            sink.close()


def test_a_live_run_goes_on_without_its_bus_and_ends_with_an_error(deserted: tuple[HandoverSink, list[str]]) -> None:
    sink, notices = deserted
    sink.start(SourceInfo("cam1", 0, 64, 48, time_source="host", live=True), "rtsp://x")
    for number in range(4):
        sink.event(caption(number))
    assert sink.lost == 2 and len(notices) == 1
    sink.hurry()


def test_a_file_waits_for_its_bus_until_the_user_has_had_enough(deserted: tuple[HandoverSink, list[str]]) -> None:
    sink, _ = deserted
    sink.start(SourceInfo("cam1", 0, 64, 48), "x.mp4")
    for number in range(2):
        sink.event(caption(number))
    waiting = threading.Thread(target=sink.event, args=(caption(2),), daemon=True)
    waiting.start()
    waiting.join(2.0)
    assert waiting.is_alive() and sink.lost == 0
    sink.hurry()  # what Ctrl-C does
    waiting.join(60)
    assert not waiting.is_alive() and sink.lost == 1


def _all_stored(path: Path) -> list[Any]:
    reader = StoreReader(path)
    pages = [reader.page(0)]
    while pages[-1].upto < pages[-1].last:
        pages.append(reader.page(pages[-1].upto))
    reader.close()
    return [one for page in pages for one in page.stored]


def test_commands_reach_a_run_and_give_away_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGIN", "user:geheim")
    secrets = tmp_path / "cams.env"
    secrets.write_text("LOGIN=user:geheim")
    secrets.chmod(0o600)
    commands = SessionCommands(Secrets(secrets))
    with place() as address:
        server = BusServer(address, EventStore(tmp_path / "s.db"), commands=commands, notice=say_nothing)
        with (
            LiveRun(live_graph(), {"cam": PATTERN}, sinks=[BusSink(server, say_nothing)]) as run,
            client(address) as one,
        ):
            reply, _ = one.ask(op="query.add", text="a dog")
            assert reply["error"]["code"] == "unavailable"  # the run is not there yet
            commands.attach(run.session)
            run.until(lambda: run.captions("cam"))
            assert one.ask(op="query.add", text="a dog")[0]["accepted"] == 1
            assert one.ask(op="query.add", text="a dog", stream="nix")[0]["error"]["code"] == "unknown_stream"
            assert "obeys" in one.ask(op="ask", stream="cam")[0]["error"]["message"]
            for source in ("/etc/passwd", "file:/etc/passwd", "lavfi:movie=/etc/passwd"):
                reply, _ = one.ask(op="stream.add", source=source)
                assert "only cameras" in reply["error"]["message"]
            # A variable of the environment could be sent to any host; the secrets file is there for cameras.
            said = [one.ask(op="stream.add", source="rtsp://${env:LOGIN}@127.0.0.1:1/x", stream="x")[0]]
            said.append(one.ask(op="stream.add", source="rtsp://${secret:NONE}@127.0.0.1:1/x", stream="x")[0])
            said.append(one.ask(op="stream.add", source="rtsp://${secret:LOGIN}@127.0.0.1:1/x", stream="y")[0])
            assert [reply["ok"] for reply in said] == [False, False, True] and said[2]["stream"] == "y"
            run.until(lambda: run.states("y"))
            assert one.ask(op="stream.remove", stream="y")[0]["accepted"] == 1
            run.until(lambda: "ended" in run.statuses("y"))
            assert "geheim" not in str(said) + "".join(event.to_json() for event in run.events)
            commands.close()
            assert one.ask(op="query.add", text="a cat")[0]["error"]["code"] == "unavailable"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--publish", "tcp://0.0.0.0:5571"], "onlooker keys new server"),
        (["--publish", "tcp://127.0.0.1"], "no address of a bus"),
        (["--publish", "tcp://127.0.0.1:5571", "--bus", "tcp://127.0.0.1:5571"], "choose one"),
        (["--publish", "tcp://127.0.0.1:5571", "--keys", "k"], "belong together"),
        (["--bus", "tcp://127.0.0.1:5571", "--keys", "k"], "belong together"),
        (["--store", "s.db"], "belongs to --publish"),
        (["--commands"], "belongs to --publish"),
        (["--bus", "tcp://127.0.0.1:5571", "--bridge", "https://h/"], "--bridge belongs to --publish"),
    ],
)
def test_options_that_make_no_sense_are_told(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "video.mp4", *options]) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1


@pytest.mark.parametrize(("text", "bytes_"), [("500M", 500 << 20), ("2g", 2 << 30), ("1.5 GiB", 3 << 29)])
def test_sizes(text: str, bytes_: int) -> None:
    from onlooker.pipeline.cli.bus_options import size

    assert size(text) == bytes_
    for wrong in ("", "x", "5", "-1G"):
        with pytest.raises(argparse.ArgumentTypeError):
            size(wrong)
