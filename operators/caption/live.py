"""Dense captions of an endless stream: the context between decoding points, told as events with phases.

Zhou et al., "Streaming Dense Video Captioning" (CVPR 2024) decode a video of known length at several points: every
point sees the captions of the earlier ones, whose times are rescaled to the part seen since. Here the same context
belongs to a memory that started somewhere in the stream; while that memory lives, all is as in the paper, token by
token. When an older memory gives way to a younger one, the start of time moves: events that ended before it are final,
the others keep their times for good and are written anew, relative to it, for the model alone: their starts may lie
before it, and bins that are rescaled again and again would drift.

All times are integer microseconds since the first frame of the stream, because bins depend on their last digit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from .contexts import drop_times, empty_context, merge_tokens, stretch_times
from .dense_events import caption_text, parse_events
from .time_tokens import TimeTokens

_PAD = 0


@dataclass(frozen=True, slots=True)
class LiveCaption:
    """One event as it stands."""

    start_us: int
    end_us: int
    text: str
    tokens: tuple[int, ...]
    """The words."""
    number: int = -1
    """Of the event within its stream; -1 as long as it was not told."""
    rev: int = 0
    settled: bool = False
    """Its times change no more: an older memory saw it whole, this one perhaps only its end."""


@dataclass(frozen=True, slots=True)
class Told:
    """A revision to publish."""

    phase: Literal["new", "update", "end"]
    caption: LiveCaption


@dataclass(slots=True)
class LiveContext:
    """What is remembered of a stream: plain values, and no more of them than a row has room for."""

    origin_us: int = 0
    """Start of the memory: time-token zero."""
    age_us: int = 0
    """What the times of `row` are relative to: from the origin to the last point."""
    row: Tensor | None = None
    """(1, L) int64 all captions since the origin, with times; None before the first point."""
    told: dict[int, LiveCaption] = field(default_factory=dict)
    """The captions as they were last told, by their place in the row; final ones are forgotten."""
    next_number: int = 0


@dataclass(frozen=True)
class LiveCaptions:
    """Leads contexts from point to point.

    Attributes:
        times: the time tokens of the model.
        length: L, positions of a row; captions that do not fit any more are cut off, as in the reference.
        begin, end: the tokens around a row.
        detokenize: words of ids.
        revise_us: an interval that moved by less is not told again before it is final.
        with_times: the model sees the times of earlier captions.
        shortest_us: what is shorter is not told; the model's own context keeps it.
    """

    times: TimeTokens
    length: int
    begin: int
    end: int
    detokenize: Callable[[list[int]], str]
    revise_us: int = 1_000_000
    with_times: bool = False
    shortest_us: int = 0

    def advance(self, context: LiveContext, origin_us: int, point_us: int) -> list[Told]:
        """Go to the point `point_us` of a memory that started at `origin_us`; returns what is final by that."""
        told: list[Told] = []
        age = point_us - origin_us
        if context.row is None or origin_us != context.origin_us:
            told = self._rebase(context, origin_us, age)
        else:
            # Ages are rounded to microseconds, hence the slack.
            context.row = stretch_times(context.row, self.times, context.age_us, age, slack=age // 1000)
        context.origin_us, context.age_us = origin_us, age
        return told

    def prefix(self, context: LiveContext) -> Tensor:
        """(1, L) int64, what the model reads of the captions so far."""
        assert context.row is not None, "advance comes first"
        return context.row if self.with_times else drop_times(context.row, self.times)

    def add(self, context: LiveContext, decoded: Tensor) -> list[Told]:
        """Take in what the model wrote, (1, L) int64; returns what is new, and what it changed of the old."""
        assert context.row is not None, "advance comes first"
        context.row = merge_tokens([context.row, decoded], self.length, self.begin, self.end)
        told: list[Told] = []
        for place, caption in self._read(context).items():
            before = context.told.get(place)
            if before is None:
                told.append(Told("new", replace(caption, number=context.next_number)))
                context.next_number += 1
            elif self._differs(before, caption):
                told.append(Told("update", replace(caption, number=before.number, rev=before.rev + 1)))
            else:
                continue
            context.told[place] = told[-1].caption
        return told

    def finish(self, context: LiveContext) -> list[Told]:
        """All captions are final: the stream is over."""
        told = [Told("end", replace(caption, rev=caption.rev + 1)) for caption in self._standing(context)]
        context.row, context.told = None, {}
        return told

    def _rebase(self, context: LiveContext, origin_us: int, age_us: int) -> list[Told]:
        """Start the context of another memory with the captions that reach into it."""
        standing = self._standing(context)
        kept = [caption for caption in standing if caption.end_us > origin_us]
        tokens: list[int] = []
        for caption in kept:
            start, end = max(0, caption.start_us - origin_us), caption.end_us - origin_us
            tokens += [*self.times.encode([start], [end], age_us)[0].tolist(), *caption.tokens]
        rows = [empty_context(1, self.length, self.begin, self.end)]
        rows += [torch.tensor([tokens])] if tokens else []
        context.row = merge_tokens(rows, self.length, self.begin, self.end)
        context.told = {place: replace(caption, settled=True) for place, caption in enumerate(kept)}
        return [Told("end", replace(c, rev=c.rev + 1)) for c in standing if c.end_us <= origin_us]

    def _standing(self, context: LiveContext) -> list[LiveCaption]:
        """The captions that were told and are not final, as they stand now, in the order of the row."""
        if not context.told:
            return []
        now = self._read(context)
        found = [(now.get(place, before), before) for place, before in sorted(context.told.items())]
        return [replace(caption, number=before.number, rev=before.rev) for caption, before in found]

    def _read(self, context: LiveContext) -> dict[int, LiveCaption]:
        """The captions of the context as they stand; `told` knows the times of those from an older memory."""
        if context.row is None:
            return {}
        found = self.read(context.row, context.origin_us, context.age_us)
        for place, before in context.told.items():
            if before.settled and place in found:
                found[place] = replace(found[place], start_us=before.start_us, end_us=before.end_us, settled=True)
        return found

    def read(self, row: Tensor, origin_us: int, age_us: int) -> dict[int, LiveCaption]:
        """The captions of a row by their place; those without words, without times or too short are left out.

        Args:
            row: (1, L) int64, with the begin token.
            origin_us: time-token zero.
            age_us: from there to the last time token.
        """
        found = {}
        for place, event in enumerate(parse_events(row[0, 1:].tolist(), self.times, age_us, strict=False)):
            words = tuple(token for token in event.tokens if token not in (_PAD, self.begin, self.end))
            text = caption_text(words, self.detokenize, ())
            if text and min(event.start_bin, event.end_bin) >= 0:
                start, end = sorted((event.start_us, event.end_us))
                if end - start >= self.shortest_us:
                    found[place] = LiveCaption(origin_us + start, origin_us + end, text, words)
        return found

    def _differs(self, before: LiveCaption, now: LiveCaption) -> bool:
        moved = max(abs(before.start_us - now.start_us), abs(before.end_us - now.end_us))
        return before.text != now.text or (moved > 0 and moved >= self.revise_us)
