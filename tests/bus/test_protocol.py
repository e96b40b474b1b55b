from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.events import make_event
from onlooker.pipeline.bus.protocol import Addresses, Header, ProtocolError, loads, new_ulid, stream_topic, topic
from onlooker.pipeline.bus.record import Record
from onlooker.pipeline.errors import UsageError

CAPTION = make_event(
    "caption", stream="cam1", epoch=7, event_no=3, rev=2, phase="end", t_start=1.0, t_end=2.0, t_seen=2.0, text="a cat"
)


def test_one_address_names_all_sockets() -> None:
    assert Addresses.of("tcp://[::1]:9") == ("tcp://[::1]:9", "tcp://[::1]:10", "tcp://[::1]:11")
    assert Addresses.of("ipc:///run/bus")[1:] == ("ipc:///run/bus.requests", "ipc:///run/bus.ingest")


@pytest.mark.parametrize("address", ["tcp://host", "tcp://host:0", "tcp://host:65535", "http://host:1", "ipc://", "x"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="no address of a bus"):
        Addresses.of(address)


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(UsageError, match=r"//\*\*\*@host"):
        Addresses.of("tcp://me:secret@host:5571")


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("tcp://127.0.0.1:5", True),
        ("tcp://127.3.2.1:5", True),
        ("tcp://localhost:5", True),
        ("tcp://[::1]:5", True),
        ("ipc://x", True),
        ("tcp://0.0.0.0:5", False),
        ("tcp://*:5", False),
        ("tcp://127.0.0.1.example.org:5", False),
        ("tcp://192.168.1.2:5", False),
    ],
)
def test_only_loopback_is_local(address: str, local: bool) -> None:
    assert Addresses.of(address).local is local


def test_a_topic_never_matches_a_longer_name() -> None:
    assert not topic("cam10", "caption").startswith(stream_topic("cam1"))
    assert topic("cam1", "caption").startswith(stream_topic("cam1"))


def test_a_header_survives_and_may_have_no_number() -> None:
    for seq in (5, None):
        header = Header("E", seq, 3, "R", 1.5)
        assert Header.from_bytes(header.to_bytes()) == header


@given(st.binary())
def test_no_bytes_break_the_readers(data: bytes) -> None:
    for read in (loads, Header.from_bytes, lambda frame: Record.from_body(frame, "r")):
        try:
            read(data)
        except ProtocolError:
            continue


def test_a_record_is_the_same_from_an_event_and_from_its_bytes() -> None:
    record = Record.from_event(CAPTION, "r")
    assert record == Record.from_body(CAPTION.to_json().encode(), "r")
    assert (record.stream, record.kind, record.phase, record.rev, record.text) == ("cam1", "caption", "end", 2, "a cat")


def test_a_kind_of_tomorrow_passes() -> None:
    members = json.loads(CAPTION.to_json())
    members["type"] = "onlooker.smell.v2"
    members["data"]["odour"] = "burnt"
    assert Record.from_body(json.dumps(members).encode(), "r").kind == "smell"


@pytest.mark.parametrize(
    ("key", "value"), [("type", "smell"), ("id", "cam1/7/caption/3/1"), ("id", 5), ("data", None), ("data", {})]
)
def test_what_is_no_event_is_refused(key: str, value: object) -> None:
    members = json.loads(CAPTION.to_json())
    members[key] = value
    with pytest.raises(ProtocolError, match="no event"):
        Record.from_body(json.dumps(members).encode(), "r")


def test_ulids_are_unique_and_sort_by_time() -> None:
    made = [new_ulid() for _ in range(1000)]
    assert len(set(made)) == 1000 and {len(one) for one in made} == {26}
    assert [one[:10] for one in made] == sorted(one[:10] for one in made)
