"""Commands to a running camera: one line of JSON each, one line of JSON back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from onlooker.operators.errors import OnlookerError

from ..errors import UsageError

__all__ = ["HOST", "Control"]

HOST = "127.0.0.1"
_MAX_LINE = 65_536  # bytes
_EXAMPLE = 'write {"status": true}, {"fault": "stall", "seconds": 5}, {"clear": true} or {"stop": true}.'


class Control:
    """Listens on the loopback interface and passes commands on."""

    def __init__(self, obey: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None:
        """`obey` carries out a command and returns what to answer; it raises OnlookerError for wrong ones."""
        self._obey = obey
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, port: int) -> int:
        """Listen; returns the port. Raises OSError."""
        self._server = await asyncio.start_server(self._accept, HOST, port, limit=_MAX_LINE)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Close the port and all connections."""
        if self._server:
            self._server.close()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ValueError, ConnectionError):  # too long a line; the client is gone
            pass
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # what was answered goes out before the connection closes
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            command = json.loads(line)
            if not isinstance(command, dict):
                raise UsageError(f"that is no JSON object; {_EXAMPLE}")
            return await self._obey(command)
        except (json.JSONDecodeError, UnicodeDecodeError):
            return {"error": f"that is not JSON; {_EXAMPLE}"}
        except RecursionError:
            return {"error": f"that is nested too deeply; {_EXAMPLE}"}
        except OnlookerError as error:
            return {"error": str(error)}
