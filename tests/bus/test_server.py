from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import psutil
import pytest
import zmq

from onlooker.pipeline.bus.protocol import BODY_BYTES, PAGE_EVENTS, REQUEST_BYTES
from onlooker.pipeline.bus.server import BusServer
from onlooker.pipeline.bus.sockets import BusError
from onlooker.pipeline.bus.store import EventStore
from onlooker.pipeline.bus.store_read import StoreError, StoreReader

from .buses import bus, caption, eventually, free_address, place, put, records
from .raw_clients import PATIENCE, client


def test_events_come_with_topic_header_and_body_in_order(tmp_path: Path) -> None:
    events = [caption(0), caption(0, "door"), caption(1)]
    with place() as address, bus(address, tmp_path / "s.db") as server, client(address) as one:
        one.wait()
        before = time.time()
        put(server, events)
        got = one.events(3)
    assert [topic for topic, _, _ in got] == [b"v1/cam1/caption/", b"v1/door/caption/", b"v1/cam1/caption/"]
    assert [(header["seq"], header["prev"], header["run"]) for _, header, _ in got] == [
        (1, 0, "run"),
        (2, 0, "run"),
        (3, 1, "run"),
    ]
    assert {header["epoch"] for _, header, _ in got} == {server.store.epoch}
    assert before - 1 < got[0][1]["time"] <= got[2][1]["time"] < time.time() + 1
    assert [body for _, _, body in got] == [event.to_json().encode() for event in events]


def test_an_event_is_committed_before_it_is_published(tmp_path: Path) -> None:
    with place() as address, bus(address, tmp_path / "s.db") as server, client(address) as one:
        one.wait()
        reader = StoreReader(tmp_path / "s.db")
        writer = threading.Thread(target=lambda: [server.put(records([caption(n)])) for n in range(300)])
        writer.start()
        for _, header, body in one.events(300):
            # Another connection to the file sees it at the moment at which it arrives.
            assert reader.page(header["seq"] - 1).stored[0].body == body
        writer.join()
        reader.close()


def test_heartbeats_tell_the_last_number_and_those_of_streams(tmp_path: Path) -> None:
    with place() as address, bus(address, tmp_path / "s.db", heartbeat=0.05) as server, client(address) as one:
        assert one.next()[0] == b"v1//heartbeat/"
        put(server, [caption(0), caption(0, "door"), caption(1)])
        one.events(3)
        topic, header, body = one.next()
        assert (topic, header["epoch"], header["seq"]) == (b"v1//heartbeat/", server.store.epoch, 3)
        assert json.loads(body) == {"streams": {"cam1": 3, "door": 2}}


def test_requests_are_answered(tmp_path: Path) -> None:
    with place() as address, bus(address, tmp_path / "s.db") as server, client(address) as one:
        put(server, [caption(n, text=f"a dog {n}", phase="new" if n == 7 else "end") for n in range(600)])
        hello, _ = one.ask(op="hello")
        assert (hello["protocol"], hello["seq"], hello["oldest"], hello["commands"]) == (1, 600, 1, False)
        assert hello["limits"]["page_events"] == PAGE_EVENTS and hello["epoch"] == server.store.epoch
        page, frames = one.ask(op="replay", after={"oldest": True}, later_versions="say more")
        assert (page["count"], page["upto"], page["last"], page["reset"], page["lost"]) == (256, 256, 600, False, None)
        assert [json.loads(header)["seq"] for header in frames[::2]] == list(range(1, 257))
        assert one.ask(op="replay", after={"seq": 100}, until=103, limit=2)[0]["upto"] == 102
        assert one.ask(op="replay", after={"time": time.time() + 9})[0]["count"] == 0
        found, frames = one.ask(op="search", text='"dog 17"')
        assert found["count"] == 1 and json.loads(frames[1])["data"]["text"] == "a dog 17"
        snapshot, frames = one.ask(op="snapshot")
        assert (snapshot["count"], snapshot["seq"], snapshot["more"]) == (1, 600, False)
        assert json.loads(frames[0])["seq"] == 8
        [stream] = one.ask(op="streams")[0]["streams"]
        assert (stream["stream"], stream["seq"], stream["open"]) == ("cam1", 600, True)


