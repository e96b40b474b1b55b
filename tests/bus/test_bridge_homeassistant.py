from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.events import make_event
from onlooker.pipeline.bus.bridges.homeassistant import HomeAssistant, Message, open_query
from onlooker.pipeline.bus.protocol import Header
from onlooker.pipeline.bus.record import Record, Stored

from .bridge_events import caption, query


def stored(record: Record, seq: int = 1) -> Stored:
    return Stored(record.stream, record.kind, Header("E", seq, 0, record.run, 1.0), record.body)


def states(messages: Iterable[Message]) -> list[tuple[str, bytes]]:
    return [(message.topic, message.payload) for message in messages if not message.topic.endswith("/config")]


def configs(messages: Iterable[Message]) -> dict[str, dict[str, Any]]:
    return {message.topic: json.loads(message.payload) for message in messages if message.topic.endswith("/config")}


def test_a_query_is_on_while_any_of_its_events_is_open() -> None:
    home = HomeAssistant("onlooker", "homeassistant")
    told = [
        [payload for _, payload in states(home.of(stored(query("cam1", number, "red bus", phase))))]
        for number, phase in [(0, "new"), (1, "new"), (0, "end"), (1, "update"), (1, "end")]
    ]
    assert told == [[b"ON"], [], [], [], [b"OFF"]]


def test_entities_are_announced_once_for_each_connection() -> None:
    home = HomeAssistant("onlooker", "homeassistant")
    seen = stored(query("cam1", 0, "red bus", "new"))
    assert len(configs(home.of(seen))) == 1
    assert not configs(home.of(stored(query("cam1", 1, "red bus", "new"))))
    assert len(configs(home.connected([open_query(seen)]))) == 1


def test_entities_of_like_names_are_different_ones() -> None:
    home = HomeAssistant("onlooker", "homeassistant")
    events = [query(stream, 0, text, "new") for stream in ("a.b", "a_b", "a-b") for text in ("Ü", "Ö", "a b", "a_b")]
    found = configs(message for event in events for message in home.of(stored(event)))
    assert len(found) == 12 == len({config["unique_id"] for config in found.values()})
    assert len({config["state_topic"] for config in found.values()}) == 12


def test_a_long_caption_fits_the_state_and_stands_whole_beside_it() -> None:
    home = HomeAssistant("onlooker", "homeassistant")
    ((_, payload),) = states(home.of(stored(caption("cam1", 0, text="ü" * 300))))
    state = json.loads(payload)
    assert (state["state"], state["text"]) == ("ü" * 255, "ü" * 300)


def test_an_older_event_that_ends_does_not_replace_the_newest_caption() -> None:
    home = HomeAssistant("onlooker", "homeassistant")
    assert states(home.of(stored(caption("cam1", 5, phase="new"))))
    assert not states(home.of(stored(caption("cam1", 4, phase="end"))))
    assert states(home.of(stored(caption("cam1", 5, phase="end"))))
    assert states(home.of(stored(caption("cam1", 0, run="another run"))))


def test_a_live_stream_that_connects_again_is_newer() -> None:
    home = HomeAssistant("onlooker", "homeassistant")
    common = {"stream": "cam1", "event_no": 0, "rev": 0, "phase": "end", "t_end": 99.0, "t_seen": 99.0, "text": "x"}
    for epoch, t_start in ((1000, 50.0), (2000, 1.0)):
        event = make_event("caption", epoch=epoch, t_start=t_start, **common)
        assert states(home.of(stored(Record.from_event(event, "r"))))


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_text_makes_a_topic_of_its_own(one: str, other: str) -> None:
    home = HomeAssistant("onlooker", "homeassistant")
    topics = []
    for text in (one, other):
        data = {"query": text, "event_id": "cam1/0/query/0", "phase": "new"}
        event = Stored("cam1", "query", Header("E", 1, 0, "r", 1.0), json.dumps({"data": data}).encode())
        topics.append({message.topic for message in [*home.connected([]), *home.of(event)]})
    assert not {"+", "#", "\0"} & set("".join(topics[0] | topics[1]))
    assert (topics[0] == topics[1]) == (one == other)
