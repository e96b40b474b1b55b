"""What the scenarios of `live_soak.py` share: the settings, what they find, and lines of progress."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from soak.watching import Watched, soak_graph


@dataclass
class Found:
    """What a scenario measured."""

    held: bool
    rule: str
    header: list[str]
    rows: list[list[object]]


@dataclass
class Soak:
    """The settings, and the videos that the cameras show."""

    args: argparse.Namespace
    video: Path
    other: Path
    """Another resolution and codec."""

    def watch(self, cameras: dict[str, str], **source: object) -> Watched:
        """Watch cameras through the chosen graph, with a short back-off."""
        waits = {"backoff_cap": self.args.cap, "refused_wait": self.args.cap}
        samples = {"fps": 10.0} if self.args.light else {}
        graph = soak_graph(light=self.args.light, **{**samples, **waits, **source})
        return Watched(graph, cameras, self.args.runner)

    @property
    def allowed(self) -> float:
        """Seconds from a camera's return to its first frame: the longest wait, and connecting."""
        return float(self.args.cap + self.args.connecting)


def say(text: str) -> None:
    """One line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def word(good: bool) -> str:
    """How a table says it."""
    return "held" if good else "NOT held"
