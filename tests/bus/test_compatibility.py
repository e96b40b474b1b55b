"""Nothing that version 1 of the protocol and of the events promises may change.

``samples/v1`` holds what version 1 wrote: events, messages, requests and the replies to them. They are never written
anew. Today's readers have to read all of it, and today's writers have to write at least what it has.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from onlooker.operators.events import event_json_schema, parse_event
from onlooker.pipeline.bus.inbox import BusRefusal, Inbox, Position, read_events, read_reply
from onlooker.pipeline.bus.protocol import Addresses, Header, loads
from onlooker.pipeline.bus.reading import UnknownEvent, read_event
from onlooker.pipeline.bus.record import Record
from onlooker.pipeline.bus.requests import Command, RequestError, check
from onlooker.pipeline.bus.server import BusServer

from .buses import PATIENCE, bus, place, put

SAMPLES = Path(__file__).parent / "samples" / "v1"


def lines(name: str) -> list[Any]:
    return [json.loads(line) for line in (SAMPLES / name).read_text().splitlines()]


def bodies() -> list[bytes]:
    return [line.encode() for line in (SAMPLES / "events.jsonl").read_text().splitlines()]


def lacks(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """What a reader of ``old`` would miss in ``new``: a member, or the type of a value."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old:
            if name not in new:
                yield f"{where}.{name} is gone"
            else:
                yield from lacks(old[name], new[name], f"{where}.{name}")
    elif isinstance(old, list) and isinstance(new, list):
        for before, now in zip(old, new, strict=False):
            yield from lacks(before, now, f"{where}[]")
    elif kind(old) != kind(new):
        yield f"{where} was {kind(old)}, is {kind(new)}"


def kind(value: Any) -> str:
    """Types of JSON; it has one kind of number."""
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


@pytest.mark.parametrize("body", bodies(), ids=lambda body: json.loads(body)["id"])
def test_events_of_version_1_are_read_and_written_again_as_they_were(body: bytes) -> None:
    event = parse_event(body)
    assert not isinstance(event, UnknownEvent) and read_event(body) == event
    assert json.loads(event.to_json()) == json.loads(body)
    record = Record.from_body(body, "run")
    assert (record.stream, record.kind, record.phase) == (event.data.stream, event.kind, event.phase)


def test_messages_of_version_1_are_read() -> None:
    inbox = Inbox(Position(0, None))
    question = inbox.question()
    assert question is not None
    hello, replay = (frames for frames in lines("replies.jsonl")[:2])
    inbox.reply([dumps({**json.loads(hello[0]), "id": question.id})])
    question = inbox.question()
    assert question is not None
    inbox.reply([dumps({**json.loads(replay[0]), "id": question.id}), *(frame.encode() for frame in replay[1:])])
    assert [event.body for event in inbox.ready] == bodies()
    for frames in lines("messages.jsonl"):
        inbox.live([frame.encode() for frame in frames])
    assert inbox.question() is None  # the heartbeat told of nothing new
    assert inbox.ready[-1].header.seq is None


def test_replies_of_version_1_are_read() -> None:
    for frames in lines("replies.jsonl"):
        members = json.loads(frames[0])
        if members["ok"]:
            read_reply(members)
            assert len(read_events([frame.encode() for frame in frames], {"count": 0} | members)) == len(frames) // 2
        else:
            with pytest.raises(BusRefusal):
                read_reply(members)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, BusServer]]:
    def obey(command: Command, reply: Callable[[dict[str, Any] | RequestError], None]) -> None:
        more = {"stream.add": {"stream": "door"}, "ask": {"ask": "A7"}}
        reply({"accepted": 1} | more.get(command.op, {}))

    with place() as address, bus(address, tmp_path / "store", commands=obey, ingest=True) as server:
        yield address, server


def test_requests_of_version_1_get_the_replies_of_version_1(served: tuple[str, BusServer]) -> None:
    address, server = served
    put(server, [parse_event(body) for body in bodies()], run="run-1")
    with zmq.Context() as context, context.socket(zmq.REQ) as req:
        req.linger, req.rcvtimeo = 0, round(PATIENCE * 1000)
        req.connect(Addresses.of(address).requests)
        for request, reply in zip(lines("requests.jsonl"), lines("replies.jsonl"), strict=True):
            members = json.loads(json.dumps(request).replace("EPOCH", server.store.epoch))
            req.send(dumps(members))
            now = [loads(frame) for frame in req.recv_multipart()]
            old = [json.loads(frame) for frame in reply]
            assert list(lacks(old, now)) == [], request
            assert len(now) == len(old), request
            if old[0]["ok"]:
                check(request["op"], members)
            else:
                assert now[0]["error"]["code"] == old[0]["error"]["code"]


