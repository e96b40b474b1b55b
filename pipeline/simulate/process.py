"""A simulated camera in a process of its own, for tests and scripts."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from ..errors import OnlookerError, UsageError
from .control import HOST

__all__ = ["SimulatedCamera"]

_PASSWORD = "ONLOOKER_CAMERA_PASSWORD"
_START_TIMEOUT = 120.0  # seconds; a loaded machine takes its time to start Python
_ANSWER_TIMEOUT = 60.0  # seconds
_STOP_TIMEOUT = 10.0  # seconds


class SimulatedCamera:
    """Starts ``onlooker simulate-camera`` and waits until it listens; use it in a ``with`` statement.

    Options are those of the command line as keywords: ``codec="h265"``, ``clock_offset=2.5``, ``once=True``,
    ``sender_reports=False``, ``fault=["stall@5:2", "loss:5"]``. The port is any free one unless given. The process ends
    with this one, however this one ends.
    """

    def __init__(self, file: str | Path, *, user: str | None = None, password: str = "", **options: Any) -> None:
        """Start the process; raises OnlookerError with the command's own message if it does not come up."""
        options = {"port": 0, **options, "user": user, "password_env": _PASSWORD if user else None}
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "onlooker.pipeline.cli.main", "simulate-camera", str(file), *_arguments(options)],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, _PASSWORD: password},
        )
        try:
            self.public_url, self._control = self._await_start()
        except BaseException:
            self.stop()
            raise
        login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
        self.url = self.public_url.replace("://", f"://{login}", 1)

    def __enter__(self) -> Self:
        """Return the running camera."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def fault(self, kind: str, **parameters: float | str) -> dict[str, Any]:
        """Let a fault begin: ``fault("stall", seconds=5)``, ``fault("loss", percent=5)``; returns the status.

        Raises:
            UsageError: there is no such fault, or it cannot be done.
        """
        return self._ask({"fault": kind, **parameters})

    def clear(self) -> dict[str, Any]:
        """End all faults that last."""
        return self._ask({"clear": True})

    def status(self) -> dict[str, Any]:
        """Return counters and state."""
        return self._ask({"status": True})

    def log(self) -> list[str]:
        """Return the lines that the process printed so far."""
        return os.pread(self._output.fileno(), os.fstat(self._output.fileno()).st_size, 0).decode().splitlines()

    def wait(self, timeout: float) -> int:
        """Wait for the process to end by itself, at most `timeout` seconds; returns its exit code."""
        return self._process.wait(timeout)

    def stop(self) -> None:
        """End the process; harmless when repeated."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._output.close()

    def _await_start(self) -> tuple[str, tuple[str, int]]:
        give_up = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < give_up:
            ended = self._process.poll() is not None
            text = "\n".join(self.log())
            url, control = re.search(r"(\w+://\S+) shows", text), re.search(r"control \S+:(\d+)", text)
            if url and control:
                return url[1], (HOST, int(control[1]))
            if ended:
                raise OnlookerError(text.splitlines()[-1].removeprefix("onlooker: ") if text else "no camera came up.")
            time.sleep(0.02)
        raise OnlookerError(f"the camera did not come up within {_START_TIMEOUT:g} s.")

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        with socket.create_connection(self._control, _ANSWER_TIMEOUT) as connection:
            connection.sendall(json.dumps(command).encode() + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the camera has stopped."}
        if "error" in answer:
            raise UsageError(answer["error"])
        return answer


def _arguments(options: dict[str, Any]) -> list[str]:
    """Write keywords as command line options."""
    arguments = ["--control=0", f"--parent={os.getpid()}"]
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, (list, tuple)):
            arguments += [f"--{flag}={item}" for item in value]
        elif value is not None:
            arguments.append(f"--{flag}={value}")
    return arguments
