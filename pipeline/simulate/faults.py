"""What can go wrong with a camera: the kinds of faults, how they are written, and which ones are going on."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ..errors import UsageError
from .formats import Codec, parse_size

__all__ = ["KINDS", "Effects", "Fault", "FaultKind", "fault_of_json", "help_text", "parse_fault"]


@dataclass(frozen=True)
class FaultKind:
    """One kind of fault: what it does, and what its numbers mean."""

    does: str
    example: str
    value: str | None = None  # name of the first parameter besides `seconds`
    default: float | None = None  # of the value; None: it must be given
    lasts: float | None = None  # default seconds; None: it is over at once
    refuses: int | None = None  # RTSP and HTTP status that it answers


_FOREVER = float("inf")
KINDS: dict[str, FaultKind] = {
    "stall": FaultKind("keeps all connections, answers requests, sends no video for SECONDS", "stall@10:30", lasts=5),
    "hang": FaultKind("keeps all connections and takes new ones, but says nothing at all", "hang@10:30", lasts=5),
    "kill": FaultKind("closes all connections and the port, comes back after SECONDS", "kill@10/20:2", lasts=2),
    "reset": FaultKind("breaks all connections with a TCP reset; the port stays open", "reset@10"),
    "401": FaultKind("ends all sessions, then answers '401 Unauthorized'", "401@10:30", lasts=_FOREVER, refuses=401),
    "404": FaultKind("ends all sessions, then answers '404 Not Found'", "404@10:30", lasts=_FOREVER, refuses=404),
    "503": FaultKind("ends all sessions, then answers '503 Service Unavailable'", "503:9", lasts=_FOREVER, refuses=503),
    "garbage": FaultKind("sends random bytes in place of the video", "garbage@10:2", lasts=2),
    "garbage-rtsp": FaultKind("writes random bytes between the RTSP messages", "garbage-rtsp@10:1", lasts=1),
    "loss": FaultKind("drops PERCENT of the RTP packets", "loss:5,60", "percent", 5, _FOREVER),
    "slow": FaultKind(
        "passes the video on at SPEED of real time, then all that is late", "slow:0.5,10", "speed", 0.5, 10
    ),
    "codec": FaultKind("changes the codec to h264, h265 or mjpeg; connections close", "codec@10:h265", "codec"),
    "size": FaultKind("changes the resolution; connections close", "size@10:320x240", "size"),
    "fps": FaultKind("changes the pictures per second; connections close", "fps@10:5", "fps"),
    "clock": FaultKind("lets the camera's wall clock jump by JUMP seconds", "clock@10:3600", "jump"),
    "pts-jump": FaultKind("lets the RTP timestamps jump by JUMP seconds", "pts-jump@10:-5", "jump"),
    "pts-freeze": FaultKind("gives all pictures the same RTP timestamp", "pts-freeze@10:2", lasts=2),
    "no-reports": FaultKind("sends no RTCP sender reports", "no-reports@10:30", lasts=_FOREVER),
}
_TEXT_VALUES = {"codec", "size"}
_RANGES = {
    "seconds": (0, _FOREVER),
    "at": (0, _FOREVER),
    "every": (1e-3, _FOREVER),
    "percent": (0, 100),
    "speed": (0.01, 1),
    "fps": (0.1, 240),
    "jump": (-1e9, 1e9),
}
_SPELLING = re.compile(r"(?P<kind>[\w-]+)(@(?P<at>[\d.]+)(/(?P<every>[\d.]+))?)?(:(?P<rest>.+))?")


@dataclass(frozen=True)
class Fault:
    """One fault, checked. `at` is in seconds after the camera's start, None for now; `every` repeats it."""

    kind: str
    value: float | str | None = None
    seconds: float = 0.0
    at: float | None = None
    every: float | None = None

    def __str__(self) -> str:
        """Say it in words."""
        value = "" if self.value is None else f" {self.value if isinstance(self.value, str) else f'{self.value:g}'}"
        return self.kind + value + (f" for {self.seconds:g} s" if 0 < self.seconds < _FOREVER else "")


def parse_fault(text: str) -> Fault:
    """Read ``KIND[@SECONDS[/EVERY]][:VALUE][,SECONDS]``, as the command line has it.

    Raises:
        UsageError: it is not written so, or its numbers make no sense.
    """
    match = _SPELLING.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--fault {text!r}: write KIND[@SECONDS][:PARAMETER], for example stall@10:5.")
    kind = _kind(match["kind"])
    rest = [part.strip() for part in match["rest"].split(",")] if match["rest"] else []
    names = [name for name in (KINDS[kind].value, "seconds" if KINDS[kind].lasts is not None else None) if name]
    if len(rest) > len(names):
        takes = " and ".join(names) or "no parameter"
        raise UsageError(f"--fault {text!r}: {kind} takes {takes}; for example {KINDS[kind].example}.")
    times = {name: match[name] for name in ("at", "every") if match[name]}
    return _checked(kind, {**dict(zip(names, rest, strict=False)), **times})


