"""All of a simulated camera in one process: the port, the pictures, the faults and the control channel."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import UsageError
from .auth import Account
from .camera import Camera
from .clock import CameraClock
from .connection import Connection, Policy
from .control import HOST, Control
from .faults import Effects, Fault, fault_of_json
from .formats import Wish
from .http_mjpeg import HttpConnection
from .messages import MAX_LINE
from .rtsp import RtspConnection

__all__ = ["Settings", "Simulator"]

_PARENT_LOOK = 0.25  # seconds between looks at the parent process
_FAREWELL = 10.0  # seconds in which clients may read the rest
_REOPEN = 0.2  # seconds between attempts to get the port back
_NOISE_EVERY, _NOISE_SIZE = 0.05, 300  # seconds, bytes
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    file: Path
    host: str = "127.0.0.1"
    port: int = 8554
    path: str = "/live"
    protocol: Literal["rtsp", "http-mjpeg"] = "rtsp"
    wish: Wish = Wish()
    account: Account | None = None
    faults: tuple[Fault, ...] = ()
    clock_offset: float = 0.0  # seconds
    clock_drift: float = 0.0  # parts per million
    report_interval: float | None = 5.0  # seconds; None: no sender reports
    rtp_info: bool = True
    session_timeout: float = 60.0  # seconds
    control: int | None = None  # port; 0 for any
    loop: bool = True
    seed: int = 0
    parent: int | None = None  # process that must live


class Simulator:
    """Runs one camera until it is stopped, its file is over (`loop` off), or its parent process is gone."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        """`say` gets one line for each event."""
        self._settings, self._say = settings, say
        self._effects = Effects(settings.seed)
        self._clock = CameraClock(settings.clock_offset, settings.clock_drift)
        self._camera = Camera(settings.file, settings.wish, self._clock, self._effects, loop=settings.loop)
        self._policy = Policy(
            path=settings.path,
            account=settings.account,
            report_interval=settings.report_interval,
            rtp_info=settings.rtp_info,
            session_timeout=settings.session_timeout,
            say=say,
        )
        self._port = settings.port
        self._server: asyncio.Server | None = None
        self._connections: dict[Connection, asyncio.Task[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._return: asyncio.Task[None] | None = None  # opens the port again
        self._done = asyncio.Event()
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Run to the end.

        Raises:
            OnlookerError: the file, the port or a fault cannot be had.
            KeyboardInterrupt: Ctrl-C.
        """
        self._watch_signals()
        control = Control(self._obey)
        try:
            await self._camera.start()
            await self._open()
            self._say(f"{self.url} shows {self._camera.format}")
            if self._settings.control is not None:
                self._say(f"control {HOST}:{await self._opened(control.open, self._settings.control)}")
            self._spawn(self._play())
            self._spawn(self._watch_parent())
            for fault in self._settings.faults:
                self._spawn(self._schedule(fault))
            await self._done.wait()
        finally:
            await self._close(control)
        if self._failure:
            raise self._failure

    @property
    def url(self) -> str:
        """Where to watch, without user and password."""
        host = _ANYWHERE.get(self._settings.host, self._settings.host)
        scheme = "http" if self._settings.protocol == "http-mjpeg" else "rtsp"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._port}{self._settings.path}"

    async def _play(self) -> None:
        await self._camera.run()
        self._say("the file is over")
        for connection in self._connections:
            connection.writer.close()
        if self._connections:  # clients may still have to read
            await asyncio.wait([*self._connections.values()], timeout=_FAREWELL)
        self._done.set()

    def _watch_signals(self) -> None:
        def interrupted() -> None:
            self._failure = KeyboardInterrupt()
            self._done.set()

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, interrupted)
        loop.add_signal_handler(signal.SIGTERM, self._done.set)

    async def _watch_parent(self) -> None:
        """A child whose parent was killed belongs to another process."""
        while self._settings.parent is not None and os.getppid() == self._settings.parent:
            await asyncio.sleep(_PARENT_LOOK)
        if self._settings.parent is not None:
            self._done.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
            self._done.set()

    async def _close(self, control: Control) -> None:
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._shut()
        await control.close()
        await self._camera.close()

    # ---- the port

    async def _open(self) -> None:
        self._port = await self._opened(self._listen, self._port)

    async def _opened(self, opening: Callable[[int], Coroutine[Any, Any, int]], port: int) -> int:
        try:
            return await opening(port)
        except (OSError, OverflowError) as error:
            why = (getattr(error, "strerror", None) or str(error)).lower()
            raise UsageError(f"cannot listen on port {port} ({why}); give another port, or 0 for any.") from error

    async def _listen(self, port: int) -> int:
        self._server = await asyncio.start_server(self._accept, self._settings.host, port, limit=MAX_LINE)
        return int(self._server.sockets[0].getsockname()[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = HttpConnection if self._settings.protocol == "http-mjpeg" else RtspConnection
        connection = kind(self._camera, self._policy, reader, writer)
        task = asyncio.current_task()
        assert task
        self._connections[connection] = task
        try:
            await connection.serve()
        except asyncio.CancelledError:
            pass  # only `_shut` cancels, and Python 3.11 would report a cancelled handler as an error
        finally:
            del self._connections[connection]

    async def _shut(self) -> None:
        """Close the port and all connections."""
        if self._server:
            self._server.close()
        self._drop_all()
        tasks = [*self._connections.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _drop_all(self) -> None:
        for connection in [*self._connections]:
            connection.drop()

    # ---- commands and faults

    async def _obey(self, command: dict[str, Any]) -> dict[str, Any]:
        if "fault" in command:
            await self._begin(fault_of_json(command))
        elif command.get("clear"):
            self._effects.clear()
        elif command.get("stop"):
            self._done.set()
        elif not command.get("status"):
            raise UsageError("unknown command; there are fault, clear, status and stop.")
        return {"ok": True, "clients": len(self._connections), **self._camera.status()}

    async def _begin(self, fault: Fault) -> None:
        """Let a fault begin now, or at its time."""
        if fault.at is None:
            await self._apply(fault)
        else:
            self._spawn(self._schedule(fault))

    async def _schedule(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at or 0)
        due = time.monotonic()
        while True:
            await self._apply(fault)
            if fault.every is None:
                return
            due += fault.every
            await asyncio.sleep(max(due - time.monotonic(), 0))

    async def _apply(self, fault: Fault) -> None:
        self._say(f"fault {fault}")
        match fault.kind:
            case "codec" | "size" | "fps":
                await self._camera.change(fault)
                self._say(f"{self.url} shows {self._camera.format}")
                self._drop_all()
            case "clock":
                self._clock.jump(float(fault.value or 0))
            case "pts-jump":
                self._camera.jump(float(fault.value or 0))
            case "reset":
                for connection in [*self._connections]:
                    connection.reset()
            case "kill":
                if self._return:
                    self._return.cancel()
                await self._shut()
                self._return = self._spawn(self._come_back(fault.seconds))
            case "garbage-rtsp":
                self._effects.begin(fault)
                self._spawn(self._noise())
            case _:
                self._effects.begin(fault)
                if self._effects.refusal():
                    self._drop_all()

    async def _come_back(self, seconds: float) -> None:
        """Open the port again; somebody else may hold it for a while."""
        await asyncio.sleep(seconds)
        while True:
            try:
                await self._listen(self._port)
            except OSError:
                await asyncio.sleep(_REOPEN)
            else:
                self._say(f"{self.url} is back")
                return

    async def _noise(self) -> None:
        while self._effects.active("garbage-rtsp"):
            for connection in [*self._connections]:
                if not connection.writer.is_closing():
                    connection.writer.write(self._effects.noise(_NOISE_SIZE))
            await asyncio.sleep(_NOISE_EVERY)
