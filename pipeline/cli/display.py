"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere, JSON lines on request."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from types import TracebackType
from typing import IO, Any, Self

from onlooker.operators.events import Event

from ..progress import Progress

__all__ = ["Display", "describe", "describe_state", "format_time", "make_display"]

_LINE_EVERY = 5.0
"""Seconds between two progress lines where there is no terminal."""


def format_time(seconds: float) -> str:
    """Media time for people: ``1:23.4`` or ``1:02:03.4``."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{tenths / 10:04.1f}"


def make_display(*, quiet: bool, json_logs: bool, events_on_stdout: bool) -> Display:
    """The display that fits: none, JSON, a bar if both outputs are a terminal, else plain lines."""
    if quiet:
        return Display(None)
    if json_logs:
        return JsonDisplay(sys.stderr)
    out = None if events_on_stdout else sys.stdout
    if sys.stderr.isatty():
        return BarDisplay(out, sys.stderr)
    return LineDisplay(out, sys.stderr)


def describe(event: Event) -> str | None:
    """One line for a person; None for events that say nothing new to one."""
    data: Any = event.data
    began = format_time(event.t_start)
    span = f"{began}-{format_time(event.t_end)}" if event.t_end is not None else ""
    if data.media_epoch:  # the clock on the wall says more than the time since a camera was last connected
        began = span = f"{data.stream} {_wall_clock(event)}"
    if event.kind == "caption" and event.phase == "end":
        return f"{span}  {data.text}"
    if event.kind == "track" and event.phase == "end":
        return f"{span}  object {event.event_no}" + (f", {data.words}" if data.words else "")
    if event.kind == "query" and event.phase == "new":
        return f"{began}  {data.query!r} begins"
    if event.kind == "query" and event.phase == "end":
        return f"{span}  {data.query!r} seen (score {data.score:.2f})"
    return None


def describe_state(event: Event) -> str | None:
    """One line for a person about where a live stream stands; None for other events."""
    data: Any = event.data
    if event.kind != "stream" or data.status in ("started", "ended"):
        return None
    if data.status == "live" and data.reason not in ("start", "frames"):
        return f"{data.stream}: live, its time begins anew ({data.reason})"
    text = f"{data.stream}: {data.status if data.message is None else data.message}"
    return text if data.retry_in is None else f"{text}; trying again in {data.retry_in:.1f} s"


def _wall_clock(event: Event) -> str:
    side = event.data.side
    return datetime.fromisoformat(side.wall).astimezone().strftime("%H:%M:%S") if side and side.wall else "--:--:--"


def _standing(progress: Progress) -> str:
    """``door live 2.0 fps, 0.3 s behind, 3 dropped; yard reconnecting``."""
    parts = []
    for name, told in progress.streams.items():
        text = f"{name} {told.state}"
        if told.state == "live":
            text += f" {told.fps:.1f} fps"
            text += "" if told.age is None else f", {told.age:.1f} s behind"
        parts.append(text + (f", {told.dropped} dropped" if told.dropped else ""))
    return "; ".join(parts)


class Display:
    """Shows nothing; base of the others. Warnings and errors are always shown."""

    def __init__(self, err: IO[str] | None) -> None:
        """Remember where notes go."""
        self._err = err

    def __enter__(self) -> Self:
        """Begin to show."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""

    def update(self, progress: Progress) -> None:
        """The run has come further."""

    def event(self, event: Event) -> None:
        """An event of the log."""

    def note(self, text: str) -> None:
        """Tell the user something in passing."""

    def warn(self, text: str) -> None:
        """Tell the user what went wrong."""
        print(f"onlooker: {text}", file=sys.stderr)