def fault_of_json(command: Mapping[str, Any]) -> Fault:
    """Read ``{"fault": KIND, VALUE-NAME: ..., "seconds": ...}``, as the control channel has it.

    Raises:
        UsageError: there is no such fault, or its numbers make no sense.
    """
    kind = _kind(str(command["fault"]))
    return _checked(kind, {name: value for name, value in command.items() if name != "fault" and value is not None})


def _kind(name: str) -> str:
    if name not in KINDS:
        raise UsageError(f"there is no fault {name!r}; choose one of {', '.join(KINDS)}.")
    return name


def _checked(kind: str, given: dict[str, Any]) -> Fault:
    spec = KINDS[kind]
    wrong = set(given) - {spec.value, "at", "every"} - ({"seconds"} if spec.lasts is not None else set())
    if wrong:
        raise UsageError(f"fault {kind} has no {sorted(wrong)[0]!r}; for example {spec.example}.")
    numbers = {name: _number(kind, name, text) for name, text in given.items() if name not in _TEXT_VALUES}
    value: float | str | None = None
    if spec.value:
        value = _text(kind, given) if spec.value in _TEXT_VALUES else numbers.get(spec.value, spec.default)
        if value is None:
            raise UsageError(f"fault {kind} needs its {spec.value}; for example {spec.example}.")
    for name, number in numbers.items():
        low, high = _RANGES[name]
        if not low <= number <= high:
            raise UsageError(f"fault {kind}: {name} must lie between {low:g} and {high:g}, not {number:g}.")
    return Fault(kind, value, numbers.get("seconds", spec.lasts or 0.0), numbers.get("at"), numbers.get("every"))


def _text(kind: str, given: Mapping[str, Any]) -> str | None:
    text = given.get(KINDS[kind].value or "")
    if kind == "codec" and text is not None and text not in get_args(Codec):
        raise UsageError(f"fault codec: {text!r} is none of {', '.join(get_args(Codec))}.")
    if kind == "size" and text is not None:
        parse_size(str(text))
    return None if text is None else str(text)


def _number(kind: str, name: str, text: Any) -> float:
    try:
        number = float(text)
    except (TypeError, ValueError):
        number = float("nan")
    if number != number or isinstance(text, bool):
        raise UsageError(f"fault {kind}: {name} must be a number, not {text!r}; for example {KINDS[kind].example}.")
    return number


def help_text() -> str:
    """Return one line for each kind of fault."""
    lines = [f"  {spec.example:20} {spec.does}" for spec in KINDS.values()]
    return "\n".join(["faults, each as an example:", *lines])


class Effects:
    """The faults that last: which of them are going on, and what they do to packets and times."""

    def __init__(self, seed: int) -> None:
        """Start without any; `seed` makes losses and garbage repeatable."""
        self._random = random.Random(seed)
        self._since: dict[str, tuple[Fault, float]] = {}

    def begin(self, fault: Fault) -> None:
        """Let a fault act from now on, in place of one of the same kind."""
        self._since[fault.kind] = (fault, time.monotonic())

    def clear(self) -> None:
        """End all."""
        self._since.clear()

    def active(self, kind: str) -> Fault | None:
        """Return the fault of this kind that is going on."""
        fault, since = self._since.get(kind, (None, 0.0))
        return fault if fault is not None and time.monotonic() < since + fault.seconds else None

    def names(self) -> list[str]:
        """Return the kinds that are going on."""
        return [kind for kind in self._since if self.active(kind)]

    def refusal(self) -> int | None:
        """Return the status with which requests are refused."""
        return next((spec.refuses for kind, spec in KINDS.items() if spec.refuses and self.active(kind)), None)

    def loses(self) -> bool:
        """Draw whether the next packet is lost."""
        fault = self.active("loss")
        return fault is not None and self._random.random() * 100 < float(fault.value or 0)

    def spoiled(self, payload: bytes) -> bytes:
        """Return what is sent in place of a payload."""
        return self._random.randbytes(len(payload)) if self.active("garbage") else payload

    def noise(self, size: int) -> bytes:
        """Return random bytes."""
        return self._random.randbytes(size)

    def delayed(self, due: float) -> float:
        """Return when something is sent that is due at the instant `due`."""
        fault = self.active("slow")
        if fault is None:
            return due
        since = self._since["slow"][1]
        return due if due < since else since + (due - since) / float(fault.value or 1)
