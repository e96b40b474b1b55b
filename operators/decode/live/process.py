"""The reader's handle on one decoding process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .address import LiveAddress
from .options import LiveOptions
from .wire import Channel, ChannelClosed, Header

__all__ = ["DecoderProcess"]

_MODULE = "onlooker.operators.decode.live.worker"
_ROOT = Path(__file__).parents[4]
"""Where the package was imported from, so that the child runs the same code."""
_KILL_PATIENCE = 5.0


class DecoderProcess:
    """A child that reads one connection. `kill` may come at any moment and leaves nothing behind."""

    def __init__(self, address: LiveAddress, options: LiveOptions) -> None:
        """Start the child and hand it the address; raises OSError where no process can be made."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._channel = Channel(ours)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                process_group=0,  # Ctrl-C at a terminal is for the reader to act on
            )
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()
        with contextlib.suppress(ChannelClosed):  # a child that died at once is found by the first `receive`
            self._tell({"address": address.to_wire(), "options": options.to_wire(), "parent": os.getpid()})

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def want(self, wanted: bool) -> None:
        """Ask for one frame, or take that back; then a frame may already be on its way. The child may be gone."""
        self._tell({"do": "want", "wanted": wanted})

    def sample(self, fps: float | None) -> None:
        """Take `fps` samples per second of media time from now on, None for every frame."""
        self._tell({"do": "sample", "fps": fps})

    def clip(self, number: int, epoch: int, t_start: float, t_end: float) -> None:
        """Ask for clip `number`, of the child's epoch `epoch`; a message `clip` will answer."""
        self._tell({"do": "clip", "number": number, "epoch": epoch, "t_start": t_start, "t_end": t_end})

    def retire(self) -> None:
        """Let the child hang up and read no more; it goes on answering for clips."""
        self._tell({"do": "retire"})

    def fileno(self) -> int:
        """Descriptor of the channel, to be waited for."""
        return self._channel.fileno()

    def receive(self, timeout: float, also: Sequence[Any] = ()) -> tuple[Header, bytearray] | None:
        """Return the next message of the child; see `Channel.receive`."""
        return self._channel.receive(timeout, also)

    def kill(self) -> None:
        """End the child whatever it is doing, and reap it; harmless when repeated."""
        self._channel.close()
        self._process.kill()
        # A process in a broken device driver cannot even be killed; subprocess reaps it later.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILL_PATIENCE)

    def _tell(self, order: Header) -> None:
        with contextlib.suppress(ChannelClosed):
            self._channel.send(order)


def _environment() -> dict[str, str]:
    """Our environment, with the folder that this package lies in on the child's path."""
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
