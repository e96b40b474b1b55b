"""Subscribers beside real buses that end, start again, are killed, and lose messages."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from onlooker.operators.events import CaptionEvent, Event
from onlooker.pipeline.bus.dial import BusBroken, BusUnreachable, KeyRefused
from onlooker.pipeline.bus.inbox import Gap
from onlooker.pipeline.bus.keys import ServerKeys, new_keys
from onlooker.pipeline.bus.receiver import MissedEvents, State
from onlooker.pipeline.bus.record import Record
from onlooker.pipeline.bus.since import moment, start
from onlooker.pipeline.bus.subscriber import Subscription
from onlooker.pipeline.errors import UsageError

from .buses import PATIENCE, BusProcess, bus, caption, eventually, free_address, place, put


@pytest.fixture
def address() -> Iterator[str]:
    with place() as where:
        yield where


def take(events: Subscription, count: int) -> list[Event]:
    taken = []
    for _ in range(count):
        event = events.get(PATIENCE)
        assert event is not None, f"{len(taken)} of {count} came"
        taken.append(event)
    return taken


def texts(events: list[Event]) -> list[str]:
    return [event.data.text for event in events if isinstance(event, CaptionEvent)]


def numbered(first: int, last: int) -> list[str]:
    return [f"number {number}" for number in range(first, last)]


def test_it_waits_for_the_bus_and_gives_typed_events(address: str, tmp_path: Path) -> None:
    states: list[State] = []
    with Subscription(address, since="all", on_state=states.append) as events:
        while not states:
            assert events.get(0.1) is None
        with bus(address, tmp_path / "store") as server:
            put(server, [caption(0), caption(1)])
            assert take(events, 2) == [caption(0), caption(1)]
        assert events.get(0) is None
    assert states == ["waiting", "connected"]


def test_by_default_only_what_is_new_comes(address: str, tmp_path: Path) -> None:
    with bus(address, tmp_path / "store") as server:
        put(server, [caption(0)])
        with Subscription(address) as events:
            while events.position is None:
                assert events.get(0.05) is None
            put(server, [caption(1)])
            assert texts(take(events, 1)) == ["number 1"]
            assert events.last is not None
            assert (events.last.header.seq, events.last.header.run) == (2, "run")


def test_a_position_goes_on_where_it_was_taken(address: str, tmp_path: Path) -> None:
    with bus(address, tmp_path / "store") as server:
        put(server, [caption(number) for number in range(10)])
        with Subscription(address, since="all") as events:
            take(events, 4)
            position = events.position
        with Subscription(address, position=position) as events:
            assert texts(take(events, 6)) == numbered(4, 10)
            assert events.get(0) is None


def test_filters(address: str, tmp_path: Path) -> None:
    with bus(address, tmp_path / "store") as server:
        put(
            server,
            [
                caption(0, "cam1", "a red truck", phase="new"),
                caption(0, "cam1", "a red truck parks", rev=1),
                caption(0, "cam10", "a RED Truck"),
                caption(0, "door", "a dog"),
            ],
        )

        def seen(count: int, **filters: Any) -> list[str]:
            with Subscription(address, since="all", **filters) as events:
                found = texts(take(events, count))
                assert events.get(0.2) is None
                return found

        assert seen(2, stream="cam1") == ["a red truck", "a red truck parks"]
        assert seen(1, stream="cam1", phase="end") == ["a red truck parks"]
        assert seen(2, stream=["cam10", "door"]) == ["a RED Truck", "a dog"]
        assert seen(3, text="truck red") == ["a red truck", "a red truck parks", "a RED Truck"]
        assert seen(0, kinds="query") == []
        assert seen(4, kinds=["query", "caption"]) == ["a red truck", "a red truck parks", "a RED Truck", "a dog"]


def test_bus_is_killed_in_the_middle_and_comes_back(tmp_path: Path) -> None:
    address, store = free_address(), tmp_path / "store"
    gaps: list[Gap] = []
    with Subscription(address, since="all", on_gap=gaps.append) as events:
        with BusProcess(address, store) as process:
            process.publish(0, 50)
            process.publish_on(50, 100_000)
            taken = take(events, 60)
        # What was committed before the kill comes, and nothing else.
        with BusProcess(address, store) as process:
            process.publish(10_000_000, 20)
            while texts(taken)[-1] != "number 10000019":
                taken += take(events, 1)
    before = texts(taken)[:-20]
    assert before == numbered(0, len(before))
    assert texts(taken)[-20:] == numbered(10_000_000, 10_000_020)
    assert not gaps


def test_one_that_does_not_read_misses_nothing(address: str, tmp_path: Path) -> None:
    """Marks at both ends are ten messages; what they drop is replayed."""
    with bus(address, tmp_path / "store", high_water=10) as server:
        for options in ({}, {"stream": "cam1"}):
            first = server.store.last_seq
            with Subscription(address, **options) as events:
                while events.position is None or server.subscribers == 0:
                    events.get(0.05)
                for start_at in range(first, first + 5000, 250):
                    put(server, [caption(number) for number in range(start_at, start_at + 250)])
                assert texts(take(events, 5000)) == numbered(first, first + 5000)


def test_a_lost_store_is_told_and_its_successor_is_read(address: str, tmp_path: Path) -> None:
    gaps: list[Gap] = []
    with Subscription(address, since="all", on_gap=gaps.append) as events:
        with bus(address, tmp_path / "one") as server:
            put(server, [caption(number) for number in range(5)])
            assert texts(take(events, 5)) == numbered(0, 5)
        with bus(address, tmp_path / "two") as server:
            put(server, [caption(number) for number in range(3, 8)])  # of the same run: 3 and 4 were there
            assert texts(take(events, 3)) == numbered(5, 8)
    assert [gap.why for gap in gaps] == ["reset"]


def test_missing_events_are_a_warning_where_nobody_asks(address: str, tmp_path: Path) -> None:
    with bus(address, tmp_path / "one") as server:
        put(server, [caption(0)])
        with Subscription(address, since=99) as events, pytest.warns(MissedEvents, match="position 99"):
            assert texts(take(events, 1)) == ["number 0"]


def test_events_of_tomorrow_come_as_they_are(address: str, tmp_path: Path) -> None:
    with bus(address, tmp_path / "store") as server:
        line = caption(0).to_json()
        smell = line.replace("onlooker.caption.v1", "onlooker.smell.v1").replace("/caption/", "/smell/")
        wider = caption(1).to_json().replace('"text"', '"colour":"red","text"')
        bodies = [smell.replace('"text"', '"odour":"burnt","text"'), wider]
        server.put([Record.from_body(body.encode(), "run") for body in bodies])
        with Subscription(address, since="all") as events:
            unknown, known = take(events, 2)
    assert (unknown.kind, unknown.type) == ("unknown", "onlooker.smell.v1")
    assert unknown.data.odour == "burnt"  # type: ignore[attr-defined]
    assert known == caption(1)


def test_what_cannot_be_read_is_told(address: str, tmp_path: Path) -> None:
    gaps: list[Gap] = []
    with bus(address, tmp_path / "store") as server:
        bare = b'{"id":"a/0/x/0/0","type":"onlooker.x.v1","data":%s}' % (
            b'{"stream":"a","event_id":"a/0/x/0","rev":0,"phase":"end"}'
        )
        server.put([Record.from_body(bare, "run")])
        put(server, [caption(0)])
        with Subscription(address, since="all", on_gap=gaps.append) as events:
            assert take(events, 1) == [caption(0)]
    assert [(gap.why, gap.first) for gap in gaps] == [("unreadable", 1)]


def test_no_bus_is_an_error_after_the_timeout() -> None:
    with (
        Subscription(free_address(), timeout=0.3) as events,
        pytest.raises(BusUnreachable, match="no bus has answered"),
    ):
        events.get()


def test_something_else_than_a_bus_is_told() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as wrong, context.socket(zmq.XPUB) as silent:
        address = free_address()
        silent.bind(address)
        wrong.bind(f"tcp://127.0.0.1:{int(address.rpartition(':')[2]) + 1}")

        def answer() -> None:
            peer, frame = wrong.recv_multipart()
            wrong.send_multipart([peer, frame])

        thread = threading.Thread(target=answer)
        thread.start()
        with Subscription(address) as events, pytest.raises(BusBroken, match="does not speak the protocol"):
            events.get(PATIENCE)
        thread.join()


def keys_of(folder: Path) -> tuple[ServerKeys, Path, Path]:
    public, secret = new_keys("server", folder)
    (folder / "allowed").mkdir()
    client, client_secret = new_keys("client", folder)
    (folder / "allowed" / "client.key").write_bytes(client.read_bytes())
    return ServerKeys.read(secret, folder / "allowed"), client_secret, public


def test_keys_that_fit_and_keys_that_do_not(tmp_path: Path) -> None:
    server_keys, client, public = keys_of(tmp_path)
    other, other_secret = new_keys("other", tmp_path)
    address = free_address()
    with bus(address, tmp_path / "store", server_keys) as server:
        put(server, [caption(0)])
        with Subscription(address, since="all", keys=client, server_key=public) as events:
            assert take(events, 1) == [caption(0)]
        for keys, server_key, told in [
            (other_secret, public, "refuses this key"),
            (client, other, "another key than --server-key says"),
            (None, None, "needs keys"),
        ]:
            with (
                Subscription(address, keys=keys, server_key=server_key) as events,
                pytest.raises(KeyRefused, match=told),
            ):
                events.get(PATIENCE)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"keys": "client.key_secret"}, "needs both"),
        ({"stream": "cam 1"}, "no name of a stream"),
        ({"kinds": ["caption", "k\u00e4se"]}, "no name of a kind"),
        ({"phase": "ended"}, "no phase: 'ended'"),
        ({"position": "x"}, "no position"),
        ({"address": "tcp://127.0.0.1"}, "no address of a bus"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Subscription(**arguments)


def test_nothing_is_left_behind(address: str, tmp_path: Path) -> None:
    def held() -> tuple[int, int]:
        return psutil.Process().num_fds(), threading.active_count()

    with bus(address, tmp_path / "store") as server:
        put(server, [caption(0)])
        Subscription(address, since="all").close()
        before = held()
        for _ in range(5):
            with Subscription(address, since="all") as events:
                take(events, 1)
        with pytest.raises(UsageError, match="closed"):
            events.get()
        assert events.closed and events.position is not None
        eventually(lambda: held()[0] <= before[0] and held()[1] <= before[1])


def test_importing_it_is_light() -> None:
    heavy = "import sys, onlooker; onlooker.subscribe, onlooker.subscribe_async; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout.split()
    assert "zmq" in loaded
    assert not {"torch", "ray", "numpy", "av", "transformers", "sqlite3"} & set(loaded)


def test_since_in_many_words() -> None:
    now = datetime.now(UTC).timestamp()
    for text, ago in (("90s", 90), ("10m", 600), ("1.5h", 5400), ("1d", 86400)):
        assert moment(text) == pytest.approx(now - ago, abs=PATIENCE)
    assert moment(timedelta(minutes=1)) == pytest.approx(now - 60, abs=PATIENCE)
    assert moment("2026-05-01T10:00:00+00:00") == moment(datetime(2026, 5, 1, 10, tzinfo=UTC))
    assert start("118") == start(118) and start(None) is None
    for wrong in ("yesterday", "10 parsecs", "-5", -1, 1 << 60, True, 1.5):
        with pytest.raises(UsageError, match="no time|no number"):
            start(wrong)  # type: ignore[arg-type]


def test_no_warning_by_itself(address: str, tmp_path: Path) -> None:
    with warnings.catch_warnings(), bus(address, tmp_path / "store") as server:
        warnings.simplefilter("error")
        put(server, [caption(0)])
        with Subscription(address, since="1h") as events:
            take(events, 1)