def test_a_req_socket_is_answered_with_an_empty_frame_before_the_reply(tmp_path: Path) -> None:
    with place() as address, bus(address, tmp_path / "s.db"), zmq.Context() as context, context.socket(zmq.REQ) as one:
        one.connect(f"{address}.requests")
        one.send(b'{"v": 1, "id": "x", "op": "hello"}')
        assert one.poll(PATIENCE * 1000) and json.loads(one.recv())["id"] == "x"


REFUSED = [
    ({"op": "nothing"}, "unknown_op"),
    ({"op": None}, "unknown_op"),
    ({"op": "hello", "v": 2}, "version"),
    ({"op": "hello", "v": "1"}, "version"),
    ({"op": "replay"}, "bad_request"),
    ({"op": "replay", "after": {"seq": -1}}, "bad_request"),
    ({"op": "replay", "after": {"seq": "1"}}, "bad_request"),
    ({"op": "replay", "after": {"seq": 1 << 60}}, "bad_request"),
    ({"op": "replay", "after": {"time": "now"}}, "bad_request"),
    ({"op": "replay", "after": {"oldest": False}}, "bad_request"),
    ({"op": "replay", "after": {"seq": 1}, "limit": 100_000}, "bad_request"),
    ({"op": "replay", "after": {"seq": 1}, "streams": "cam1"}, "bad_request"),
    ({"op": "replay", "after": {"seq": 1}, "streams": ["a/b"]}, "bad_request"),
    ({"op": "replay", "after": {"seq": 1}, "kinds": ["x"] * 300}, "bad_request"),
    ({"op": "search"}, "bad_request"),
    ({"op": "search", "text": "\ud800"}, "bad_request"),
    ({"op": "search", "text": "x" * 2000}, "bad_request"),
    ({"op": "query.add", "text": "a cat"}, "not_allowed"),
    ({"op": "stream.add", "source": "rtsp://host/"}, "not_allowed"),
]


@pytest.mark.parametrize(("members", "code"), REFUSED)
def test_what_cannot_be_done_is_refused_with_a_reason(members: dict[str, object], code: str, tmp_path: Path) -> None:
    with place() as address, bus(address, tmp_path / "s.db"), client(address) as one:
        reply, frames = one.ask(**members)
        assert reply["ok"] is False and reply["error"]["code"] == code and not frames
        assert reply["error"]["message"] and one.ask(op="hello")[0]["ok"]


UNREADABLE = [
    b"",
    b"\0\xff",
    b"[]",
    b"7",
    b'{"v": 1, "op": "hello"}',
    b'{"v": 1, "id": 7, "op": "hello"}',
    b'{"v": 1, "id": "\\ud800", "op": "hello"}',
    b'{"v": 1, "id": "' + b"x" * 65 + b'", "op": "hello"}',
    b'{"v": 1, "id": ' + b"[" * 30_000,
    b'{"v": 1, "id": ' + b"9" * 30_000 + b"}",
]


@pytest.mark.parametrize("message", UNREADABLE)
def test_what_is_no_request_is_passed_over(message: bytes, tmp_path: Path) -> None:
    with place() as address, bus(address, tmp_path / "s.db") as server, client(address) as one:
        one.dealer.send(message)
        assert one.ask(op="hello")[0]["id"] == "1" and server.counters()["malformed"] == 1


