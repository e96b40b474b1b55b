"""One line of a doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding"]

_MARKS = {"ok": "ok     ", "note": "note   ", "missing": "MISSING", "wrong": "WRONG  "}


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what was found."""

    level: Literal["ok", "note", "missing", "wrong"]
    what: str
    detail: str

    def __str__(self) -> str:
        """Return the line."""
        return f"  {_MARKS[self.level]} {self.what:<26} {self.detail}"
