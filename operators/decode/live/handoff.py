"""From the thread that decodes to the thread that sends: a bounded queue in which every frame is accounted for."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, Literal, TypeVar

__all__ = ["DropPolicy", "Handoff"]

DropPolicy = Literal["latest", "drop_oldest", "block"]
T = TypeVar("T")


class Handoff(Generic[T]):
    """Queue of decoded frames. At any moment decoded = taken + waiting + the sum of the drops.

    `latest` keeps one frame, the newest; `drop_oldest` the newest `size`; `block` lets the decoder wait for room.
    """

    def __init__(self, policy: DropPolicy, size: int = 1) -> None:
        """Make an empty queue; `size` frames for `drop_oldest` and `block`."""
        if policy not in ("latest", "drop_oldest", "block") or size < 1:
            raise ValueError(f"unknown policy or size: {policy!r}, {size}")
        self._policy, self._size = policy, 1 if policy == "latest" else size
        self._waiting: deque[T] = deque()
        self._condition = threading.Condition()
        self._wanted = self._finished = False
        self._decoded = self._taken = 0
        self._drops: dict[str, int] = {}

    def put(self, frame: T) -> None:
        """Add a frame; the policy decides what gives way to it."""
        with self._condition:
            self._decoded += 1
            if self._policy == "block":
                self._condition.wait_for(lambda: len(self._waiting) < self._size)
            elif len(self._waiting) == self._size:
                self._waiting.popleft()
                self._drop("replaced" if self._policy == "latest" else "overflow")
            self._waiting.append(frame)
            self._condition.notify_all()

    def refuse(self, reason: str) -> None:
        """Count a decoded frame that nobody is to get."""
        with self._condition:
            self._decoded += 1
            self._drop(reason)

    def want(self, wanted: bool) -> None:
        """Say whether the other side waits for a frame."""
        with self._condition:
            self._wanted = wanted
            self._condition.notify_all()

    def take(self, timeout: float) -> T | None:
        """Return the next frame once one is there and wanted, None after `timeout` seconds or at the end."""
        with self._condition:
            self._condition.wait_for(lambda: self._ready() or (self._finished and not self._waiting), timeout)
            if not self._ready():
                return None
            self._wanted = False
            self._taken += 1
            frame = self._waiting.popleft()
            self._condition.notify_all()
            return frame

    def spoil(self, reason: str) -> None:
        """Count the frame taken last as dropped, and want another one instead."""
        with self._condition:
            self._taken -= 1
            self._drop(reason)
            self._wanted = True

    def finish(self) -> None:
        """Say that no frame will be put any more."""
        with self._condition:
            self._finished = True
            self._condition.notify_all()

    @property
    def empty(self) -> bool:
        """Whether no frame waits."""
        return not self._waiting

    @property
    def wanted(self) -> bool:
        """Whether the other side waits for a frame."""
        return self._wanted

    def counts(self) -> dict[str, int]:
        """Return `decoded`, `taken` and each drop reason with its number, all of one moment."""
        with self._condition:
            return {"decoded": self._decoded, "taken": self._taken, **self._drops}

    def _ready(self) -> bool:
        return self._wanted and bool(self._waiting)

    def _drop(self, reason: str) -> None:
        self._drops[reason] = self._drops.get(reason, 0) + 1