def test_too_many_and_too_large_frames_end_only_the_connection_that_sent_them(tmp_path: Path) -> None:
    with place() as address, bus(address, tmp_path / "s.db") as server, client(address) as good:
        assert good.ask(op="hello")[0]["ok"]
        with client(address) as bad:
            bad.dealer.send_multipart([b'{"v": 1, "id": "1", "op": "hello"}'] * 1000)
            eventually(lambda: server.counters()["cut"] == 1)
        with client(address) as bad:
            bad.dealer.send(b'{"v": 1, "id": "1", "op": "hello", "x": "' + b"x" * REQUEST_BYTES + b'"}')
            assert not bad.dealer.poll(500)
        assert good.ask(op="hello")[0]["ok"]


def test_pages_stay_below_their_size(tmp_path: Path) -> None:
    with place() as address, bus(address, tmp_path / "s.db") as server, client(address) as one:
        put(server, [caption(n, text="x" * (BODY_BYTES - 1000)) for n in range(9)])
        page, frames = one.ask(op="replay", after={"seq": 0})
        assert (page["count"], page["upto"], page["last"]) == (4, 4, 9) and sum(map(len, frames)) < 4 << 20


def test_a_subscriber_that_does_not_read_delays_nobody(tmp_path: Path) -> None:
    with (
        place() as address,
        bus(address, tmp_path / "s.db", high_water=10) as server,
        client(address) as one,
        client(address) as stalled,
    ):
        eventually(lambda: server.subscribers == 2)
        one.wait()
        stalled.wait()
        stalled.sub.rcvhwm = 1
        for number in range(300):
            server.put(records([caption(number, text="x" * 200_000)]))
            assert one.events(1)[0][1]["seq"] == number + 1
        with pytest.raises(TimeoutError):  # it did lose some
            stalled.events(300, seconds=2)


def test_numbers_go_on_under_a_new_epoch(tmp_path: Path) -> None:
    epochs = set()
    with place() as address:
        for start in range(3):
            with bus(address, tmp_path / "s.db") as server, client(address) as one:
                one.wait()
                put(server, [caption(start)])
                [(_, header, _)] = one.events(1)
                assert header["seq"] == start + 1
                epochs.add(header["epoch"])
    assert len(epochs) == 3


def test_the_last_events_are_there_after_closing_at_once(tmp_path: Path) -> None:
    with place() as address, bus(address, tmp_path / "s.db") as server, client(address) as one:
        one.wait()
        server.put(records([caption(n) for n in range(3000)]))
        server.close()
        assert server.store.last_seq == 3000
        reader = StoreReader(tmp_path / "s.db")
        assert reader.bounds() == (1, 3000)
        reader.close()


def test_an_address_in_use_is_told(tmp_path: Path) -> None:
    tcp = free_address()
    with place() as ipc:
        for address in (tcp, ipc):
            with bus(address, tmp_path / "s.db") as first:
                second = BusServer(address, EventStore(tmp_path / "t.db"))
                with pytest.raises(BusError, match="is in use") as told:
                    second.start()
                assert "\n" not in str(told.value)
                second.close()
                with client(address) as one:  # it has taken nothing from the first
                    put(first, [caption(0)])
                    assert one.ask(op="hello")[0]["seq"] == first.store.last_seq
            with bus(address, tmp_path / "t.db"):  # and left nothing behind
                pass


def test_two_buses_cannot_write_one_store(tmp_path: Path) -> None:
    with place() as address, place() as other, bus(address, tmp_path / "s.db"):
        second = BusServer(other, EventStore(tmp_path / "s.db"))
        with pytest.raises(StoreError, match="another bus writes"):
            second.start()


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    process = psutil.Process()

    def serve_once() -> None:
        with bus(free_address(), tmp_path / "s.db") as server, client(server.addresses.events) as one:
            one.wait()
            put(server, [caption(0)])
            assert one.ask(op="search", text="number")[0]["ok"]

    serve_once()
    threads, files = threading.active_count(), process.num_fds()
    for _ in range(3):
        serve_once()
    assert threading.active_count() == threads
    eventually(lambda: process.num_fds() <= files)
    assert not [name for name in os.listdir(tmp_path) if name.endswith("-wal")]
