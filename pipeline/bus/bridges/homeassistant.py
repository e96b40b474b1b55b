"""States and discovery of Home Assistant over MQTT: what the newest caption is, and which queries are seen now.

Home Assistant makes entities out of retained configurations under ``homeassistant/`` (its "MQTT discovery") and shows
the retained messages that they point to: a sensor with the newest caption of a stream, and a binary sensor for each
query, ON while an event of it is open. No sockets here: events go in, messages come out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from importlib.metadata import version
from typing import Any, NamedTuple

from ..record import Stored

__all__ = ["HomeAssistant", "Message", "OpenQuery", "open_query"]

_STATE_CHARACTERS = 255
"""Home Assistant takes no longer state."""


class Message(NamedTuple):
    """One MQTT message, always of QoS 1."""

    topic: str
    payload: bytes
    retain: bool = False
    event: Stored | None = None
    """The event that it carries, if it is no state."""


class OpenQuery(NamedTuple):
    """One open event of a query."""

    stream: str
    query: str
    run: str
    event_id: str


def open_query(event: Stored) -> OpenQuery:
    """What an event of a query says of which query it is."""
    data = json.loads(event.body)["data"]
    return OpenQuery(event.stream, data["query"], event.header.run, data["event_id"])


class HomeAssistant:
    """Keeps the states of one broker right.

    Args:
        prefix: first level of the topics of events and states.
        discovery: first level of the topics where Home Assistant looks for configurations.
    """

    def __init__(self, prefix: str, discovery: str) -> None:
        """Know of no entity yet."""
        self._prefix = prefix
        self._discovery = discovery
        self._announced: set[str] = set()
        self._open: dict[str, set[tuple[str, str]]] = {}
        self._newest: dict[str, tuple[str, int, float]] = {}

    @property
    def query_states(self) -> str:
        """Filter of the topics that hold states of queries."""
        return f"{self._prefix}/+/query/+/state"

    def connected(self, queries: Iterable[OpenQuery]) -> list[Message]:
        """Begin anew on a connection: announce all entities again, and set what is open now."""
        self._announced, self._open = set(), {}
        return [message for query in queries for message in self._seen(query)]

    def of(self, event: Stored) -> list[Message]:
        """Messages that follow from the next event."""
        if event.kind == "caption":
            return self._caption(event)
        if event.kind != "query":
            return []
        query = open_query(event)
        return self._unseen(query) if json.loads(event.body)["data"]["phase"] == "end" else self._seen(query)

    def only(self, queries: Collection[OpenQuery]) -> list[Message]:
        """Messages that follow from other queries than these being open no more, as after the death of a pipeline."""
        still = {(query.run, query.event_id) for query in queries}
        gone = [topic for topic, events in self._open.items() if not events & still]
        self._open = {topic: events & still for topic, events in self._open.items() if events & still}
        return [Message(topic, b"OFF", True) for topic in gone]

    def retained(self, topic: str, payload: bytes) -> list[Message]:
        """Correct a state that the broker kept from an earlier life of the bridge."""
        return [Message(topic, b"OFF", True)] if payload == b"ON" and topic not in self._open else []

    def _seen(self, query: OpenQuery) -> list[Message]:
        topic = self._query_topic(query)
        known = topic in self._open
        self._open.setdefault(topic, set()).add((query.run, query.event_id))
        config = {"name": query.query, "state_topic": topic, "device_class": "occupancy"}
        return [*self._announce("binary_sensor", query.stream, _slug(query.query), config)] + (
            [] if known else [Message(topic, b"ON", True)]
        )

    def _unseen(self, query: OpenQuery) -> list[Message]:
        topic = self._query_topic(query)
        events = self._open.get(topic, set())
        events.discard((query.run, query.event_id))
        if events:
            return []
        self._open.pop(topic, None)
        return [Message(topic, b"OFF", True)]

    def _caption(self, event: Stored) -> list[Message]:
        data = json.loads(event.body)["data"]
        run, *before = self._newest.get(event.stream, ("", 0, 0.0))
        begins = (int(data["media_epoch"]), float(data["t_start"]))
        if run == event.header.run and begins < tuple(before):  # an older event ends: it is not the newest caption
            return []
        self._newest[event.stream] = (event.header.run, *begins)
        topic = f"{self._prefix}/{event.stream}/caption/state"
        state = {"state": data["text"][:_STATE_CHARACTERS], "time": event.header.time}
        state |= {name: data[name] for name in ("text", "phase", "t_start", "t_end", "score", "event_id")}
        config = {
            "name": "Caption",
            "state_topic": topic,
            "value_template": "{{ value_json.state }}",
            "json_attributes_topic": topic,
            "icon": "mdi:cctv",
        }
        return [
            *self._announce("sensor", event.stream, "caption", config),
            Message(topic, json.dumps(state, ensure_ascii=False).encode(), True),
        ]

    def _announce(self, component: str, stream: str, entity: str, config: dict[str, Any]) -> list[Message]:
        device = _slug(f"{self._prefix}/{stream}")
        topic = f"{self._discovery}/{component}/{device}/{entity}/config"
        if topic in self._announced:
            return []
        self._announced.add(topic)
        config |= {
            "unique_id": f"{device}_{entity}",
            "availability_topic": f"{self._prefix}/status",
            "device": {"identifiers": [device], "name": stream, "manufacturer": "onlooker"},
            "origin": {"name": "onlooker", "sw_version": version("onlooker")},
        }
        return [Message(topic, json.dumps(config, ensure_ascii=False).encode(), True)]

    def _query_topic(self, query: OpenQuery) -> str:
        return f"{self._prefix}/{query.stream}/query/{_slug(query.query)}/state"


def _slug(text: str) -> str:
    """A part of a topic and of an id out of any text; two texts never share one."""
    plain = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40]
    return plain if plain == text else f"{plain}_{hashlib.sha256(text.encode()).hexdigest()[:8]}".lstrip("_")
