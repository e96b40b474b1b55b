"""Events to an MQTT broker, in topics that Home Assistant and people can use (MQTT 5 or 3.1.1).

paho's own thread and its own reconnecting are not used: one thread drives the connection, so that an acknowledgement,
a loss and the end are all seen in one place, and nothing waits on a broker that has stopped to answer.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import Field

from ..record import Stored
from .address import BridgeAddress, settings_of
from .failure import BridgeError, Refused, Unreachable, explain
from .homeassistant import HomeAssistant, Message, OpenQuery, open_query
from .target import Context
from .tls import TlsSettings, client_context

__all__ = ["MqttSettings", "MqttTarget"]

_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 20.0  # without an acknowledgement
_KEEPALIVE = 30
_IN_FLIGHT = 20  # messages without an acknowledgement, at most; what brokers allow by default
_COMPARE_SECONDS = 10.0  # between two looks at what the store holds for open, as after the death of a pipeline
_STATES = ("caption", "query")
_PROPERTIES = 1024  # bytes of a message beside topic and payload, at most
_OPEN_PAGE = 256
# MQTT 5, section 2.4: topic name invalid, packet too large, payload format invalid. Another event may pass.
_EVENT_REASONS = {0x90, 0x95, 0x99}


class MqttSettings(TlsSettings):
    """What an MQTT bridge can be told."""

    discovery: str = Field(
        default="homeassistant",
        pattern=r"^[A-Za-z0-9_/-]+$",
        description="Topic level where Home Assistant looks for configurations; `off` for neither these nor states.",
    )
    protocol: Literal["5", "3.1.1"] = Field(default="5", description="Version of MQTT.")
    client_id: str | None = Field(default=None, max_length=200, description="Where the broker asks for a certain one.")


class MqttTarget:
    """Publishes events with QoS 1: ``PREFIX/<stream>/<kind>``, and states for Home Assistant."""

    batch = 100
    gather = 0.0
    tries = 3

    @classmethod
    def of(cls, address: BridgeAddress) -> tuple[MqttTarget, MqttSettings]:
        """The target of an address ``mqtt(s)://USER:PASSWORD@HOST:PORT/PREFIX``.

        Raises:
            BridgeError: a setting is wrong, or paho-mqtt is not installed.
        """
        settings = settings_of(MqttSettings, address)
        return cls(address, settings), settings

    def __init__(self, address: BridgeAddress, settings: MqttSettings) -> None:
        """Prepare. Raises as ``of``."""
        try:
            from paho.mqtt import client
        except ImportError:
            raise BridgeError(
                "bridges to MQTT need the library paho-mqtt; install it: pip install 'onlooker[mqtt]'"
            ) from None
        if set("#+\0") & set(address.path):
            raise BridgeError(f"{address.shown}: the topic prefix cannot hold + or #.")
        self._paho = client
        self._address, self._settings = address, settings
        self._tls = client_context(address, settings)
        self._prefix = address.path.strip("/") or "onlooker"
        self._home = None if settings.discovery == "off" else HomeAssistant(self._prefix, settings.discovery)
        self.shown = f"{address.shown}/{self._prefix}"
        # States follow from all captions and queries, whatever events are asked for.
        self.kinds = tuple({*settings.kinds, *_STATES}) if self._home and settings.kinds else settings.kinds
        self.streams = settings.stream
        self._client: Any = None
        self._pending: dict[int, int] = {}
        """Places of the messages that nobody has acknowledged yet, by packet number."""
        self._refusals: dict[int, Any] = {}
        self._window = _IN_FLIGHT
        self._connack: Any = None
        self._largest: float = float("inf")
        self._lost = ""

    def wants(self, event: Stored) -> bool:
        """See ``Target.wants``."""
        return (self._home is not None and event.kind in _STATES) or self._settings.admits(event)

    def open(self, context: Context) -> None:
        """Connect, say that the bridge is online, and set the states. See ``Target.open``."""
        self._context = context
        self._connect()
        messages = [Message(f"{self._prefix}/status", b"online", True)]
        if self._home:
            messages += self._home.connected(self._open_queries())
            self._compared = time.monotonic()
            self._client.subscribe(self._home.query_states, qos=1)
        self._publish(messages)

    def send(self, events: Sequence[Stored]) -> None:
        """See ``Target.send``."""
        told: list[Message] = []
        for event in events:
            if self._settings.admits(event):
                told.append(Message(f"{self._prefix}/{event.stream}/{event.kind}", event.body, event=event))
            told += self._home.of(event) if self._home else []
        self._publish(told)

    def tick(self) -> bool:
        """Answer pings, take what the broker kept, and look for queries that are over without an event to tell it.

        See ``Target.tick``.
        """
        self._loop(0.0)
        if self._home and time.monotonic() - self._compared > _COMPARE_SECONDS:
            self._compared = time.monotonic()
            self._publish(self._home.only(self._open_queries()))
        return True

    def abort(self) -> None:
        """Waiting looks at ``Context.stop``. See ``Target.abort``."""

    def close(self) -> None:
        """Say that the bridge is offline, and disconnect. See ``Target.close``."""
        client, self._client = self._client, None
        if client is None:
            return
        if client.is_connected() and not self._lost:
            # The will is for those who cannot say it themselves: a clean disconnect makes the broker forget it.
            # QoS 0 goes out at once, past whatever waits for an acknowledgement.
            client.publish(f"{self._prefix}/status", b"offline", qos=0, retain=True)
            client.disconnect()
            client.loop(0.2)
        client.on_connect = client.on_disconnect = client.on_publish = client.on_message = None
        if (sock := client.socket()) is not None:
            sock.close()

    def _connect(self) -> None:
        paho, address = self._paho, self._address
        five = self._settings.protocol == "5"
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=self._settings.client_id or _client_id(self._context.name),
            clean_session=None if five else True,
            protocol=paho.MQTTv5 if five else paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(0)  # counted here, since paho does not ask what the broker allows
        client.connect_timeout = _CONNECT_SECONDS / 2
        client.username_pw_set(address.user, address.password)
        client.will_set(f"{self._prefix}/status", b"offline", qos=1, retain=True)
        if self._tls:
            client.tls_set_context(self._tls)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish, client.on_message = self._on_publish, self._on_message
        self._client, self._connack, self._lost = client, None, ""
        try:
            client.connect(address.host, address.port, keepalive=_KEEPALIVE)
        except OSError as error:
            raise Unreachable(explain(error)) from None
        # Else each small packet waits for the acknowledgement of the one before it, which comes 40 ms later.
        client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wait(lambda: self._connack is not None, lambda: 0, _CONNECT_SECONDS)
        if self._connack.is_failure:
            raise Unreachable(f"the broker refuses the connection ({str(self._connack).lower()})")

    def _publish(self, messages: Sequence[Message]) -> None:
        """Publish, and wait until the broker has acknowledged all."""
        self._pending, self._refusals = {}, {}
        for place, message in enumerate(messages):
            if len(message.payload) + len(message.topic) + _PROPERTIES > self._largest:
                self._wait_for_pending(0, messages, place)
                raise Refused("the broker takes no messages of its size", done=_events_in(messages[:place]))
            self._wait_for_pending(self._window - 1, messages, place)
            sent = self._client.publish(
                message.topic, message.payload, qos=1, retain=message.retain, properties=self._properties(message)
            )
            self._pending[sent.mid] = place
        self._wait_for_pending(0, messages, len(messages))
        for place, reason in sorted(self._refusals.items()):
            kind = Refused if reason.value in _EVENT_REASONS else Unreachable
            text = f"the broker does not take the message ({str(reason).lower()})"
            raise kind(text, done=_events_in(messages[:place]))

    def _wait_for_pending(self, most: int, messages: Sequence[Message], sent: int) -> None:
        """Wait until no more than ``most`` messages lack an acknowledgement; ``sent`` of them were published."""
        try:
            self._wait(lambda: len(self._pending) <= most, lambda: len(self._pending), _SILENCE_SECONDS)
        except Unreachable as failure:
            failure.done = _events_in(messages[: min([sent, *self._pending.values(), *self._refusals])])
            raise

    def _wait(self, met: Callable[[], bool], left: Callable[[], int], seconds: float) -> None:
        """Drive the connection until a condition is met; ``seconds`` count from the last time that ``left`` changed."""
        since, seen = time.monotonic(), left()
        while not met():
            self._loop(0.1)
            if left() != seen:
                since, seen = time.monotonic(), left()
            if time.monotonic() - since > seconds or self._context.stop.is_set():
                raise Unreachable("the broker does not answer")

    def _loop(self, seconds: float) -> None:
        try:
            result = self._client.loop(seconds)
        except OSError as error:
            raise Unreachable(explain(error)) from None
        if self._lost or result != self._paho.MQTT_ERR_SUCCESS:
            if self._connack is not None and self._connack.is_failure:
                return  # told by the one who waits for it
            raise Unreachable(self._lost or "the connection to the broker is lost")

    def _open_queries(self) -> list[OpenQuery]:
        found: list[Stored] = []
        while True:
            page = self._context.reader.open_events(
                after=found[-1].header.seq or 0 if found else 0,
                streams=self._settings.stream,
                kinds=("query",),
                limit=_OPEN_PAGE,
            )
            found += page.stored
            if not page.more:
                return [open_query(event) for event in found]

    def _properties(self, message: Message) -> Any:
        """What MQTT 5 can carry beside the payload: of what kind it is, and the numbers of the event."""
        if message.event is None or self._settings.protocol != "5":
            return None
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ContentType = "application/cloudevents+json"
        header = message.event.header
        properties.UserProperty = [("seq", str(header.seq)), ("run", header.run), ("epoch", header.epoch)]
        return properties

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._connack = reason
        self._largest = getattr(properties, "MaximumPacketSize", float("inf"))
        self._window = min(getattr(properties, "ReceiveMaximum", _IN_FLIGHT), _IN_FLIGHT)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        said = str(reason).lower()
        self._lost = "the connection to the broker is lost" + (
            f" ({said})" if flags.is_disconnect_packet_from_server else ""
        )

    def _on_publish(self, client: Any, userdata: Any, number: int, reason: Any, properties: Any) -> None:
        place = self._pending.pop(number, None)
        if place is not None and reason is not None and reason.is_failure:
            self._refusals[place] = reason

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        if self._home and message.retain:
            for correction in self._home.retained(message.topic, message.payload):
                client.publish(correction.topic, correction.payload, qos=1, retain=True)


def _client_id(name: str) -> str:
    """The same for each connection of one bridge of one store, so that a broker ends the one before it at once."""
    return "onlooker-" + hashlib.sha256(f"{socket.gethostname()} {name}".encode()).hexdigest()[:12]


def _events_in(messages: Sequence[Message]) -> int:
    return sum(message.event is not None for message in messages)
