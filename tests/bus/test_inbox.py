"""The subscriber's state against a model of a bus that restarts, loses its store, and of sockets that lose messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onlooker.operators.events import make_event
from onlooker.pipeline.bus.inbox import BusRefusal, Gap, Inbox, Position
from onlooker.pipeline.bus.protocol import HEARTBEAT, Header, ProtocolError, dumps, loads
from onlooker.pipeline.bus.record import Stored

STREAMS = ("cam1", "cam10", "door")


def body(stream: str, number: int) -> bytes:
    event = make_event(
        "caption",
        stream=stream,
        epoch=0,
        event_no=number,
        rev=0,
        phase="end",
        t_start=0.0,
        t_end=1.0,
        t_seen=1.0,
        text=f"number {number}",
    )
    return event.to_json().encode()


class Bus:
    """A bus as the protocol describes it, in a few lines: a log, and what it answers."""

    def __init__(self, page: int = 3) -> None:
        self.log: list[Stored] = []
        self.first = 1
        self.epochs: list[tuple[str, int]] = []
        self.page = page
        self.now = 0.0
        self.made = 0
        self.restart()

    @property
    def epoch(self) -> str:
        return self.epochs[-1][0]

    @property
    def last(self) -> int:
        return self.first - 1 + len(self.log)

    def restart(self) -> None:
        self.made += 1
        self.epochs.append((f"E{self.made:05}", self.last + 1))

    def lose_store(self) -> None:
        """The file is gone: numbers begin anew under an epoch of their own."""
        self.log, self.first, self.epochs = [], 1, []
        self.restart()

    def prune(self) -> None:
        gone = len(self.log) // 2
        self.first += gone
        del self.log[:gone]

    def publish(self, stream: str) -> list[bytes]:
        self.made += 1
        prev = max((e.header.seq or 0 for e in self.log if e.stream == stream), default=0)
        event = Stored(
            stream, "caption", Header(self.epoch, self.last + 1, prev, "r", self.now), body(stream, self.made)
        )
        self.log.append(event)
        return event.frames()

    def unstored(self, stream: str) -> list[bytes]:
        self.made += 1
        return Stored(stream, "caption", Header(self.epoch, None, 0, "r", self.now), body(stream, self.made)).frames()

    def heartbeat(self) -> list[bytes]:
        self.now += 1.0
        last = {event.stream: event.header.seq for event in self.log}
        head = {"epoch": self.epoch, "seq": self.last, "time": self.now}
        return [HEARTBEAT, dumps(head), dumps({"streams": last})]

    def answer(self, frame: bytes) -> list[bytes]:
        asked = loads(frame)
        base = {"v": 1, "id": asked["id"], "op": asked["op"], "ok": True}
        if asked["op"] == "hello":
            return [dumps({**base, "protocol": 1, "epoch": self.epoch, "seq": self.last, "oldest": self.first})]
        begin, reset = self._begin(asked["after"])
        lost = {"first": begin + 1, "last": self.first - 1} if begin + 1 < self.first else None
        end = min(asked.get("until", self.last), self.last)
        wanted = [
            event
            for event in self.log
            if begin < (event.header.seq or 0) <= end and (not asked["streams"] or event.stream in asked["streams"])
        ]
        page = wanted[: self.page]
        upto = page[-1].header.seq if len(wanted) > self.page else max(begin, end, self.first - 1)
        told = {"count": len(page), "upto": upto, "last": self.last, "epoch": self.epoch, "reset": reset, "lost": lost}
        frames = [dumps(base | told)]
        for event in page:
            frames += (event.header.to_bytes(), event.body)
        return frames

    def _begin(self, after: Mapping[str, Any]) -> tuple[int, bool]:
        if "oldest" in after:
            return self.first - 1, False
        names = [name for name, _ in self.epochs]
        if after.get("epoch") is None:
            return (after["seq"], False) if after["seq"] <= self.last else (self.first - 1, True)
        if after["epoch"] in names:
            ends = [first - 1 for _, first in self.epochs[1:]] + [self.last]
            end = ends[names.index(after["epoch"])]
            return min(after["seq"], end), after["seq"] > end
        return 0, True


def settle(inbox: Inbox, bus: Bus) -> None:
    """Answer all questions, as happens when the network is well."""
    for _ in range(1000):
        question = inbox.question()
        if question is None:
            return
        inbox.reply(bus.answer(question.frame))
    raise AssertionError("it asks without end")


def numbers(inbox: Inbox) -> list[int | None]:
    taken = [event.header.seq for event in inbox.ready]
    inbox.ready.clear()
    return taken


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from(STREAMS)),
        st.tuples(st.just("lose"), st.sampled_from(STREAMS)),
        st.tuples(st.just("deliver"), st.integers(1, 9)),
        st.tuples(
            st.sampled_from(["twice", "heartbeat", "lost heartbeat", "restart", "reconnect", "answer", "delay", "late"])
        ),
    ),
    max_size=60,
)


def play(actions: list[tuple[Any, ...]], inbox: Inbox, bus: Bus, one: str | None = None) -> list[bytes]:
    """Let it happen; gives the bodies in the order in which they came out.

    Live messages wait on their way until they are delivered, also those of a bus that has restarted since.
    """
    way: list[list[bytes]] = []
    late: list[list[bytes]] = []
    got: list[bytes] = []
    for action, *rest in actions:
        if action in ("publish", "lose"):
            frames = bus.publish(rest[0])
            if action == "publish" and one in (None, rest[0]):
                way.append(frames)
        elif action == "deliver":
            for frames in way[: rest[0]]:
                inbox.live(frames)
            del way[: rest[0]]
        elif action == "twice" and way:
            inbox.live(way[0])
        elif action == "heartbeat":
            way.append(bus.heartbeat())
        elif action == "lost heartbeat":
            bus.heartbeat()
        elif action == "restart":
            bus.restart()
        elif action == "reconnect":
            inbox.connected()
        elif action == "answer" and (question := inbox.question()):
            inbox.reply(bus.answer(question.frame))
        elif action == "delay" and (question := inbox.question()):
            late.append(bus.answer(question.frame))
        elif action == "late" and late:  # an answer that took its time, and comes twice
            answer = late.pop()
            inbox.reply(answer)
            inbox.reply(answer)
        got += [event.body for event in inbox.ready]
        inbox.ready.clear()
    for frames in [*way, bus.heartbeat()]:
        inbox.live(frames)
    settle(inbox, bus)
    inbox.connected()
    settle(inbox, bus)
    return got + [event.body for event in inbox.ready]


@settings(max_examples=300)
@given(ACTIONS, st.integers(0, 5), st.sampled_from([1, 3, 100]))
def test_whatever_happens_the_log_of_the_bus_comes_out(actions: list[tuple[Any, ...]], hold: int, page: int) -> None:
    bus = Bus(page)
    inbox = Inbox(Position(0, None), hold=hold)
    assert play(actions, inbox, bus) == [event.body for event in bus.log]
    assert inbox.position == Position(bus.last, bus.epoch)
    assert not inbox.gaps


@settings(max_examples=300)
@given(ACTIONS, st.integers(0, 5), st.sampled_from([1, 3, 100]))
def test_one_stream_is_whole_as_well(actions: list[tuple[Any, ...]], hold: int, page: int) -> None:
    bus = Bus(page)
    inbox = Inbox({"oldest": True}, one="cam1", hold=hold)
    assert play(actions, inbox, bus, one="cam1") == [event.body for event in bus.log if event.stream == "cam1"]


@settings(max_examples=100)
@given(ACTIONS, ACTIONS)
def test_a_store_that_is_lost_is_told_and_its_successor_read_from_the_start(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]
) -> None:
    bus = Bus()
    inbox = Inbox(Position(0, None))
    play(before, inbox, bus)
    inbox.ready.clear()
    bus.lose_store()
    got = play(after, inbox, bus)
    assert got == [event.body for event in bus.log]
    assert [gap.why for gap in inbox.gaps] == ["reset"]


def test_a_dropped_message_is_what_the_replay_is_for() -> None:
    """The twin of the first test: without the answer the gap stays open and nothing after it comes out."""
    bus, inbox = Bus(), Inbox(None)
    settle(inbox, bus)
    inbox.live(bus.publish("cam1"))
    bus.publish("cam1")
    inbox.live(bus.publish("cam1"))
    assert numbers(inbox) == [1]
    settle(inbox, bus)
    assert numbers(inbox) == [2, 3]


def test_only_the_gap_is_asked_for() -> None:
    bus, inbox = Bus(page=100), Inbox(None)
    settle(inbox, bus)
    for _ in range(5):
        bus.publish("cam1")
    for _ in range(20):
        inbox.live(bus.publish("cam1"))
    question = inbox.question()
    assert question is not None
    assert loads(question.frame)["until"] == 5
    settle(inbox, bus)
    assert numbers(inbox) == list(range(1, 26))


def test_news_begin_where_the_bus_stands() -> None:
    bus, inbox = Bus(), Inbox(None)
    bus.publish("cam1")
    inbox.live(bus.publish("cam1"))
    settle(inbox, bus)
    inbox.live(bus.publish("cam1"))
    assert numbers(inbox) == [3]


def test_what_is_held_is_bounded_and_nothing_is_lost_by_it() -> None:
    bus, inbox = Bus(page=1000), Inbox(None, hold=10)
    settle(inbox, bus)
    bus.publish("cam1")
    for _ in range(500):
        inbox.live(bus.publish("cam1"))
    assert len(inbox._held) == 10
    settle(inbox, bus)
    assert numbers(inbox) == list(range(1, 502))


def test_large_events_are_held_by_their_bytes() -> None:
    inbox = Inbox(None)
    for seq in range(1, 20):
        inbox.live(Stored("cam1", "caption", Header("E", seq, seq - 1, "r", 0.0), bytes(1 << 20)).frames())
    assert len(inbox._held) == 4


def test_a_gap_that_the_caps_have_made_is_told() -> None:
    bus = Bus()
    inbox = Inbox(Position(1, bus.epoch))
    for _ in range(10):
        bus.publish("cam1")
    bus.prune()
    settle(inbox, bus)
    assert numbers(inbox) == [6, 7, 8, 9, 10]
    assert list(inbox.gaps) == [Gap("lost", 2, 5)]
    assert "events 2 to 5 are lost" in str(inbox.gaps[0])


def test_events_that_are_not_stored_come_through_and_count_in_no_gap() -> None:
    bus, inbox = Bus(), Inbox(None)
    settle(inbox, bus)
    inbox.live(bus.publish("cam1"))
    inbox.live(bus.unstored("cam1"))
    inbox.live(bus.publish("cam1"))
    assert numbers(inbox) == [1, None, 2]
    assert inbox.question() is None


def test_streams_and_kinds_that_are_not_wanted_stay_out_and_leave_no_gap() -> None:
    bus, inbox = Bus(), Inbox(Position(0, None), streams=["cam1", "door"], kinds=["caption"])
    bus.publish("cam10")
    bus.publish("cam1")
    settle(inbox, bus)
    for stream in ("cam10", "door", "cam10", "cam1"):
        inbox.live(bus.publish(stream))
    assert numbers(inbox) == [2, 4, 6]
    assert inbox.question() is None


def test_a_quiet_stream_asks_when_heartbeats_were_missing() -> None:
    bus, inbox = Bus(), Inbox(None, one="cam1")
    settle(inbox, bus)
    inbox.live(bus.heartbeat())
    bus.publish("cam1")
    bus.now += 60
    beat = bus.heartbeat()
    beat[2] = dumps({"streams": {}})  # the minute in which it would be named is over
    inbox.live(beat)
    settle(inbox, bus)
    assert numbers(inbox) == [1]


@pytest.mark.parametrize("code", ["busy", "unavailable"])
def test_a_busy_bus_is_asked_again(code: str) -> None:
    bus, inbox = Bus(), Inbox(None)
    question = inbox.question()
    assert question is not None
    error = {"code": code, "message": "later"}
    inbox.reply([dumps({"v": 1, "id": question.id, "op": "hello", "ok": False, "error": error})])
    assert inbox.question() is question and inbox.put_off
    settle(inbox, bus)
    assert not inbox.put_off
    assert inbox.position == Position(0, bus.epoch)


def test_other_versions_and_refusals_are_told() -> None:
    inbox = Inbox(None)
    question = inbox.question()
    assert question is not None
    with pytest.raises(BusRefusal, match="version 2"):
        inbox.reply([dumps({"v": 2, "id": question.id, "op": "hello", "ok": True})])
    error = {"code": "not_allowed", "message": "no"}
    with pytest.raises(BusRefusal, match="no") as caught:
        inbox.reply([dumps({"v": 1, "id": question.id, "op": "hello", "ok": False, "error": error})])
    assert caught.value.code == "not_allowed"


def test_a_bus_that_gives_nothing_of_what_it_claims_is_not_asked_for_ever() -> None:
    inbox = Inbox({"oldest": True})
    bus = Bus()
    question = inbox.question()
    assert question is not None
    inbox.reply(bus.answer(question.frame))
    question = inbox.question()
    assert question is not None
    answer = {"count": 0, "upto": 0, "last": 5, "epoch": bus.epoch, "reset": False, "lost": None}
    with pytest.raises(ProtocolError, match="gives nothing"):
        inbox.reply([dumps({"v": 1, "id": question.id, "op": "replay", "ok": True, **answer})])


JUNK = st.one_of(
    st.binary(max_size=20),
    st.just(HEARTBEAT),
    st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda value: json.dumps(value).encode()),
)


@given(st.lists(JUNK, max_size=5))
def test_nonsense_is_a_protocol_error_and_nothing_else(frames: list[bytes]) -> None:
    inbox = Inbox(None)
    question = inbox.question()
    assert question is not None
    head = dumps({"v": 1, "id": question.id, "op": "hello", "ok": True})
    for take, message in ((inbox.live, frames), (inbox.reply, [head, *frames])):
        with pytest.raises(ProtocolError):
            take(message)


def test_positions_survive_as_tokens() -> None:
    for position in (Position(5, "01J"), Position(0, None)):
        assert Position.parse(str(position)) == position
    for wrong in ("", "5", "a/b", "a/-1", "a/²"):
        with pytest.raises(ValueError, match="no position"):
            Position.parse(wrong)


def test_an_answer_that_live_events_have_overtaken_does_no_harm() -> None:
    bus, inbox = Bus(page=2), Inbox(None)
    settle(inbox, bus)
    sent = [bus.publish("cam1") for _ in range(6)]
    inbox.live(bus.heartbeat())
    question = inbox.question()
    assert question is not None
    inbox.reply(bus.answer(question.frame))
    question = inbox.question()
    assert question is not None
    answer = bus.answer(question.frame)  # 3 and 4 of 6
    for frames in sent[2:5]:
        inbox.live(frames)
    inbox.reply(answer)
    settle(inbox, bus)
    assert numbers(inbox) == [1, 2, 3, 4, 5, 6]
