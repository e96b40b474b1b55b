"""Addresses of bridges: one line of text says where to, what, and how.

    mqtts://USER:PASSWORD@HOST/PREFIX?kinds=caption,query&phase=end&stream=cam1

The line may hold secrets; ``shown`` is what may be seen of it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote, unquote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from onlooker.operators.events import Phase
from onlooker.operators.registry import suggest

from ...secrets import Secrets
from ..members import Name
from ..record import Stored
from .failure import BridgeError

__all__ = ["BridgeAddress", "Settings", "parse_bridge", "settings_of"]

PORTS = {"mqtt": 1883, "mqtts": 8883, "http": 80, "https": 443, "kafka": 9092, "kafkas": 9092}
# Settings that do not say where to and what.
_NO_PLACE = {"secret", "name", "since", "batch", "wait", "tries", "timeout", "ca", "cert", "client_id", "protocol"}
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z]+)://(?:(?P<login>[^/]*)@)?(?P<place>[^/@]+)(?P<path>/.*)?", re.DOTALL)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(?P<port>[0-9]{1,5}))?")


def _listed(value: Any) -> Any:
    return tuple(value.split(",")) if isinstance(value, str) else value


_Kinds = Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z_]+$")], ...], BeforeValidator(_listed)]
_Streams = Annotated[tuple[Name, ...], BeforeValidator(_listed)]


class Settings(BaseModel):
    """What every bridge can be told behind the ``?`` of its address."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kinds: _Kinds = Field(default=(), description="Only events of these kinds.")
    stream: _Streams = Field(default=(), description="Only events of these streams.")
    phase: Annotated[tuple[Phase, ...], BeforeValidator(_listed)] = Field(
        default=(), description="Only events in these phases; end: settled ones."
    )
    since: Literal["now", "oldest"] = Field(
        default="now", description="Where a bridge begins that the store does not know yet."
    )
    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._-]{1,60}$",
        description="Keeps the bridge's place in the store when its address changes.",
    )

    def admits(self, stored: Stored) -> bool:
        """Whether an event is one of those that are asked for."""
        return (
            (not self.kinds or stored.kind in self.kinds)
            and (not self.stream or stored.stream in self.stream)
            and (not self.phase or json.loads(stored.body)["data"]["phase"] in self.phase)
        )


class Parameter(NamedTuple):
    """One parameter behind the ``?``."""

    name: str
    value: str
    written: str
    """As it stands in an address, escaped."""


@dataclass(frozen=True, slots=True, repr=False)
class BridgeAddress:
    """Where a bridge leads to."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    path: str
    """Without the slash at its beginning."""
    user: str | None = None
    password: str | None = None
    query: tuple[Parameter, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    """Settings beside the address."""

    @property
    def host(self) -> str:
        """The first host."""
        return self.hosts[0][0]

    @property
    def port(self) -> int:
        """The port of the first host."""
        return self.hosts[0][1]

    @property
    def settings(self) -> dict[str, Any]:
        """Settings behind the ``?`` and beside the address."""
        return {parameter.name: parameter.value for parameter in self.query} | dict(self.given)

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted and the other side proves who it is."""
        return self.scheme.endswith("s")

    @property
    def local(self) -> bool:
        """Whether nothing leaves this machine."""
        return all(_is_loopback(host) for host, _ in self.hosts)

    @property
    def shown(self) -> str:
        """Scheme and hosts: paths of webhooks are often secrets."""
        return f"{self.scheme}://" + ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts
        )

    def __repr__(self) -> str:
        """Return the shown form."""
        return f"BridgeAddress({self.shown!r})"

    def digest(self) -> str:
        """A name for the place and the settings, login and secrets left out, that tells nothing of them."""
        open_ones = {name: value for name, value in self.settings.items() if name not in _NO_PLACE}
        text = json.dumps([self.scheme, self.hosts, self.path, open_ones], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_bridge(spec: str | Mapping[str, Any], secrets: Secrets) -> BridgeAddress:
    """Read the address of a bridge and put the values of ``${env:NAME}`` and ``${secret:NAME}`` in.

    Args:
        spec: an address, or a mapping with the address as ``to`` and the settings as further members.
        secrets: where values come from.

    Raises:
        BridgeError: it is no such address. The message repeats no part of it that may be secret.
        SecretsError: a value cannot be had.
    """
    members = {"to": spec} if isinstance(spec, str) else dict(spec)
    text = members.pop("to", None)
    if not isinstance(text, str):
        raise BridgeError("a bridge needs its address: write to: mqtt://HOST, https://HOST/PATH or kafka://HOST/TOPIC.")
    if re.fullmatch(r"\$\{[^}]*\}", text):  # all of it came from outside
        text = secrets.resolve(text, "the bridge")
    base, _, query = text.partition("?")
    found = _ADDRESS.fullmatch(secrets.resolve(base, "the bridge"))
    scheme = found["scheme"].lower() if found else ""
    if found is None or scheme not in PORTS:
        raise BridgeError("no address of a bridge; write mqtt(s)://HOST, http(s)://HOST/PATH or kafka(s)://HOST/TOPIC.")
    user, colon, password = (found["login"] or "").partition(":")
    return BridgeAddress(
        scheme=scheme,
        hosts=tuple(_host(scheme, place) for place in found["place"].split(",")),
        path=(found["path"] or "").removeprefix("/"),
        user=unquote(user) or None,
        password=unquote(password) if colon else None,
        query=tuple(_parameter(part, secrets) for part in query.split("&") if part),
        given={name: _resolved(value, secrets) for name, value in members.items()},
    )


_S = TypeVar("_S", bound=Settings)


def settings_of(kind: type[_S], address: BridgeAddress) -> _S:
    """Check the settings of an address.

    Raises:
        BridgeError: one is unknown or wrong.
    """
    settings = address.settings
    for name in settings:
        if name not in kind.model_fields:
            raise BridgeError(f"{address.shown}: unknown setting; {suggest(name, list(kind.model_fields))}")
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise BridgeError(f"{address.shown}: the setting {first['loc'][0]} is wrong: {first['msg']}.") from None


def _parameter(part: str, secrets: Secrets) -> Parameter:
    name, equals, value = part.partition("=")
    if "${" not in value:
        return Parameter(name, unquote(value), part)
    resolved = secrets.resolve(value, "the bridge")  # not unquoted: a secret may hold a percent sign
    return Parameter(name, resolved, f"{name}{equals}{quote(resolved, safe='')}")


def _resolved(value: Any, secrets: Secrets) -> Any:
    return secrets.resolve(value, "the bridge") if isinstance(value, str) else value


def _host(scheme: str, place: str) -> tuple[str, int]:
    found = _HOST.fullmatch(place)
    port = int(found["port"]) if found and found["port"] else PORTS[scheme]
    if found is None or not 0 < port < 65536:
        raise BridgeError(f"the bridge {scheme}:// has no readable host and port; write {scheme}://HOST:PORT.")
    return found["host"].strip("[]"), port


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
