"""What the benchmark scripts share: tables and facts about the machine."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path


def machine() -> str:
    """One line about the machine, for the head of a table."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {platform.system()}, Python {platform.python_version()}"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; floats get three significant digits."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(str(header[i])), *(len(row[i]) for row in cells)) for i in range(len(header))]
    lines = ["| " + " | ".join(str(h).ljust(w) for h, w in zip(header, widths, strict=True)) + " |"]
    lines.append("|" + "|".join("-" * (w + 2) for w in widths) + "|")
    lines += ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join(lines)


def publish(title: str, body: str, out: str | None) -> None:
    """Print a result and, with ``out``, keep it as Markdown."""
    text = f"# {title}\n\nMachine: {machine()}\n\n{body}\n"
    print(text)
    if out:
        Path(out).write_text(text, encoding="utf-8")


def spread(values: Sequence[float]) -> str:
    """Median with minimum and maximum."""
    return f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g})"


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
