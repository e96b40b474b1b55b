"""Bridges: events of a bus to MQTT, webhooks and Kafka, at least once, with the event store as their outbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from ...secrets import Secrets
from .address import BridgeAddress, parse_bridge
from .failure import BridgeError
from .outbox import Bridge, BridgeStatus, MakeBackoff, check_distinct, close_bridges

__all__ = ["Bridge", "BridgeError", "BridgeStatus", "close_bridges", "make_bridges", "read_bridges"]

_TARGETS = {
    "mqtt": ".mqtt:MqttTarget",
    "mqtts": ".mqtt:MqttTarget",
    "http": ".webhook:WebhookTarget",
    "https": ".webhook:WebhookTarget",
    "kafka": ".kafka:KafkaTarget",
    "kafkas": ".kafka:KafkaTarget",
}


def make_bridges(
    specs: Sequence[str | Mapping[str, Any]], secrets: Secrets, *, backoff: MakeBackoff | None = None
) -> list[Bridge]:
    """Make the bridges that addresses name; none of them connects before `Bridge.start`.

    Args:
        specs: addresses as ``--bridge`` takes them, or mappings as in a file (``to`` and settings), not resolved yet.
        secrets: where ``${env:NAME}`` and ``${secret:NAME}`` come from.
        backoff: makes what says how long each waits after failures.

    Raises:
        BridgeError: one makes no sense, two are the same, or a library is not installed.
        SecretsError: a value cannot be had.
    """
    bridges = [_make(spec, secrets, backoff) for spec in specs]
    check_distinct(bridges)
    return bridges


def read_bridges(path: str | Path) -> list[str | Mapping[str, Any]]:
    """Read the list under ``bridges:`` of a YAML file, for `make_bridges`.

    Raises:
        BridgeError: it cannot be read, or has no such list.
    """
    path = Path(path)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise BridgeError(f"cannot read the bridges of {path.name}: {why}.") from None
    except (UnicodeDecodeError, yaml.YAMLError):  # its words would show the line
        raise BridgeError(f"{path.name} is not valid YAML; write bridges: and below it - mqtt://HOST.") from None
    bridges = document.get("bridges") if isinstance(document, dict) else None
    if not isinstance(bridges, list) or not all(isinstance(one, (str, dict)) for one in bridges):
        raise BridgeError(f"{path.name} has no list of bridges; write bridges: and below it - mqtt://HOST.")
    return bridges


def _make(spec: str | Mapping[str, Any], secrets: Secrets, backoff: MakeBackoff | None) -> Bridge:
    address = parse_bridge(spec, secrets)
    module, _, name = _TARGETS[address.scheme].partition(":")
    target, settings = getattr(import_module(module, __package__), name).of(address)
    return Bridge(
        target,
        settings.name or f"{address.scheme}-{address.digest()}",
        warning=_warning(address),
        since=settings.since,
        backoff=backoff,
    )


def _warning(address: BridgeAddress) -> str:
    """What the owner should know of a connection that is not encrypted."""
    if address.tls or address.local:
        return ""
    return f"the connection is not encrypted; where the other side can, write {address.scheme}s:// instead."
