"""Commands of other programs to a run: what the bus takes becomes control packets and streams of a session."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from onlooker.operators.contract import Control
from onlooker.operators.decode.live.address import parse_source

from .assemble import source_spec
from .bus.protocol import new_ulid
from .bus.requests import Command, RequestError
from .errors import OnlookerError, UsageError
from .secrets import Secrets
from .session import Session

__all__ = ["SessionCommands"]

# A pattern can read any file of this machine, and a file is none of the business of whoever is elsewhere.
_ENVIRONMENT = re.compile(r"\$\{env:", re.IGNORECASE)
_SOURCES = {"rtsp", "http", "rtmp", "srt", "udp", "tcp", "device"}


class SessionCommands:
    """A ``TakeCommand`` for one run: obeys in a thread of its own, one command after the other."""

    def __init__(self, secrets: Secrets) -> None:
        """Refuse until a session is there.

        Args:
            secrets: what ``${env:NAME}`` and ``${secret:NAME}`` in sources stand for.
        """
        self._secrets = secrets
        self._session: Session | None = None
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "onlooker-commands")

    def attach(self, session: Session) -> None:
        """Obey from now on."""
        self._session = session

    def close(self) -> None:
        """Obey no more; commands that wait are refused."""
        with self._lock:
            self._session = None
        self._worker.shutdown()

    def __call__(self, command: Command, done: Callable[[dict[str, Any] | RequestError], None]) -> None:
        """Take a command; see ``TakeCommand``."""
        try:
            self._worker.submit(self._work, command, done)
        except RuntimeError:  # it has been shut down
            done(RequestError("unavailable", "the run is over"))

    def _work(self, command: Command, done: Callable[[dict[str, Any] | RequestError], None]) -> None:
        try:
            with self._lock:
                result = self._obey(command)
        except RequestError as error:
            done(error)
        except OnlookerError as error:
            done(RequestError("bad_request", str(self._secrets.mask(str(error)))))
        except Exception as error:  # whatever it is, the run goes on and the asker gets an answer
            done(RequestError("unavailable", f"the command has failed: {type(error).__name__}"))
        else:
            done(result)

    def _obey(self, command: Command) -> dict[str, Any]:
        session, members = self._session, command.members
        if session is None:
            raise RequestError("unavailable", "the run has not begun, or is over")
        stream = members.get("stream")
        if command.op != "stream.add" and stream is not None and stream not in session.streams:
            raise RequestError("unknown_stream", f"there is no stream {stream!r}")
        match command.op:
            case "query.add" | "query.remove":
                session.send(Control(command.op, {"text": members["text"]}, stream))
            case "ask":
                name = new_ulid()
                session.send(Control("ask", {"ask": name, "box": members.get("box")}, stream, lasting=False))
                return {"accepted": 1, "ask": name}
            case "stream.add":
                return self._add(session, members["source"], stream)
            case "stream.remove":
                session.remove(members["stream"])
        return {"accepted": 1}

    def _add(self, session: Session, source: str, stream: str | None) -> dict[str, Any]:
        if _ENVIRONMENT.search(source):  # or whoever may give commands could send any of them to a host of theirs
            raise UsageError("the address of a camera may name ${secret:NAME} here, but no environment variable.")
        uri = self._secrets.resolve(source, "the source")
        if parse_source(uri).kind not in _SOURCES:
            raise UsageError("only cameras can be added from elsewhere: rtsp, http, rtmp, srt, udp, tcp or a webcam.")
        spec = source_spec(uri, stream)
        session.add(spec)
        return {"accepted": 1, "stream": spec.stream}
