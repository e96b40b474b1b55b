"""Events to Kafka through librdkafka (the extra ``kafka``): all replicas acknowledge, the stream is the key.

The idempotent producer keeps the order of one key. It never gives a message up by itself, since one that came to late
would leave those behind it in front; the bridge gives a whole producer up and sends again what nobody acknowledged.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from ..record import Stored
from .address import BridgeAddress, settings_of
from .failure import BridgeError, Refused, Unreachable
from .target import Context
from .tls import TlsSettings, client_context

__all__ = ["KafkaSettings", "KafkaTarget"]

_SILENCE_SECONDS = 20.0  # without an acknowledgement


class KafkaSettings(TlsSettings):
    """What a Kafka bridge can be told."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="PLAIN", description="How user and password are shown to the broker."
    )


class KafkaTarget:
    """Produces events to one topic, each as a structured CloudEvent (Kafka binding 1.0.2, section 3.3)."""

    batch = 256
    gather = 0.0
    tries = 3

    @classmethod
    def of(cls, address: BridgeAddress) -> tuple[KafkaTarget, KafkaSettings]:
        """The target of an address ``kafka(s)://USER:PASSWORD@HOST:PORT,HOST:PORT/TOPIC``.

        Raises:
            BridgeError: a setting is wrong, or confluent-kafka is not installed.
        """
        settings = settings_of(KafkaSettings, address)
        return cls(address, settings), settings

    def __init__(self, address: BridgeAddress, settings: KafkaSettings) -> None:
        """Prepare. Raises as ``of``."""
        try:
            import confluent_kafka
        except ImportError:
            raise BridgeError(
                "bridges to Kafka need the library confluent-kafka; install it: pip install 'onlooker[kafka]'"
            ) from None
        client_context(address, settings)  # librdkafka reads the files by itself, and would tell it late
        self._kafka = confluent_kafka
        self._address, self._settings = address, settings
        self._topic = address.path or "onlooker"
        self.shown = f"{address.shown}/{self._topic}"
        self.kinds, self.streams = settings.kinds, settings.stream
        self._producer: Any = None
        self._trouble = ""

    def wants(self, event: Stored) -> bool:
        """See ``Target.wants``."""
        return self._settings.admits(event)

    def open(self, context: Context) -> None:
        """Make the producer, which connects by itself. See ``Target.open``."""
        self._context = context
        self._trouble = ""
        try:
            self._producer = self._kafka.Producer(self._config())
        except self._kafka.KafkaException as error:
            raise Unreachable(f"librdkafka: {error.args[0].str()}") from None

    def send(self, events: Sequence[Stored]) -> None:
        """See ``Target.send``."""
        results: dict[int, Any] = {}
        for place, event in enumerate(events):
            self._produce(results, place, event)
        self._wait(results, len(events))
        for place in range(len(events)):
            if results[place] is not None:
                raise self._failure(results[place], place)

    def tick(self) -> bool:
        """Serve callbacks. See ``Target.tick``."""
        self._producer.poll(0)
        return False

    def abort(self) -> None:
        """Waiting looks at ``Context.stop``. See ``Target.abort``."""

    def close(self) -> None:
        """See ``Target.close``."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.poll(0)
            self._producer = None

    def _produce(self, results: dict[int, Any], place: int, event: Stored) -> None:
        header = event.header
        try:
            self._producer.produce(
                self._topic,
                key=event.stream,
                value=event.body,
                headers={
                    "content-type": "application/cloudevents+json; charset=UTF-8",
                    "seq": str(header.seq),
                    "run": header.run,
                    "epoch": header.epoch,
                },
                on_delivery=lambda error, message: results.__setitem__(place, error),
            )
        except self._kafka.KafkaException as error:
            results[place] = error.args[0]

    def _wait(self, results: dict[int, Any], count: int) -> None:
        """Until every event has a result; the time counts from the last one."""
        since, seen = time.monotonic(), 0
        while len(results) < count:
            self._producer.poll(0.1)
            if len(results) != seen:
                since, seen = time.monotonic(), len(results)
            if time.monotonic() - since > _SILENCE_SECONDS or self._context.stop.is_set():
                done = next((place for place in range(count) if place not in results or results[place] is not None), 0)
                raise Unreachable(self._trouble or "the brokers do not answer", done=done)

    def _failure(self, error: Any, done: int) -> Unreachable | Refused:
        code = self._kafka.KafkaError
        kind = (
            Refused if error.code() in (code.MSG_SIZE_TOO_LARGE, code.INVALID_MSG, code.INVALID_RECORD) else Unreachable
        )
        return kind(f"the broker does not take the event ({error.str().lower()})", done=done)

    def _config(self) -> dict[str, Any]:
        """librdkafka's; holds the password."""
        address, settings = self._address, self._settings
        config: dict[str, Any] = {
            "bootstrap.servers": ",".join(f"{host}:{port}" for host, port in address.hosts),
            "client.id": "onlooker",
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": 0,
            "topic.metadata.propagation.max.ms": 10_000,  # before a topic that is missing is told
            "message.max.bytes": 2 << 20,  # events have 1 MiB at most; the broker's limit decides
            "linger.ms": 5,
            "log_level": 0,
            "error_cb": self._on_error,
        }
        if address.user is not None:
            config |= {"sasl.mechanism": settings.mechanism}
            config |= {"sasl.username": address.user, "sasl.password": address.password or ""}
        config["security.protocol"] = ("SASL_" if address.user else "") + ("SSL" if address.tls else "PLAINTEXT")
        if settings.ca is not None:
            config["ssl.ca.location"] = str(settings.ca)
        if settings.cert is not None:
            config |= {"ssl.certificate.location": str(settings.cert), "ssl.key.location": str(settings.cert)}
        return config

    def _on_error(self, error: Any) -> None:
        """Of connections; the producer goes on trying."""
        known = {
            self._kafka.KafkaError._AUTHENTICATION: "the brokers refuse user and password",
            self._kafka.KafkaError._SSL: "no TLS connection to the brokers (look at the setting ca)",
        }
        # That all brokers are down follows on any of them and says less.
        self._trouble = known.get(error.code()) or self._trouble or "none of the brokers can be reached"