def test_live_messages_have_what_those_of_version_1_had(served: tuple[str, BusServer]) -> None:
    address, server = served
    beat, event, _ = lines("messages.jsonl")
    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        sub.linger, sub.rcvtimeo = 0, round(PATIENCE * 1000)
        sub.subscribe(b"v1/")
        sub.connect(address)
        sub.recv_multipart()  # connected
        put(server, [parse_event(body) for body in bodies()], run="run-1")
        for wanted in (event, beat):
            while (frames := sub.recv_multipart())[0] != wanted[0].encode() or (
                wanted is beat and not loads(frames[2])["streams"]
            ):
                continue
            for old, now in zip(wanted[1:], frames[1:], strict=True):
                assert list(lacks(json.loads(old), loads(now))) == []
    assert Header.from_bytes(event[1].encode()).run == "run-1"


def test_pipelines_of_version_1_can_hand_over(served: tuple[str, BusServer]) -> None:
    address, _ = served
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger, dealer.rcvtimeo = 0, round(PATIENCE * 1000)
        dealer.connect(Addresses.of(address).ingest)
        for exchange in lines("ingest.jsonl"):
            dealer.send_multipart([frame.encode() for frame in exchange["sent"]])
            for (old,) in exchange["answers"]:
                (now,) = dealer.recv_multipart()
                assert list(lacks(json.loads(old), loads(now))) == []
                assert (loads(now)["op"], loads(now).get("n")) == (json.loads(old)["op"], json.loads(old).get("n"))


def broken_promises(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What of the old schema of events does not hold in the new one.

    Kinds and members may be added, members that may be missing too. Values of enumerations may be added.
    """
    told = []
    for name, before in old["$defs"].items():
        now = new["$defs"].get(name)
        if now is None:
            told.append(f"{name} is gone")
            continue
        if set(before.get("required", ())) != set(now.get("required", ())):
            told.append(f"{name} requires other members")
        for member, was in before["properties"].items():
            if member not in now["properties"]:
                told.append(f"{name}.{member} is gone")
            elif not accepts(now["properties"][member], was):
                told.append(f"{name}.{member} takes less, or other things")
    mapping = new["discriminator"]["mapping"]
    return told + [f"{kind} is gone" for kind in old["discriminator"]["mapping"] if kind not in mapping]


def accepts(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether it is as it was, but for words about it and further values of an enumeration."""

    def shape(schema: Any) -> Any:
        if isinstance(schema, dict):
            return {
                name: shape(value) for name, value in schema.items() if name not in ("description", "title", "enum")
            }
        return [shape(item) for item in schema] if isinstance(schema, list) else schema

    return shape(new) == shape(old) and set(old.get("enum", ())) <= set(new.get("enum", old.get("enum", ())))


def test_the_schema_of_events_keeps_its_promises() -> None:
    assert broken_promises(json.loads((SAMPLES / "event.schema.json").read_text()), event_json_schema()) == []


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(schema: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        for name in parents:
            schema = schema[name]
        schema[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda schema: schema["$defs"].pop("AlarmData"),
        lambda schema: schema["$defs"]["CaptionData"]["properties"].pop("text"),
        lambda schema: schema["$defs"]["CaptionData"]["required"].remove("text"),
        lambda schema: schema["$defs"]["CaptionData"]["required"].append("score"),
        lambda schema: schema["$defs"]["StreamData"]["properties"]["status"]["enum"].remove("live"),
        lambda schema: schema["discriminator"]["mapping"].pop("onlooker.query.v1"),
        _set("$defs/CaptionData/properties/t_start/type", "integer"),
        _set("$defs/CaptionData/properties/t_end", {"type": "number"}),
        _set("$defs/CaptionEvent/properties/type/const", "onlooker.caption.v2"),
    ],
)
def test_broken_promises_are_seen(change: Callable[[dict[str, Any]], None]) -> None:
    schema = json.loads((SAMPLES / "event.schema.json").read_text())
    changed = copy.deepcopy(schema)
    change(changed)
    assert broken_promises(schema, changed)


def test_additions_break_nothing() -> None:
    schema = json.loads((SAMPLES / "event.schema.json").read_text())
    changed = copy.deepcopy(schema)
    changed["$defs"]["SmellData"] = {"properties": {}}
    changed["$defs"]["CaptionData"]["properties"]["language"] = {"type": "string"}
    changed["$defs"]["StreamData"]["properties"]["status"]["enum"].append("asleep")
    assert broken_promises(schema, changed) == []


def test_what_is_missing_in_a_message_is_seen() -> None:
    assert list(lacks({"a": 1, "b": [{"c": "x"}]}, {"a": 1.5, "b": [{"c": None}]})) == [".b[].c was str, is NoneType"]
    assert list(lacks({"a": 1}, {"b": 1})) == [".a is gone"]


def dumps(members: dict[str, Any]) -> bytes:
    return json.dumps(members).encode()
