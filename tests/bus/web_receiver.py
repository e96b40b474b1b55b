"""A web server in a process of its own that records what is posted to it, and fails on command.

``WebReceiver`` starts it, tells it how to behave, and reads what it got. Behaviours: ``ok``; a status; ``429:SECONDS``
with Retry-After; ``hang`` (records, never answers); ``slow`` (answers late); ``redirect``; ``garbage``; ``drop``
(records, and closes the connection without an answer); ``poison:TEXT`` (422 where TEXT occurs).
"""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class WebReceiver:
    def __init__(self, folder: Path, tls: Path | None = None) -> None:
        self._log, self._behaviour = folder / "received.jsonl", folder / "behaviour"
        self._log.touch()
        self.behave("ok")
        arguments = [str(self._log), str(self._behaviour), *([str(tls)] if tls else [])]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bus.web_receiver", *arguments], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def behave(self, how: str) -> None:
        beside = self._behaviour.with_suffix(".new")
        beside.write_text(how)
        beside.rename(self._behaviour)

    def requests(self) -> list[dict[str, Any]]:
        """All requests so far: status, path, headers, body (bytes)."""
        found = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [one | {"body": base64.b64decode(one["body"])} for one in found]

    def events(self) -> list[dict[str, Any]]:
        """The events of the requests that were acknowledged, in their order."""
        return [event for one in self.requests() if one["status"] == 200 for event in _events(one["body"])]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _events(body: bytes) -> list[dict[str, Any]]:
    given = json.loads(body)
    return given if isinstance(given, list) else [given]


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients are killed here; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log, behaviour = Path(), Path()
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        how, _, more = self.behaviour.read_text().partition(":")
        if how == "poison":
            how = "422" if more.encode() in body else "ok"
        if how == "slow":
            time.sleep(0.3)
        status = 200 if how in ("ok", "slow") else 302 if how == "redirect" else int(how) if how.isdecimal() else 0
        # Written before the answer: what was answered 200 is recorded in any case.
        self._record(status, body)
        if how == "hang":
            time.sleep(3600)
        if how == "garbage":
            self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        if more and status == 429:
            self.send_header("Retry-After", more)
        if status == 302:
            self.send_header("Location", f"http://{self.headers['Host']}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _record(self, status: int, body: bytes) -> None:
        line = {"status": status, "path": self.path, "time": time.time(), "body": base64.b64encode(body).decode()}
        with self.lock, self.log.open("a") as file:
            file.write(json.dumps(line | {"headers": {k.lower(): v for k, v in self.headers.items()}}) + "\n")

    def log_message(self, *args: Any) -> None:
        pass


def main(log: str, behaviour: str, tls: str | None = None) -> None:
    _Handler.log, _Handler.behaviour = Path(log), Path(behaviour)
    server = _Server(("127.0.0.1", 0), _Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