class LineDisplay(Display):
    """Events on standard output as they come; now and then a line of progress on standard error."""

    def __init__(self, out: IO[str] | None, err: IO[str]) -> None:
        """Events go to ``out`` (None: nowhere), notes and progress to ``err``."""
        super().__init__(err)
        self._out = out
        self._next_line = 0.0

    def update(self, progress: Progress) -> None:
        """Print a line every few seconds."""
        now = time.monotonic()
        if now < self._next_line:
            return
        first, self._next_line = self._next_line == 0.0, now + _LINE_EVERY
        if progress.streams and not first:
            print(f"{_standing(progress)}, {progress.events} events", file=self._err)
        elif not first:
            of = f" of {format_time(progress.duration)}" if progress.duration else ""
            print(
                f"{format_time(progress.media_time)}{of}, {progress.speed:.1f}x real time, {progress.events} events",
                file=self._err,
            )

    def event(self, event: Event) -> None:
        """Print what a person wants to know."""
        state = describe_state(event)
        if state is not None:
            self.note(state)
        line = describe(event)
        if line is not None and self._out is not None:
            print(line, file=self._out, flush=True)

    def note(self, text: str) -> None:
        """Print a note."""
        print(f"onlooker: {text}", file=self._err)


class BarDisplay(Display):
    """A bar with media time, speed, events so far and the latest caption; events scroll above it."""

    def __init__(self, out: IO[str] | None, err: IO[str]) -> None:
        """The bar and, on a terminal, the events go to ``err``'s terminal; a redirected ``out`` gets plain lines."""
        super().__init__(err)
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bar

        self._console = Console(file=err, highlight=False)
        self._out = out if out is not None and not out.isatty() else None
        self._shows_events = out is not None and out.isatty()
        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.fields[clock]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[speed]} · {task.fields[events]} events"),
            TextColumn("[dim]{task.fields[caption]}", markup=True),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, clock="starting", speed="", events=0, caption="")

    def __enter__(self) -> Self:
        """Draw the bar."""
        super().__enter__()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away and leave the terminal as it was."""
        self._bar.stop()

    def update(self, progress: Progress) -> None:
        """Move the bar."""
        from rich.markup import escape

        of = f" / {format_time(progress.duration)}" if progress.duration else ""
        live = _standing(progress)
        self._bar.update(
            self._task,
            total=None if live else progress.duration,
            completed=progress.media_time,
            clock=live or format_time(progress.media_time) + of,
            speed="" if live else f"{progress.speed:.1f}x real time",
            events=progress.events,
            caption=escape(progress.latest_caption[:60]),
        )

    def event(self, event: Event) -> None:
        """Print what a person wants to know above the bar."""
        state = describe_state(event)
        if state is not None:
            self.note(state)
        line = describe(event)
        if line is None:
            return
        if self._shows_events:
            self._console.print(line, markup=False)
        elif self._out is not None:
            print(line, file=self._out, flush=True)

    def note(self, text: str) -> None:
        """Print a note above the bar."""
        self._console.print(f"onlooker: {text}", markup=False, style="yellow")


class JsonDisplay(Display):
    """One JSON object per line on standard error, for programs that watch over a run."""

    def __init__(self, err: IO[str]) -> None:
        """Lines go to ``err``."""
        super().__init__(err)
        self._next_line = 0.0

    def update(self, progress: Progress) -> None:
        """Tell where the run stands, about once a second."""
        if (now := time.monotonic()) >= self._next_line:
            self._next_line = now + 1.0
            self._say(
                "progress",
                media_time=round(progress.media_time, 3),
                duration=progress.duration,
                speed=round(progress.speed, 2),
                events=progress.events,
                **progress.counters,
                **self._streams(progress),
            )

    @staticmethod
    def _streams(progress: Progress) -> dict[str, Any]:
        told = {
            name: {"state": s.state, "fps": round(s.fps, 2), "age": s.age and round(s.age, 3), "dropped": s.dropped}
            for name, s in progress.streams.items()
        }
        return {"streams": told} if told else {}

    def event(self, event: Event) -> None:
        """Tell that an event was written."""
        self._say("event", id=event.id, phase=event.phase)
        if (state := describe_state(event)) is not None:
            self.note(state)

    def note(self, text: str) -> None:
        """Tell something in passing."""
        self._say("note", message=text)

    def warn(self, text: str) -> None:
        """Tell what went wrong."""
        self._say("warning", message=text)

    def _say(self, kind: str, **fields: object) -> None:
        print(json.dumps({"log": kind, **fields}, ensure_ascii=False), file=self._err, flush=True)
