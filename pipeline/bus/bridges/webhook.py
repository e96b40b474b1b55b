"""Events to a web server: POSTs of CloudEvents, signed as Standard Webhooks describes.

A request is a batch (``application/cloudevents-batch+json``, CloudEvents HTTP binding 1.0.2, section 3.3) or, with
``batch=1``, one event (``application/cloudevents+json``, section 3.2). Signature and headers: Standard Webhooks 1.0.0,
HMAC-SHA256 over ``<webhook-id>.<webhook-timestamp>.<body>``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from email.utils import parsedate_to_datetime
from importlib.metadata import version

from pydantic import Field, SecretStr

from ..protocol import PAGE_EVENTS
from ..record import Stored
from .address import BridgeAddress, settings_of
from .failure import BridgeError, Refused, Unreachable, explain
from .target import Context
from .tls import TlsSettings, client_context

__all__ = ["WebhookSettings", "WebhookTarget", "sign"]

_LATER = {408, 425, 429}
"""Statuses below 500 that say: not now."""
_LONGEST_AFTER = 3600.0  # seconds; the most that a Retry-After is believed
_ANSWER_BYTES = 64 << 10
_STEP_SECONDS = 10.0  # a single step of the network


class WebhookSettings(TlsSettings):
    """What a webhook bridge can be told; other parameters stay in the address that is called."""

    secret: SecretStr | None = Field(
        default=None, description="Key of the signature: whsec_ and base64, or any text; without it nothing is signed."
    )
    batch: int = Field(default=100, ge=1, le=PAGE_EVENTS, description="Events in a request, at most.")
    wait: float = Field(default=0.5, ge=0, le=60, description="Seconds that an event waits for others to go with it.")
    tries: int = Field(default=10, ge=1, description="How often what is refused (4xx) is sent before it is left out.")
    timeout: float = Field(default=20.0, gt=0, le=300, description="Seconds that one request may take.")


class WebhookTarget:
    """Posts events; an answer 2xx acknowledges them. Redirects are not followed."""

    @classmethod
    def of(cls, address: BridgeAddress) -> tuple[WebhookTarget, WebhookSettings]:
        """The target of an address ``http(s)://USER:PASSWORD@HOST/PATH``.

        Settings are taken out of its query; where they are given beside the address, the query stays as it is.

        Raises:
            BridgeError: a setting is wrong.
        """
        own = [] if address.given else [one for one in address.query if one.name in WebhookSettings.model_fields]
        settings = settings_of(WebhookSettings, replace(address, query=tuple(own)))
        query = "&".join(one.written for one in address.query if one not in own)
        return cls(address, settings, f"/{address.path}" + (f"?{query}" if query else "")), settings

    def __init__(self, address: BridgeAddress, settings: WebhookSettings, path: str) -> None:
        """Prepare; ``path`` is what is called, query included. Raises as ``of``."""
        self.shown = address.shown
        self.kinds, self.streams = settings.kinds, settings.stream
        self.batch, self.tries = settings.batch, settings.tries
        self.gather = settings.wait if settings.batch > 1 else 0.0
        self._address, self._settings, self._path = address, settings, path
        self._tls = client_context(address, settings)
        self._key = _key(address, settings.secret.get_secret_value()) if settings.secret else None
        self._headers = {"User-Agent": f"onlooker/{version('onlooker')}"}
        if address.user is not None:
            login = f"{address.user}:{address.password or ''}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        self._connection: http.client.HTTPConnection | None = None
        self._late = False

    def wants(self, event: Stored) -> bool:
        """See ``Target.wants``."""
        return self._settings.admits(event)

    def open(self, context: Context) -> None:
        """Nothing is connected before there is something to send. See ``Target.open``."""
        self._name = hashlib.sha256(f"{socket.gethostname()} {context.name}".encode()).hexdigest()[:12]

    def send(self, events: Sequence[Stored]) -> None:
        """See ``Target.send``."""
        if self._settings.batch == 1:
            kind, body = "application/cloudevents+json", events[0].body
        else:
            kind, body = "application/cloudevents-batch+json", b"[" + b",".join(one.body for one in events) + b"]"
        numbers = [str(event.header.seq) for event in events]
        # The same for each attempt, so that a receiver can tell that it has it.
        message = f"msg_{self._name}_{numbers[0]}_{numbers[-1]}_{len(numbers)}"
        moment = str(int(time.time()))
        headers = self._headers | {"Content-Type": kind, "webhook-id": message, "webhook-timestamp": moment}
        if self._key is not None:
            headers["webhook-signature"] = sign(self._key, message, moment, body)
        headers["onlooker-seq"] = ",".join(numbers)
        status, after = self._post(body, headers)
        if 200 <= status < 300:
            return
        if status >= 500 or status in _LATER:
            raise Unreachable(f"the server answers {_said(status)}", after=after)
        if 300 <= status < 400:
            raise Refused(f"the server answers {_said(status)}; redirects are not followed: give the address itself")
        raise Refused(f"the server answers {_said(status)}")

    def tick(self) -> bool:
        """Nothing is known of a server that is not called. See ``Target.tick``."""
        return False

    def abort(self) -> None:
        """See ``Target.abort``."""
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with suppress(OSError):  # past SSLSocket's own, which would take the state away under the reader
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """See ``Target.close``."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, float]:
        """Post; returns the status, and the seconds that the server wants to be left alone."""
        reused = self._connection is not None
        timer = threading.Timer(self._settings.timeout, self._end_late)
        self._late = False
        timer.start()
        try:
            try:
                return self._exchange(body, headers)
            except ConnectionError:
                if not reused or self._late:
                    raise
                self.close()  # the server had ended a connection that was not used for a while
                return self._exchange(body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if self._late:
                raise Unreachable("no answer in time") from None
            if isinstance(error, OSError):
                raise Unreachable(explain(error)) from None
            raise Unreachable("what answers there does not speak HTTP") from None
        finally:
            timer.cancel()
            timer.join()

    def _exchange(self, body: bytes, headers: dict[str, str]) -> tuple[int, float]:
        connection = self._connection = self._connection or self._connect()
        connection.request("POST", self._path, body, headers)
        response = connection.getresponse()
        response.read(_ANSWER_BYTES)
        if not response.isclosed():  # a longer answer: nobody reads the rest of it
            self.close()
        return response.status, _seconds(response.headers.get("Retry-After"))

    def _connect(self) -> http.client.HTTPConnection:
        host, port, limit = self._address.host, self._address.port, min(_STEP_SECONDS, self._settings.timeout)
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=limit)
        return http.client.HTTPSConnection(host, port, timeout=limit, context=self._tls)

    def _end_late(self) -> None:
        self._late = True
        self.abort()


def sign(key: bytes, message: str, moment: str, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    digest = hmac.digest(key, f"{message}.{moment}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


def _key(address: BridgeAddress, secret: str) -> bytes:
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise BridgeError(f"{address.shown}: the secret begins with whsec_ but goes on with no base64.") from None


def _said(status: int) -> str:
    return f"{status} {http.client.responses.get(status, '')}".strip()


def _seconds(after: str | None) -> float:
    """What a Retry-After says: seconds or a date (RFC 9110, section 10.2.3)."""
    if after is None:
        return 0.0
    try:
        seconds = float(after) if after.strip().isdecimal() else parsedate_to_datetime(after).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_AFTER)
