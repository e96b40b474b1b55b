"""What can go wrong on the way to the other side, in words for the owner of the bridge."""

from __future__ import annotations

import socket
import ssl

from ...errors import OnlookerError

__all__ = ["BridgeError", "Failure", "Refused", "Unreachable", "explain"]


class BridgeError(OnlookerError):
    """A bridge cannot be made as it was written. The message holds no secret."""


class Failure(Exception):
    """Not all events of a batch arrived. The reason holds no secret."""

    def __init__(self, reason: str, *, done: int = 0, after: float = 0.0) -> None:
        """Remember what happened.

        Args:
            reason: why, in a few words.
            done: how many events from the front of the batch the other side has acknowledged.
            after: seconds that the other side wants to be left alone.
        """
        super().__init__(reason)
        self.reason = reason
        self.done = done
        self.after = after


class Unreachable(Failure):
    """The other side is not there, too busy or not set up: any event would fail now. To be tried again for ever."""


class Refused(Failure):
    """The other side does not want what it was sent; another event may do better."""


def explain(error: OSError) -> str:
    """Say in a few words why a connection failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = str(error.verify_message).lower()
        return f"its certificate cannot be trusted ({why}); for an authority of your own add ca=FILE"
    if isinstance(error, ssl.SSLError):
        return f"no TLS connection ({(error.reason or 'broken').replace('_', ' ').lower()})"
    if isinstance(error, socket.gaierror):
        return "no computer of that name is known"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there (connection refused)"
    return (error.strerror or type(error).__name__).lower()
